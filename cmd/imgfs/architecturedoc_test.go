package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureDoc: the packages, files and functions that
// docs/architecture.md names are there, and every package is in its table.
func TestArchitectureDoc(t *testing.T) {
	doc := readDoc(t, "docs/architecture.md")
	for _, m := range regexp.MustCompile("`((?:cmd|fs|layerindex|remote|testdata)/[\\w./]+)`").FindAllStringSubmatch(doc, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", m[1])); err != nil {
			t.Errorf("docs/architecture.md names %s: %v", m[1], err)
		}
	}
	functions := regexp.MustCompile("`(\\w+)\\.(\\w+)` (?:\\(|in )`([\\w./]+\\.go)`").FindAllStringSubmatch(doc, -1)
	if len(functions) < 20 {
		t.Errorf("docs/architecture.md names only %d functions", len(functions))
	}
	for _, m := range functions {
		// Of a type, or of a package.
		declared := regexp.MustCompile(`(?m)^func (\(\w+ \*?` + m[1] + `\) )?` + m[2] + `\(`)
		if source := readDoc(t, m[3]); !declared.MatchString(source) {
			t.Errorf("docs/architecture.md has %s.%s in %s, where it is not", m[1], m[2], m[3])
		}
	}
	table, _, _ := strings.Cut(doc, "\n## A cold read")
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if top, _, _ := strings.Cut(name, "/"); top == "testdata" {
			name = top
		}
		if !strings.Contains(table, "`"+name+"`") && !strings.Contains(table, "`"+filepath.Base(name)+"`") {
			t.Errorf("docs/architecture.md does not say what %s is for", name)
		}
	}
}
