//go:build linux

package fusefs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/uring"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// enableURing lets connections use io_uring during a test. Tests of other
// packages may do the same at the same time, or mount something meanwhile:
// each that needs it holds a shared lock, and the last to go restores the
// parameter.
func enableURing(t testing.TB) {
	t.Helper()
	needFUSE(t)
	if err := uring.Probe(); err != nil {
		t.Skip(err)
	}
	parameter, err := os.Open(uringParameter)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the kernel has no FUSE over io_uring")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parameter.Close() })
	fd := int(parameter.Fd())
	if err := unix.Flock(fd, unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(uringParameter)
	if err != nil {
		t.Fatal(err)
	}
	if was[0] == 'Y' {
		return
	}
	if err := os.WriteFile(uringParameter, []byte("Y"), 0); err != nil {
		t.Skipf("enabling FUSE over io_uring: %v", err)
	}
	t.Cleanup(func() {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.WriteFile(uringParameter, was, 0)
		}
	})
}

// uringPathOf asks a daemon whether it takes requests through io_uring.
func uringPathOf(t *testing.T, c *child) FastPath {
	t.Helper()
	c.send("paths")
	var paths []FastPath
	if err := json.Unmarshal([]byte(c.next()), &paths); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(paths, func(p FastPath) bool { return p.Name == uringPath })
	if i < 0 {
		t.Fatalf("%+v, want %s among them", paths, uringPath)
	}
	return paths[i]
}

func uringMounter(t *testing.T, choice Choice) who {
	t.Helper()
	w := mounters(t)[0]
	w.IOUring = choice
	return w
}

// TestOverIOURing runs tests of this package with daemons that take requests
// through io_uring.
func TestOverIOURing(t *testing.T) {
	testenv.Slow(t)
	enableURing(t)
	runURingChild(t, "Test(MountEqualsTree|Readdir|Reads|ReadersAtTheSameTime|Mmap|Errors|Statfs|Unmount|UnmountBusy|AbortedConnection"+
		"|FailedReadIsEIOAndTheNextWorks|InterruptedRead|SignalsWait|KilledAfterSignals|AbortAfterSignals|KilledReader|UnmountEndsBlockedReads|URingIsUsed|EngineXattrs)")
}

// uringChildEnv is set for tests that another test runs.
const uringChildEnv = "IMGFS_FUSEFS_URING"

func needURingChild(t *testing.T) {
	t.Helper()
	if os.Getenv(uringChildEnv) == "" {
		t.Skip("another test runs this one")
	}
}

// Without being asked to, each kind of mount uses io_uring where it can.
func TestURingIsUsed(t *testing.T) {
	needURingChild(t)
	forEachMounter(t, func(t *testing.T, w who) {
		c, _ := serve(t, w, task{Tree: "plain"})
		if p := uringPathOf(t, c); !p.Active {
			t.Errorf("%+v, want it active", p)
		}
	})
}

func TestURingChoice(t *testing.T) {
	enableURing(t)
	t.Run("off", func(t *testing.T) {
		c, _ := serve(t, uringMounter(t, Off), task{Tree: "plain"})
		if p := uringPathOf(t, c); p.Active || p.Why != errTurnedOff.Error() {
			t.Errorf("%+v, want it turned off", p)
		}
	})
	t.Run("on, but not possible", func(t *testing.T) {
		w := uringMounter(t, On)
		w.Disabled = fuse.CAP_OVER_IO_URING
		dir := mountDir(t, w.uid)
		c := start(t, w.uid, task{Role: "serve", Dir: dir, Tree: "plain", UseHelper: w.useHelper, mode: w.mode})
		defer c.stop(dir)
		if got := c.next(); !strings.Contains(got, noURing(errTurnedOff).Error()) || isMounted(t, dir) {
			t.Errorf("the daemon says %q, want %v", got, noURing(errTurnedOff))
		}
	})
}

// What is said of machines that do not let it be used.
func TestWhyNoURing(t *testing.T) {
	for _, c := range []struct {
		text string
		err  error
		want string
	}{
		{"Y\n", nil, ""},
		{"N\n", nil, "enable_uring of fuse is N"},
		{"", os.ErrNotExist, "has no FUSE over io_uring"},
		{"", os.ErrPermission, os.ErrPermission.Error()},
	} {
		if got := parameterError([]byte(c.text), c.err); (got == nil) != (c.want == "") || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%q, %v: %v, want %q", c.text, c.err, got, c.want)
		}
	}
	for _, c := range []struct {
		err  error
		text string
		want string
	}{
		{uring.ErrForbidden, "2\n", "io_uring is disabled (kernel.io_uring_disabled is 2)"},
		{uring.ErrForbidden, "0\n", uring.ErrForbidden.Error()},
		{uring.ErrUnsupported, "2\n", uring.ErrUnsupported.Error()},
	} {
		if got := forbidden(c.err, c.text); got.Error() != c.want {
			t.Errorf("%v, %q: %v, want %s", c.err, c.text, got, c.want)
		}
	}
}

