package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBudgets: on two processors all steps are done in time, whatever hangs.
func TestBudgets(t *testing.T) {
	const most = 75 * time.Minute
	all, names := reserve, map[string]bool{}
	for _, s := range steps {
		all += s.budget
		if names[s.name] || s.name == "" || s.covers == "" || s.budget <= grace || (s.tests == nil) == (s.command == nil) {
			t.Errorf("step %q is not whole, or there are two", s.name)
		}
		names[s.name] = true
	}
	if all > most {
		t.Errorf("the budgets and the reserve are %v in all, want at most %v", all, most)
	}
}

// TestVariablesKnown: each variable that a step sets is read by a test of its packages.
func TestVariablesKnown(t *testing.T) {
	for _, s := range steps {
		for _, variable := range s.env {
			name, _, _ := strings.Cut(variable, "=")
			known := !strings.HasPrefix(name, "IMGFS_")
			for _, arg := range s.tests {
				known = known || strings.HasPrefix(arg, "./") && reads(t, filepath.Join("../..", arg), name)
			}
			if !known {
				t.Errorf("step %s: no test of it reads %s", s.name, name)
			}
		}
	}
}

// reads reports whether a test in a directory knows a variable.
func reads(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.Contains(text, []byte(`"`+name+`"`))
	})
}

// sample is a package with one test of each end, in a module of its own.
const sample = `package sample

import (
	"testing"
	"time"
)

func TestGood(t *testing.T)    { t.Log("figure: speed 12 MB/s") }
func TestBad(t *testing.T)     { t.Error("two is not three") }
func TestAbsent(t *testing.T)  { t.Skip("there is no moon") }
func TestHanging(t *testing.T) { t.Log("it waits"); time.Sleep(time.Hour) }
`

// TestRunAll runs steps of all ends, and looks at the table.
func TestRunAll(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module sample\n")
	write("sample_test.go", sample)
	// What is built here does not count for the budgets.
	if out, err := exec.Command("go", "test", "-C", dir, "-run", "^$", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tests := func(name, run string) *step {
		return &step{name: name, covers: "a sample", budget: 2 * time.Minute, tests: []string{"-run", run, "."}}
	}
	shell := func(name, script string, budget time.Duration) *step {
		return &step{name: name, covers: "a sample", budget: budget, command: []string{"sh", "-c", script}}
	}
	t.Chdir(dir)
	for _, c := range []struct {
		step   *step
		failed bool
		want   string // a pattern of the output
	}{
		{tests("good", "Good"), false, `\| good \| a sample \| passed \| speed 12 MB/s \| 0:\d\d \|`},
		{tests("bad", "Good|Bad"), true, `(?s)two is not three.*\| bad \| a sample \| FAILED \| speed.*FAILED bad: TestBad\n`},
		{tests("absent", "Absent"), false, `(?s)\| absent \| a sample \| skipped \|.*skipped in absent: TestAbsent: there is no moon\n`},
		{tests("partly", "Good|Absent"), false, `\| partly \| a sample \| passed, 1 skipped \|`},
		{tests("renamed", "Nothing"), true, `FAILED renamed: no test was run\n`},
		{shell("stuck", "echo it begins; sleep 1000 & wait", time.Second), true, `(?s)it begins.*FAILED stuck: it was not done within 1s`},
		{shell("wrong", "echo figure: a 1; exit 3", time.Minute), true, `(?s)\| wrong \| a sample \| FAILED \| a 1 \|.*FAILED wrong: exit status 3\n`},
		{shell("leaves", "touch $TMPDIR/x; setsid sh -c 'while sleep 0.3; do :; done; : '$TMPDIR/y >/dev/null 2>&1 & sleep 0.2", time.Minute), true, `FAILED leaves: it left process \d+: sh -c`},
	} {
		t.Run(c.step.name, func(t *testing.T) {
			var stdout, log bytes.Buffer
			err := runAll(t.Context(), []*step{c.step}, 0, &stdout, &log)
			if (err != nil) != c.failed {
				t.Errorf("got %v, failed should be %v", err, c.failed)
			}
			if !regexp.MustCompile(c.want).MatchString(stdout.String()) {
				t.Errorf("the output has no %q:\n%s\nlog:\n%s", c.want, &stdout, &log)
			}
		})
	}
	// What one step leaves, and what is in reserve, is for those after it; no more.
	short, long := shell("short", "true", 2*time.Second), shell("long", "sleep 3", time.Second)
	for _, c := range []struct {
		chosen  []*step
		reserve time.Duration
		failed  bool
	}{{[]*step{short, short, long}, 0, false}, {[]*step{long}, 4 * time.Second, false}, {[]*step{long, long}, 3 * time.Second, true}} {
		var stdout bytes.Buffer
		if err := runAll(t.Context(), c.chosen, c.reserve, &stdout, &bytes.Buffer{}); (err != nil) != c.failed {
			t.Errorf("reserve %v: got %v, failed should be %v:\n%s", c.reserve, err, c.failed, &stdout)
		}
	}
	if err := run(t.Context(), []string{"-only", "nothing like it"}, &bytes.Buffer{}); err == nil {
		t.Error("a pattern that nothing matches is fine")
	}
}
