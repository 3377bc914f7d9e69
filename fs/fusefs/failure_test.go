//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestStatus(t *testing.T) {
	tree := treeNamed(t, "sample")
	n := mustLookup(t, tree, "etc/deep/er")
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want fuse.Status
		log  string
	}{
		{"success", t.Context(), nil, fuse.OK, ""},
		{"interrupted", dead, fmt.Errorf("chunk: %w", context.Canceled), fuse.EINTR, ""},
		{"interrupted, another error", dead, errFaulty, fuse.EINTR, ""},
		{"not found", t.Context(), fmt.Errorf("chunk: %w", iofs.ErrNotExist), fuse.ENOENT, ""},
		{"failure", t.Context(), errFaulty, fuse.EIO, `read "/etc/deep/er": ` + errFaulty.Error()},
		{"somebody else was cancelled", t.Context(), context.Canceled, fuse.EIO, `read "/etc/deep/er": context canceled`},
		{"a deadline of its own", t.Context(), context.DeadlineExceeded, fuse.EIO, `read "/etc/deep/er": context deadline exceeded`},
		{"denied", t.Context(), fmt.Errorf("chunk: %w", iofs.ErrPermission), fuse.EACCES, `read "/etc/deep/er": chunk: permission denied`},
		{"an errno of the disk", t.Context(), unix.ENOSPC, fuse.EIO, `read "/etc/deep/er": no space left on device`},
	} {
		var lines []string
		l := failureLog{tree: tree, logf: func(f string, a ...any) { lines = append(lines, fmt.Sprintf(f, a...)) }}
		// The second time is not logged again.
		for range 2 {
			if got := l.status(c.ctx, "read", n, c.err); got != c.want {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		if got := strings.Join(lines, "\n"); got != c.log {
			t.Errorf("%s: the log is %q, want %q", c.name, got, c.log)
		}
	}
}

func TestFailuresAreLoggedAgainAfterAWhile(t *testing.T) {
	var l failureLog
	now := time.Unix(noon, 0)
	for _, c := range []struct {
		after time.Duration
		f     failure
		want  bool
	}{
		{0, failure{1, "x"}, true},
		{repeat / 2, failure{1, "x"}, false},
		{repeat / 2, failure{2, "x"}, true},
		{repeat / 2, failure{1, "y"}, true},
		{repeat, failure{1, "x"}, true},
	} {
		if got := l.first(c.f, now.Add(c.after)); got != c.want {
			t.Errorf("%+v after %v is the first: %v, want %v", c.f, c.after, got, c.want)
		}
	}
	for i := range 5000 {
		l.first(failure{uint64(i), "z"}, now)
	}
	if len(l.seen) > 1000 {
		t.Errorf("%d failures are remembered, want at most 1000", len(l.seen))
	}
}

func TestPathOf(t *testing.T) {
	tree := treeNamed(t, "sample")
	for _, name := range []string{"/", "/etc", "/etc/deep/er", "/closed/inside", "/srv/index"} {
		if got := pathOf(tree, mustLookup(t, tree, name).Ino()); got != name {
			t.Errorf("pathOf(the inode of %s) = %s", name, got)
		}
	}
	if got := pathOf(tree, 1<<40); got != "" {
		t.Errorf("pathOf(no inode) = %s", got)
	}
}

func TestFailedReadIsEIOAndTheNextWorks(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testFailedReadIsEIOAndTheNextWorks)
}

func testFailedReadIsEIOAndTheNextWorks(t *testing.T, w who) {
	c, dir := serve(t, w, task{Tree: "faulty"})
	path := filepath.Join(dir, "srv/bad")
	if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
		t.Errorf("reading: %v, want %v", err, unix.EIO)
	}
	logs := c.logged()
	if len(logs) != 1 || !strings.Contains(logs[0], `"/srv/bad"`) || !strings.Contains(logs[0], errFaulty.Error()) {
		t.Errorf("the log is %q, want one line with path and cause", logs)
	}
	if _, err := os.ReadFile(filepath.Join(dir, "etc/passwd")); err != nil {
		t.Errorf("reading another file: %v", err)
	}
	c.send("mend")
	c.expect("mended")
	if b, err := os.ReadFile(path); len(b) != badSize || b[badSize-1] != patternAt(badOff+badSize-1) {
		t.Errorf("reading again: %d bytes, %v, want %d", len(b), err, badSize)
	}
	if logs := c.logged(); len(logs) != 1 {
		t.Errorf("the log is %q, want no new line", logs)
	}
}

