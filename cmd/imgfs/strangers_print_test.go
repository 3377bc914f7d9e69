//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote"
)

// A document is what a command prints, as JSON or for people.
type document struct {
	value func() any
	into  func() any // what it is read into again
	print func(e *env) error
	rows  int // lines for people
}

func documentOf[T any](rows int, print func(e *env, v T) error) document {
	value := func() T { return filled[T](func(place string) string { return place + strangeName }) }
	d := document{value: func() any { return value() }, into: func() any { return new(T) }, rows: rows}
	if print != nil {
		d.print = func(e *env) error { return print(e, value()) }
	}
	return d
}

// documents are all that the commands print.
func documents() map[string]document {
	return map[string]document{
		"inspect":      documentOf[remote.Inspection](0, nil),
		"index":        documentOf(3, (*env).printIndex),
		"index push":   documentOf(3, (*env).printPush),
		"cache ls":     documentOf(6, func(e *env, l cacheList) error { return e.printCache(&l) }),
		"cache prune":  documentOf(3, (*env).printPruned),
		"cache verify": documentOf(7, func(e *env, r verifyReport) error { return e.printReport(&r) }),
		"stats":        documentOf(27, (*env).printStats),
	}
}

// TestDocuments prints documents of which strangers wrote each member.
func TestDocuments(t *testing.T) {
	for name, d := range documents() {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			e := newEnv(&out, io.Discard)
			if err := show.JSON(e.Stdout, d.value()); err != nil {
				t.Fatal(err)
			}
			checkHarmless(t, "the document", out.String())
			got := d.into()
			if err := show.Unmarshal(out.Bytes(), got); err != nil {
				t.Fatal(err)
			}
			// The texts that are no names are as any writer of JSON has them.
			if !reflect.DeepEqual(withJSON(t, got), withJSON(t, d.value())) {
				t.Errorf("it was\n%+q\nand is\n%+q", withJSON(t, d.value()), withJSON(t, got))
			}
			checkNames(t, got)
			screen := onTerminal(t, func(tty *os.File) int {
				if err := show.JSON(newEnv(tty, io.Discard).Stdout, d.value()); err != nil {
					t.Error(err)
				}
				return 0
			})
			if got := strings.ReplaceAll(screen, "\r\n", "\n"); got != out.String() {
				t.Errorf("on a terminal it is another document:\n%q\n%q", got, out.String())
			}
			if d.print != nil {
				checkTable(t, d)
			}
		})
	}
}

// checkNames checks that names have come through as they were.
func checkNames(t *testing.T, doc any) {
	t.Helper()
	eachName(reflect.ValueOf(doc), func(name reflect.Value) {
		all := []string{name.String()}
		if name.Kind() == reflect.Slice {
			all = name.Interface().([]string)
		}
		for _, s := range all {
			if !strings.HasSuffix(s, strangeName) {
				t.Errorf("a name has become %q", s)
			}
		}
	})
}

// eachName calls do for every field X of a document's structs that has a field
// XBytes beside it.
func eachName(v reflect.Value, do func(name reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		eachName(v.Elem(), do)
	case reflect.Slice:
		for i := range v.Len() {
			eachName(v.Index(i), do)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if beside, ok := v.Type().FieldByName(f.Name + "Bytes"); ok && holdsBytes(beside.Type) {
				do(v.Field(i))
			} else if f.IsExported() || f.Anonymous {
				eachName(v.Field(i), do)
			}
		}
	}
}

func holdsBytes(t reflect.Type) bool {
	return t == reflect.TypeFor[show.NameBytes]() || t == reflect.TypeFor[[]show.NameBytes]()
}

