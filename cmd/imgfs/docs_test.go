package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/diff"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/du"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/grep"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/sum"
)

// readDoc returns a file of the repository, by its place in it.
func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestJSONDoc: docs/json.md has every member of what --json prints, in the
// part about the command.
func TestJSONDoc(t *testing.T) {
	parts := map[string]string{}
	for part := range strings.SplitSeq(readDoc(t, "docs/json.md"), "\n## ") {
		title, text, _ := strings.Cut(part, "\n")
		parts[title] = text
	}
	for command, v := range map[string]any{
		"index": indexRow{}, "index push": pushRow{}, "diff": diff.Document{}, "diff --packages": diff.Package{}, "cache ls": cacheList{}, "cache prune": pruneResult{}, "cache verify": verifyReport{}, "config": configDoc{}, "version": versionDoc{}, "stats": serve.Stats{}, "ps": serve.Running{}, "podman ls": podmanList{}, "du": du.Line{}, "grep": grep.Row{}, "sum": sum.Row{}, "find": entry.Entry{},
		"ls":      ls.Listed{},
		"history": historyRow{},
		"stat":    statDoc{}, "du --layers": layerUsage{},
	} {
		text := parts["`imgfs "+command+" --json`"]
		if text == "" { // that of several commands
			text = parts["Files"]
		}
		names := membersOf(reflect.TypeOf(v))
		if len(names) < 5 {
			t.Fatalf("imgfs %s: only the members %q", command, names)
		}
		for _, name := range names {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("docs/json.md does not have %s of imgfs %s", name, command)
			}
		}
	}
}

// membersOf returns the names of all members that a struct has in JSON, and of
// those within them.
func membersOf(typ reflect.Type) (names []string) {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
		return nil
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
		names = append(names, membersOf(f.Type)...)
	}
	return names
}