// readRole reads a file past the page cache, so that the request is the
// reader's own, and tells its thread and the result. O_DIRECT needs no
// alignment here.
func readRole(k task) error {
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT)
	runtime.LockOSThread()
	say("thread %d", unix.Gettid())
	fd, err := unix.Open(k.Dir, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	n, err := unix.Pread(fd, make([]byte, 4096), 0)
	if err != nil {
		return err
	}
	say("%d bytes", n)
	return nil
}

func TestInterruptedRead(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testInterruptedRead)
}

func testInterruptedRead(t *testing.T, w who) {
	c, dir := serve(t, w, task{Tree: "faulty"})
	reader := start(t, w.uid, task{Role: "read", Dir: filepath.Join(dir, "slow")})
	t.Cleanup(func() { _ = reader.cmd.Process.Kill() })
	var thread int
	if _, err := fmt.Sscanf(reader.next(), "thread %d", &thread); err != nil {
		t.Fatal(err)
	}
	c.expect("blocked")
	if err := unix.Tgkill(reader.cmd.Process.Pid, thread, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	c.expect("interrupted")
	reader.expect("error: interrupted system call")
	_ = reader.cmd.Wait()
	if logs := c.logged(); len(logs) != 0 {
		t.Errorf("the log is %q, want nothing", logs)
	}
}

func TestKilledReader(t *testing.T) { forEachMode(t, testKilledReader) }

func testKilledReader(t *testing.T, w who) {
	c, dir := serve(t, w, task{Tree: "faulty"})
	cat := exec.Command("cat", filepath.Join(dir, "slow"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("blocked")
	if err := cat.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cat.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("cat ended with %v, want the signal", err)
	}
	// The kernel's readahead would wait on, for nobody. It ends with the process.
	c.expect("interrupted")
	c.send("release")
	if b, err := os.ReadFile(filepath.Join(dir, "slow")); len(b) != 4096 || err != nil {
		t.Errorf("reading again: %d bytes, %v, want 4096", len(b), err)
	}
}

func TestUnmountEndsBlockedReads(t *testing.T) { forEachMode(t, testUnmountEndsBlockedReads) }

func testUnmountEndsBlockedReads(t *testing.T, w who) {
	c, dir := serve(t, w, task{Tree: "faulty"})
	cat := exec.Command("cat", filepath.Join(dir, "slow"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("blocked")
	// Nobody asks for its end before.
	if err := errors.Join(cat.Process.Signal(unix.SIGTERM), Unmount(t.Context(), dir)); err != nil {
		// The process may not be gone yet.
		_ = cat.Wait()
		if err := Unmount(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	c.expect("interrupted")
	c.ended()
	_ = cat.Wait()
	if len(c.logs) != 0 {
		t.Errorf("the log is %q, want nothing", c.logs)
	}
}

// Thousands of files that cannot be read make some lines, not thousands.
func TestFailuresOfManyFiles(t *testing.T) {
	var lines []string
	tree := treeNamed(t, "sample")
	l := failureLog{tree: tree, logf: func(f string, a ...any) { lines = append(lines, fmt.Sprintf(f, a...)) }}
	n := mustLookup(t, tree, "/etc/deep/er")
	now := time.Unix(noon, 0)
	for range 4000 {
		l.log("read", n, errFaulty, now)
	}
	if len(lines) != manyFailures {
		t.Errorf("%d lines of 4000 failures at once, want %d", len(lines), manyFailures)
	}
	lines = nil
	for i := range 100 {
		l.log("read", n, errFaulty, now.Add(time.Duration(i+1)*repeat/10))
	}
	want := fmt.Sprintf("read %q: %v (%d failures before it are not in the log)", "/etc/deep/er", errFaulty, 4000-manyFailures+9)
	if len(lines) != 10 || lines[0] != want {
		t.Errorf("got %d lines of ten seconds, the first %q, want 10 and %q", len(lines), lines[0], want)
	}
	now = now.Add(time.Hour)
	lines = nil
	for range 2 * manyFailures {
		l.log("read", n, errFaulty, now)
	}
	if len(lines) != manyFailures {
		t.Errorf("%d lines after an hour, want %d", len(lines), manyFailures)
	}
}