// Reads that wait for the network hold up neither each other nor anything
// else, from whatever processor.
func TestURingBlockedReads(t *testing.T) {
	enableURing(t)
	const readers = 32
	c, dir := serve(t, uringMounter(t, On), task{Tree: "faulty"})
	want := make([]byte, 4096)
	for i := range want {
		want[i] = patternAt(slowOff + int64(i))
	}
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			dd := exec.CommandContext(t.Context(), "dd", "if="+filepath.Join(dir, "slow"), "iflag=direct", "bs=4096", "count=1", "status=none")
			if got, err := dd.Output(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("a blocked read: %d bytes, %v", len(got), err)
			}
		})
	}
	t.Cleanup(all.Wait)
	for range readers {
		c.expect("blocked")
	}
	for name := range treeNamed(t, "sample").Root().Children() {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.ReadFile(filepath.Join(dir, "etc/passwd")); err != nil {
		t.Errorf("reading another file: %v", err)
	}
	c.send("release")
	all.Wait()
}

// Requests that wait when the connection is aborted end, and so does the
// server.
func TestURingAbortWithBlockedReads(t *testing.T) {
	enableURing(t)
	needRoot(t)
	c, dir := serve(t, uringMounter(t, On), task{Tree: "faulty"})
	abort := aborter(t, dir)
	var reader sync.WaitGroup
	reader.Go(func() {
		if _, err := os.ReadFile(filepath.Join(dir, "slow")); err == nil {
			t.Error("a read of an aborted connection was answered")
		}
	})
	c.expect("blocked")
	abort()
	reader.Wait()
	for got := c.next(); got != "ended"; got = c.next() {
		if got != "interrupted" && got != "blocked" {
			t.Fatalf("the daemon says %q", got)
		}
	}
	if isMounted(t, dir) {
		t.Error("a dead mount is left")
	}
}

// A server that is killed leaves nothing that waits.
func TestURingKilled(t *testing.T) {
	enableURing(t)
	c, dir := serve(t, uringMounter(t, On), task{Tree: "faulty"})
	var reader sync.WaitGroup
	reader.Go(func() {
		if _, err := os.ReadFile(filepath.Join(dir, "slow")); err == nil {
			t.Error("a read was answered by nobody")
		}
	})
	c.expect("blocked")
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
	reader.Wait()
	// The kernel may tell so while it cleans up, and then ENOTCONN for ever.
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("statfs: %v, want %v", err, unix.ENOTCONN)
	}
	if err := Unmount(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// If the kernel refuses the queues, requests come through the device.
func TestURingFallsBack(t *testing.T) {
	enableURing(t)
	runURingChild(t, "TestURingFallsBackChild")
}

func TestURingFallsBackChild(t *testing.T) {
	needURingChild(t)
	uringPayload = 8192 // too little for the kernel
	tree := treeNamed(t, "sample")
	dir := mountDir(t, os.Getuid())
	s, err := Mount(t.Context(), dir, tree, &Options{IOUring: On, Logf: t.Logf})
	if err == nil {
		_ = s.Unmount(context.Background())
	}
	if err == nil || !strings.Contains(err.Error(), noURing(errors.New("")).Error()) || isMounted(t, dir) {
		t.Errorf("%v, want no mount", err)
	}
	if s, err = Mount(t.Context(), dir, tree, &Options{Logf: t.Logf}); err != nil {
		t.Fatal(err)
	}
	defer s.Wait()
	defer func() { _ = s.Unmount(context.Background()) }()
	if p := s.conn.(fastConn).fastPaths()[0]; p.Active || p.Why == "" {
		t.Errorf("%+v, want it inactive with a reason", p)
	}
	// This process must not use its own mount.
	out, err := exec.Command("sh", "-c", `find "$0" | wc -l; cksum <"$0/mega"`, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	if n, _ := strconv.Atoi(strings.TrimSpace(lines[0])); n < tree.Len()/2 {
		t.Errorf("find found %d names in a tree of %d inodes", n, tree.Len())
	}
	if !strings.Contains(lines[1], fmt.Sprint(mustLookup(t, tree, "mega").Attr().Size)) {
		t.Errorf("cksum says %q", lines[1])
	}
}

func runURingChild(t *testing.T, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), uringChildEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// Mounts leave nothing behind in the process.
func TestURingLeaksNothing(t *testing.T) {
	testenv.Slow(t)
	enableURing(t)
	runURingChild(t, "TestURingLeaksNothingChild")
}

func TestURingLeaksNothingChild(t *testing.T) {
	needURingChild(t)
	const first, mounts = 20, 200
	tree := treeNamed(t, "plain")
	dir := mountDir(t, os.Getuid())
	var before, after resources
	for i := range mounts {
		if i == first {
			before = resourcesNow(t)
		}
		s, err := Mount(t.Context(), dir, tree, &Options{IOUring: On, Logf: t.Logf})
		if err != nil {
			t.Fatalf("mount %d: %v", i, err)
		}
		if i%20 == 0 {
			if out, err := exec.Command("find", dir, "-printf", "").CombinedOutput(); err != nil {
				t.Errorf("find: %v: %s", err, out)
			}
		}
		if err := s.Unmount(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.Wait()
	}
	// The runtime may have a thread, and memory for that, more or less.
	leaks := func() bool {
		after = resourcesNow(t)
		return after.fds > before.fds || after.threads > before.threads+3 || after.mappings > before.mappings+10
	}
	// What a mount has goes soon after it.
	for end := time.Now().Add(30 * time.Second); leaks() && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if leaks() {
		t.Errorf("%+v after %d mounts, %+v after %d", after, mounts, before, first)
	}
}

// resources are what a process can leak.
type resources struct{ fds, threads, mappings int }

func resourcesNow(t *testing.T) resources {
	t.Helper()
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	r := resources{fds: count("/proc/self/fd"), threads: count("/proc/self/task")}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		r.mappings++
	}
	return r
}
