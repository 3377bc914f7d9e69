package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A result is what became of a step.
type result struct {
	step    *step
	took    time.Duration
	failed  bool
	why     []string // what failed: names of tests, or what happened to the step
	passed  int      // tests
	skipped []skip
	figures []string
	printed []byte // what failed tests printed
}

// A skip is a test that was not run.
type skip struct{ test, reason string }

// fail notes a failure, which may have a name.
func (r *result) fail(format string, args ...any) {
	r.failed = true
	if why := fmt.Sprintf(format, args...); why != "" {
		r.why = append(r.why, why)
	}
}

// keep keeps output for stdout.
func (r *result) keep(output []byte) {
	if room := printedMost - len(r.printed); room > 0 {
		r.printed = append(r.printed, output[:min(room, len(output))]...)
	}
}

// figureLine is how tests and programs give a figure; a test's log has the file and the
// line of it before that.
var figureLine = regexp.MustCompile(`^(?:\s*\S+\.go:\d+: |\s*)figure: (.+)$`)

// figure notes the figure of a line, if it is one.
func (r *result) figure(line string) {
	if m := figureLine.FindStringSubmatch(line); m != nil {
		r.figures = append(r.figures, strings.TrimSpace(m[1]))
	}
}

// verdict is the result in a word or two.
func (r *result) verdict() string {
	switch {
	case r.failed:
		return "FAILED"
	case r.passed == 0 && len(r.skipped) > 0:
		return "skipped"
	case len(r.skipped) > 0:
		return fmt.Sprintf("passed, %d skipped", len(r.skipped))
	}
	return "passed"
}

// An event is a line of go test -json.
type event struct{ Action, Package, Test, Output string }

// parseEvent reads one, if it is one.
func parseEvent(line []byte) (e event, ok bool) {
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Action != ""
}

// writeTable prints the table, and then the names of what failed and was skipped.
func writeTable(w io.Writer, results []*result, took time.Duration) {
	var table strings.Builder
	figures.WriteHead(&table, "check", "covers", "result", "figures", "min:s")
	for _, r := range results {
		figures.WriteRow(&table, r.step.name, r.step.covers, r.verdict(), strings.Join(r.figures, "; "), minutes(r.took))
	}
	figures.WriteRow(&table, "all", "", counts(results), "", minutes(took))
	fmt.Fprintf(w, "\n%s\n", &table)
	for _, r := range results {
		if r.failed {
			fmt.Fprintf(w, "FAILED %s: %s\n", r.step.name, strings.Join(r.why, ", "))
		}
	}
	for _, r := range results {
		for _, s := range r.skipped {
			fmt.Fprintf(w, "skipped in %s: %s: %s\n", r.step.name, s.test, s.reason)
		}
	}
}

// counts says how many steps passed, failed and were skipped.
func counts(results []*result) string {
	n := map[string]int{}
	for _, r := range results {
		word, _, _ := strings.Cut(r.verdict(), ",")
		n[word]++
	}
	var parts []string
	for _, word := range []string{"passed", "FAILED", "skipped"} {
		if n[word] > 0 {
			parts = append(parts, fmt.Sprint(n[word], " ", word))
		}
	}
	return strings.Join(parts, ", ")
}

// minutes writes a time as 3:07.
func minutes(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// machine says when and where the table was made.
func machine(begun time.Time, load string) string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d processors, %s/%s, kernel %s, %s, load %s before and %s after", begun.UTC().Format("2006-01-02 15:04 UTC"),
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(kernel)), runtime.Version(), load, loadAverage())
}

// loadAverage is that of the last minute, "?" where it is not known.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	if first, _, ok := strings.Cut(string(text), " "); ok {
		return first
	}
	return "?"
}