// checkTable checks what a document is for people.
func checkTable(t *testing.T, d document) {
	t.Helper()
	var out bytes.Buffer
	if err := d.print(newEnv(&out, io.Discard)); err != nil {
		t.Fatal(err)
	}
	checkHarmless(t, "the table", out.String())
	if n := lines(out.Bytes()); n != d.rows {
		t.Errorf("got %d lines, want %d:\n%q", n, d.rows, out.String())
	}
	// The net below it must have had nothing to do.
	var raw bytes.Buffer
	if err := d.print(&env{Env: &cli.Env{Stdout: &raw}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw.Bytes(), out.Bytes()) {
		t.Errorf("something was not escaped where it was printed:\n%q", raw.String())
	}
}

// FuzzStats prints what any file system might answer for stats.
func FuzzStats(f *testing.F) {
	text, err := json.Marshal(filled[serve.Stats](strange))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"files":[{"path":"a\ufffd","pathBytes":"Yf8="}],"line":{"bytesPerSecond":1e308}}`))
	f.Add([]byte("{\"image\":\"\xff\u009b\u202e\",\"since\":\"0001-01-01T00:00:00Z\"}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var s serve.Stats
		if show.Unmarshal(answer, &s) != nil {
			return
		}
		var table, doc bytes.Buffer
		if err := newEnv(&table, io.Discard).printStats(s); err != nil {
			t.Fatal(err)
		}
		checkHarmless(t, "the table", table.String())
		if err := show.JSON(newEnv(&doc, io.Discard).Stdout, s); err != nil {
			t.Fatal(err)
		}
		checkHarmless(t, "the document", doc.String())
		var again serve.Stats
		if err := show.Unmarshal(doc.Bytes(), &again); err != nil || !reflect.DeepEqual(withJSON(t, again), withJSON(t, s)) {
			t.Errorf("error %v; it was\n%+q\nand is\n%+q", err, withJSON(t, s), withJSON(t, again))
		}
	})
}

// lossy are the texts of documents that may be no UTF-8, in theory, and have no
// bytes beside them: they are no names.
var lossy = []string{
	"Digest", "DiffID", "Manifest", "Unknown", "Layers", "DiffIDs", "ImageID", // digests
	"Codec", "Obtained", "Verified", "Kind", "State", "Origin", "Vouched", "Lost", // imgfs's own words
	"From", "Header", // repository and digest, and a sum
	"Why", "Reason", "Host", // sentences, and names of servers
	"FastPath.Name",
	"Platform", // read from JSON, as all that inspect has
}

// TestNameBytes finds every text of a document, which is a name with its bytes
// beside it, or is in the list above.
func TestNameBytes(t *testing.T) {
	for command, d := range documents() {
		if command == "inspect" {
			continue // all of it was read from JSON
		}
		used := 0
		eachText(reflect.TypeOf(d.value()), func(owner reflect.Type, f reflect.StructField) {
			beside, ok := owner.FieldByName(f.Name + "Bytes")
			switch named := ok && holdsBytes(beside.Type); {
			case named:
				used++
			case !slices.Contains(lossy, f.Name) && !slices.Contains(lossy, owner.Name()+"."+f.Name):
				t.Errorf("imgfs %s: %s of %v has neither its bytes beside it nor a reason", command, f.Name, owner)
			}
		})
		if command != "index" && command != "index push" && command != "cache prune" && used == 0 {
			t.Errorf("imgfs %s: no name was found", command)
		}
	}
}

func eachText(typ reflect.Type, do func(owner reflect.Type, f reflect.StructField)) {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		kind := f.Type
		for kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		if kind.Kind() == reflect.String && !holdsBytes(f.Type) {
			do(typ, f)
		}
		eachText(f.Type, do)
	}
}

// TestPrinters lists the places that print: text for stdout goes through the net,
// but for what is to come out byte for byte, and each JSON document is in the
// table above.
func TestPrinters(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := filepath.Glob("internal/*/*.go")
	if err != nil || len(inner) == 0 {
		t.Fatalf("%d files of internal packages, error %v", len(inner), err)
	}
	uses := map[string]int{}
	for _, name := range append(files, inner...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := s.X.(*ast.Ident)
			if inner, ok := s.X.(*ast.SelectorExpr); ok && inner.Sel.Name == "Env" {
				x = &ast.Ident{Name: "e"}
			}
			switch {
			case x == nil:
			case x.Name == "os" && (s.Sel.Name == "Stdout" || s.Sel.Name == "Stderr"), x.Name == "e" && (s.Sel.Name == "Raw" || s.Sel.Name == "Stderr"), x.Name == "show" && s.Sel.Name == "JSON",
				x.Name == "fmt" && strings.HasPrefix(s.Sel.Name, "Print"):
				uses[fmt.Sprintf("%s: %s.%s", name, x.Name, s.Sel.Name)]++
			}
			return true
		})
	}
	want := map[string]int{
		"main.go: os.Stdout": 1, "main.go: os.Stderr": 1,
		"cat.go: e.Raw":                      1,
		"ls.go: e.Raw":                       2,
		"inspect.go: e.Raw":                  2, // --raw and --config
		"mount.go: e.Raw":                    2, // for the child, and the directory that was made
		"internal/serve/mount.go: e.Raw":     1, // the directory that was made
		"mount.go: e.Stderr":                 1,
		"internal/cli/env.go: e.Stderr":      2, // what message has escaped
		"internal/serve/mount.go: e.Stderr":  1, // what the log has escaped
		"internal/serve/detach.go: e.Stderr": 1, // what message has escaped
		"env.go: e.Raw":                      1, // whether it is a terminal
		"inspect.go: show.JSON":              1, "index.go: show.JSON": 1, "stats.go: show.JSON": 1,
		"index_push.go: show.JSON": 1, "cache_ls.go: show.JSON": 1, "cache_prune.go: show.JSON": 1, "cache_verify.go: show.JSON": 1,
	}
	if !reflect.DeepEqual(uses, want) {
		t.Errorf("got\n%v\nwant\n%v\nWho prints text of strangers must escape it, and a document belongs into the tests", uses, want)
	}
}

// TestMessages has errors, warnings and hints of strangers.
func TestMessages(t *testing.T) {
	var out bytes.Buffer
	e := newEnv(io.Discard, &out)
	e.Verbose = true
	e.Warnf("%s", strangeName)
	e.Debugf("%s", strangeName)
	e.Error(cli.WithHint(fmt.Errorf("%s", strangeName), strangeName))
	e.Error(fmt.Errorf("%s", strings.Repeat("x", 1<<20)))
	checkHarmless(t, "stderr", out.String())
	if n := lines(out.Bytes()); n != 5 || out.Len() > 20<<10 {
		t.Errorf("got %d lines and %d bytes, want 5 short ones:\n%.3000s", n, out.Len(), out.String())
	}
}

// TestFillFindsAll: what these tests rest on reaches every text.
func TestFillFindsAll(t *testing.T) {
	all := places[serve.Stats]()
	for _, want := range []string{"Image", "Manifest", "Servers1Reason", "FastPaths0Name", "Layers0Digest", "Layers1Verified", "Files0Path"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not among %q", want, all)
		}
	}
	text, err := json.Marshal(filled[remote.Inspection](strange))
	if err != nil || !bytes.Contains(text, []byte("LabelsKey1")) || !bytes.Contains(text, []byte("LayersData0AnnotationsValue0")) {
		t.Errorf("error %v, and the filled document is %s", err, text)
	}
}
