// Package runnertest is for tests of the bench's groups: it gives them a small
// runner with a freshly built imgfs, and finds leftovers.
package runnertest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// Main is for TestMain: it makes the test binary the reader that a group starts,
// or runs the tests.
func Main(run func() int) int {
	if len(os.Args) > 1 && os.Args[1] == runner.ReadCommand {
		// os.Exit waits for a second in a test with -race.
		syscall.Exit(runner.RunRead(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	return run()
}

// Needs skips the test where a program is missing, or fails it where all must
// be there.
func Needs(t *testing.T, programs ...string) {
	t.Helper()
	skip(t, runner.Lacking(programs...))
}

func skip(t *testing.T, why string) {
	t.Helper()
	switch {
	case why == "":
	case os.Getenv("CI") == "true":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// New returns a runner that measures everything once, with a small image, in a
// temporary directory of the test.
func New(t *testing.T, ctx context.Context) *runner.Runner {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long")
	}
	Needs(t, "go", "skopeo", "find", "tar")
	_, missing := runner.LookRegistry()
	skip(t, missing)
	if os.Geteuid() != 0 {
		Needs(t, "fusermount3")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
		f.Close()
	} else {
		skip(t, err.Error())
	}
	t.Setenv("TMPDIR", t.TempDir())
	program := filepath.Join(t.TempDir(), "imgfs")
	if out, err := exec.Command("go", "build", "-o", program, "../../../../cmd/imgfs").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return runner.New(ctx, runner.Settings{Runs: 1, Imgfs: program, Logf: t.Logf, System: labimage.System{Small: 500, Library: 100 << 10, Big: 3_000_000}})
}

// Measure runs a group, logs its report and looks for leftovers.
func Measure(t *testing.T, r *runner.Runner, g runner.Group) {
	t.Helper()
	if err := r.Measure(g); err != nil {
		t.Fatal(err)
	}
	if left := Left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	var s strings.Builder
	if err := (&figures.Report{Groups: []*figures.Group{r.Group}}).WriteMarkdown(&s); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &s)
	for _, section := range g.Sections {
		if r.Only == "" && !strings.Contains(s.String(), "\n### "+section.Title+"\n") {
			t.Errorf("the report has no %q", section.Title)
		}
	}
}

// Interrupt runs a group until something is mounted, interrupts it and looks for
// leftovers.
func Interrupt(t *testing.T, group func(r *runner.Runner) runner.Group) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := New(t, ctx)
	r.Logf = func(string, ...any) {}
	g, done := group(r), make(chan error, 1)
	go func() { done <- r.Measure(g) }()
	deadline := time.After(time.Minute)
	for len(mounted(t)) == 0 {
		select {
		case err := <-done:
			t.Fatalf("it ended before it was interrupted: %v", err)
		case <-deadline:
			t.Fatal("nothing is mounted")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if left := Left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func mounted(t *testing.T) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return runner.MountsBelow(string(table), os.Getenv("TMPDIR"))
}

// Left returns the leftovers of a group in the temporary directory: mounts,
// processes, loop devices and files.
func Left(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("TMPDIR")
	left := append(mounted(t), glob(t, filepath.Join(dir, "*"))...)
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/sys/block/loop*/loop/backing_file"} {
		for _, name := range glob(t, pattern) {
			if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), dir+"/") {
				left = append(left, name+": "+strings.ReplaceAll(string(text), "\x00", " "))
			}
		}
	}
	return left
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
