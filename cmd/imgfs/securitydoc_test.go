package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// testsOfModule returns the names of all tests and fuzz targets.
func testsOfModule(t *testing.T) map[string]bool {
	t.Helper()
	out, err := exec.Command("grep", "-rhoE", "--include=*_test.go", `^func (Test|Fuzz)\w+`, "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range bytes.Lines(out) {
		names[strings.TrimSpace(strings.TrimPrefix(string(line), "func "))] = true
	}
	return names
}

// TestSecurityDoc: each promise of docs/security.md names the tests that hold
// it, and they exist.
func TestSecurityDoc(t *testing.T) {
	exists := testsOfModule(t)
	doc := readDoc(t, "docs/security.md")
	name := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*`)
	for _, found := range name.FindAllString(doc, -1) {
		if !exists[found] {
			t.Errorf("docs/security.md names the test %s, which does not exist", found)
		}
	}
	promises, after, ok := strings.Cut(doc, "\n## What is not promised\n")
	_, promises, begins := strings.Cut(promises, "\n## What is promised\n")
	if !ok || !begins || !strings.Contains(after, "\n- ") {
		t.Fatal("docs/security.md has not the two lists")
	}
	count := 0
	for item := range strings.SplitSeq(promises, "\n- ") {
		if strings.HasPrefix(strings.TrimSpace(item), "**") {
			count++
			if !name.MatchString(item) {
				t.Errorf("docs/security.md names no test for %q", item)
			}
		}
	}
	if count < 10 {
		t.Errorf("docs/security.md has %d promises", count)
	}
}
