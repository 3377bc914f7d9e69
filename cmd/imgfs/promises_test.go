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

// checkPromises checks that each promise of a page of docs names the tests that hold it, that
// they exist, and that there are as many promises as there are to be at least.
func checkPromises(t *testing.T, page string, least int) {
	t.Helper()
	exists := testsOfModule(t)
	doc := readDoc(t, page)
	name := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*`)
	for _, found := range name.FindAllString(doc, -1) {
		if !exists[found] {
			t.Errorf("%s names the test %s, which does not exist", page, found)
		}
	}
	_, promises, begins := strings.Cut(doc, "\n## What is promised\n")
	promises, after, ends := strings.Cut(promises, "\n## What is not promised\n")
	if !begins || !ends || !strings.Contains(after, "\n- ") {
		t.Fatalf("%s has not the two lists", page)
	}
	count := 0
	for _, item := range strings.Split(promises, "\n- ")[1:] {
		count++
		if !strings.HasPrefix(item, "**") || !name.MatchString(item) {
			t.Errorf("%s names no test for %q", page, item)
		}
	}
	if count < least {
		t.Errorf("%s has %d promises", page, count)
	}
}

// TestSecurityDoc looks at docs/security.md.
func TestSecurityDoc(t *testing.T) { checkPromises(t, "docs/security.md", 10) }

// TestReliabilityDoc looks at docs/reliability.md.
func TestReliabilityDoc(t *testing.T) { checkPromises(t, "docs/reliability.md", 20) }
