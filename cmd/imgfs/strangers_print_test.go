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
	"github.com/imgfs/imgfs/cmd/imgfs/internal/diff"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/du"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/grep"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/sum"
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
		"inspect":     documentOf[remote.Inspection](0, nil),
		"du --layers": documentOf(4, func(e *env, rows []layerUsage) error { return e.printUsage(rows, false) }),
		"stat":        documentOf[statDoc](0, nil),
		"history": documentOf(6, func(e *env, rows []historyRow) error {
			if err := e.printHistory(rows, &historyFlags{noTrunc: true}); err != nil {
				return err
			}
			return e.printHistory(rows, &historyFlags{})
		}),
		"index":        documentOf(3, (*env).printIndex),
		"index push":   documentOf(3, (*env).printPush),
		"profile show": documentOf[profileDoc](0, nil),
		"du":           documentOf[du.Line](0, nil),
		"grep":         documentOf[grep.Row](0, nil),
		"ls":           documentOf[ls.Listed](0, nil),
		"find":         documentOf[entry.Entry](0, nil),
		"sum":          documentOf[sum.Row](0, nil),
		"cache ls":     documentOf(6, func(e *env, l cacheList) error { return e.printCache(&l) }),
		"cache prune":  documentOf(4, (*env).printPruned),
		"cache verify": documentOf(7, func(e *env, r verifyReport) error { return e.printReport(&r) }),
		"config":       documentOf(3, func(e *env, d configDoc) error { return e.writeConfig(&d, false) }),
		"version":      documentOf[versionDoc](0, nil),
		"stats": documentOf(24, func(e *env, s serve.Stats) error {
			s.Opening = true
			if err := e.printStats(s, statsTables{}); err != nil {
				return err
			}
			s.Opening = false
			return e.printStats(s, statsTables{layers: true, files: true, paths: true})
		}),
		"ps":   documentOf(3, (*env).printMounts),
		"diff": documentOf[diff.Document](0, nil),
		"diff --packages": documentOf(2, func(e *env, p diff.Package) error {
			return diff.PrintPackages(e.Stdout, diff.Config{}, []diff.Package{p})
		}),
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
		if err := newEnv(&table, io.Discard).printStats(s, statsTables{layers: true, files: true, paths: true}); err != nil {
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
	"Digest", "DiffID", "Manifest", "Unknown", "Layers", "DiffIDs", "ImageID", "Expected", // digests
	"Codec", "Obtained", "Verified", "Kind", "State", "Status", "Origin", "Vouched", "Lost", // imgfs's own words
	"From", "Header", "Repository", // repositories and digests, and a sum
	"Why", "LastWhy", "Reason", "Host", "Health", "Owner", // sentences, and names of servers
	"Unit", // systemd allows a few letters
	"FastPath.Name", "Key", "Variable",
	"Entry.Type", "Entry.Mode", "Entry.Modified", "Entry.Device", // words and numbers
	"FastPath.Name", "What",
	"Engine.Chain", "Engine.Images", "EngineContainer.Namespace", // a digest, and what was read from JSON or sent by gRPC
	"Created", "CreatedBy", "Author", "Comment", // read from JSON
	"Manager", "Change", "Arch", "OldArch", "Old", "New", // of packages: what their managers compare
	"LayerDigest", "statVersion.Change", "statVersion.Type", "statVersion.Mode", "statVersion.Modified",
	"Platform",                                                                    // read from JSON, as all that inspect has
	"versionDoc.Version", "versionDoc.Go", "versionDoc.Commit", "versionDoc.Time", // the program's own
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
		if command != "index" && command != "index push" && command != "cache prune" && command != "history" && command != "du --layers" && command != "version" && used == 0 {
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
		"run.go: os.Stdout": 1, "run.go: os.Stderr": 1, // the container's own
		"internal/container/runtime_linux.go: os.Stdout": 1, "internal/container/runtime_linux.go: os.Stderr": 1, // likewise
		"internal/container/bwrap_linux.go: os.Stdout": 1, "internal/container/bwrap_linux.go: os.Stderr": 1, // and of bwrap
		"cat.go: e.Raw":             1,
		"ls.go: e.Raw":              2,
		"mounthelper.go: os.Stdout": 1, "mounthelper.go: os.Stderr": 1, // for an env
		"explore.go: e.Raw":                    1,                                            // whether it is a terminal
		"internal/explore/pager.go: os.Stdout": 1, "internal/explore/pager.go: os.Stderr": 1, // the pager's
		"find.go: e.Raw":                     2,
		"tree.go: e.Raw":                     2,
		"du.go: e.Raw":                       2,
		"sum.go: e.Raw":                      2,
		"grep.go: e.Raw":                     2,
		"ps.go: e.Raw":                       3, // directories
		"ps.go: show.JSON":                   1,
		"cp.go: e.Raw":                       1,
		"tar.go: e.Raw":                      2,
		"complete.go: e.Raw":                 1, // words for the shell's functions, which print them in their way
		"completion.go: e.Raw":               1, // the script
		"config.go: e.Raw":                   2, // for another env
		"config.go: e.Stderr":                2, // for another env
		"config.go: show.JSON":               1,
		"inspect.go: e.Raw":                  2, // --raw and --config
		"mount.go: e.Raw":                    2, // for the child, and the directory that was made
		"internal/serve/mount.go: e.Raw":     1, // the directory that was made
		"mount.go: e.Stderr":                 1,
		"internal/cli/env.go: e.Stderr":      2,                                           // what message has escaped
		"internal/serve/mount.go: e.Stderr":  1,                                           // what the log has escaped
		"internal/serve/detach.go: e.Stderr": 1,                                           // what message has escaped
		"internal/serve/resume.go: e.Stderr": 2, "internal/serve/succeed.go: e.Stderr": 1, // what the log has escaped
		"env.go: e.Raw":         2, // whether it is a terminal
		"inspect.go: show.JSON": 1, "history.go: show.JSON": 1, "stat.go: e.Raw": 2, "du_layers.go: show.JSON": 1, "index.go: show.JSON": 1, "stats.go: show.JSON": 1, "version.go: show.JSON": 1,
		"podman_ls.go: e.Raw":      2, // IDs, and whether it is a terminal
		"podman_ls.go: show.JSON":  1,
		"profile.go: e.Raw":        1, // what printable.JSON has escaped
		"profile.go: show.JSON":    1,
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
