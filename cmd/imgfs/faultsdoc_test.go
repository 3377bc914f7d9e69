package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestFaultsDoc: docs/faults.md has all faults, and the tests that it names
// exist; those that must be tried through a mount are.
func TestFaultsDoc(t *testing.T) {
	exists := map[string]bool{}
	for _, dir := range []string{".", "../../remote/registry", "../../remote/registry/hosts", "../../fs/image"} {
		names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
				exists[string(m[1])] = true
			}
		}
	}
	doc := readDoc(t, "docs/faults.md")
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bTest\w+\b`).FindAllString(doc, -1) {
		if named[name] = true; !exists[name] && name != "TestFault" && name != "TestMountFault" {
			t.Errorf("docs/faults.md names the test %s, which does not exist", name)
		}
	}
	mounts := []string{"1", "5", "8", "12", "17", "19", "20", "23", "25", "29", "31"}
	next := 1
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|[^|]+\|[^|]+\|([^|]+)\|$`).FindAllStringSubmatch(doc, -1) {
		if m[1] != strconv.Itoa(next) {
			t.Errorf("fault %s stands where %d should", m[1], next)
		}
		own := "0" + m[1]
		own = own[len(own)-2:]
		if !strings.Contains(m[2], "TestFault"+own) {
			t.Errorf("fault %s has no test of its own", m[1])
		}
		for _, n := range mounts {
			if n == m[1] && !strings.Contains(m[2], "TestMountFault"+own) {
				t.Errorf("fault %s has no test through a mount", m[1])
			}
		}
		next++
	}
	if next != 32 {
		t.Errorf("%d faults are in the table, want 31", next-1)
	}
	for name := range exists {
		if (strings.HasPrefix(name, "TestFault") && name != "TestFaultsDoc" && name != "TestFault00None" || strings.HasPrefix(name, "TestMountFault")) && !named[name] {
			t.Errorf("docs/faults.md does not name %s", name)
		}
	}
}
