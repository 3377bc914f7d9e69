//go:build linux

package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// servePassed mounts a tree with passthrough.
func servePassed(t *testing.T, tree string, late bool) (*child, string) {
	t.Helper()
	needPassthrough(t)
	return serve(t, who{mode: mode{Passthrough: On, Disk: true, Late: late}}, task{Tree: tree})
}

// state waits for the releases that are under way, and compares what a daemon
// holds.
func (c *child) state(want string) {
	c.t.Helper()
	var got string
	for begun := time.Now(); time.Since(begun) < 10*time.Second; {
		c.send("state")
		if got = c.next(); strings.HasPrefix(got, want) {
			return
		}
	}
	c.t.Errorf("the daemon holds: %s, want %s", got, want)
}

func mustOpen(t *testing.T, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// compareAll reads all of a file, and some of it at random.
func compareAll(t *testing.T, f io.ReaderAt, n fs.Node) {
	t.Helper()
	size := n.Attr().Size
	compareReads(t, "mega", f, n, 0, size+10)
	for range 20 {
		compareReads(t, "mega", f, n, rand.Int64N(size), 5000)
	}
}

// TestPassthroughStates: while a file is open it is read in one way, however
// often it is opened.
func TestPassthroughStates(t *testing.T) {
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	c, dir := servePassed(t, "sample", true)
	mega := filepath.Join(dir, "mega")
	c.state("0 open, 0 passed, 0 registered, 0 files")
	cached := mustOpen(t, mega, os.O_RDONLY)
	compareAll(t, cached, n)
	c.send("appear")
	c.expect("there")
	second := mustOpen(t, mega, os.O_RDONLY)
	c.state("1 open, 0 passed, 0 registered, 0 files")
	compareAll(t, second, n)
	cached.Close()
	third := mustOpen(t, mega, os.O_RDONLY)
	c.state("1 open, 0 passed, 0 registered, 0 files")
	compareAll(t, third, n)
	second.Close()
	third.Close()
	c.state("0 open, 0 passed, 0 registered, 0 files")

	passed := mustOpen(t, mega, os.O_RDONLY)
	c.state("1 open, 1 passed, 1 registered, 1 files")
	again := mustOpen(t, mega, os.O_RDONLY)
	direct := mustOpen(t, mega, os.O_RDONLY|unix.O_DIRECT)
	for _, f := range []*os.File{passed, again, direct} {
		compareAll(t, f, n)
	}
	c.state("1 open, 1 passed, 1 registered, 1 files")
	passed.Close()
	again.Close()
	compareAll(t, direct, n)
	direct.Close()
	c.state("0 open, 0 passed, 0 registered, 0 files")

	// What is opened to go past the pages is read by the daemon, and so are
	// those who come then.
	direct = mustOpen(t, mega, os.O_RDONLY|unix.O_DIRECT)
	cached = mustOpen(t, mega, os.O_RDONLY)
	c.state("1 open, 0 passed, 0 registered, 0 files")
	compareAll(t, direct, n)
	compareAll(t, cached, n)
	direct.Close()
	cached.Close()
	c.state("0 open, 0 passed, 0 registered, 0 files")

	small := mustOpen(t, filepath.Join(dir, "setuid"), os.O_RDONLY)
	compareReads(t, "setuid", small, mustLookup(t, treeNamed(t, "sample"), "setuid"), 0, 9000)
	c.state("0 open, 0 passed, 0 registered, 0 files")
}

// TestPassthroughMmap: what is mapped stays, also when the file is closed and
// opened in the other way.
func TestPassthroughMmap(t *testing.T) {
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	want, err := io.ReadAll(contentOf(n))
	if err != nil {
		t.Fatal(err)
	}
	c, dir := servePassed(t, "sample", true)
	mega := filepath.Join(dir, "mega")
	var maps [][]byte
	for _, flags := range []int{os.O_RDONLY, os.O_RDONLY, os.O_RDONLY | unix.O_DIRECT} {
		f := mustOpen(t, mega, flags)
		for _, share := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
			m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_EXEC, share)
			if errors.Is(err, unix.EPERM) { // where the temporary directory is noexec
				m, err = unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, share)
			}
			if err != nil {
				t.Fatalf("mapping after open with %#x: %v", flags, err)
			}
			defer unix.Munmap(m)
			maps = append(maps, m)
			if !bytes.Equal(m, want) {
				t.Errorf("mapped after open with %#x: other bytes", flags)
			}
		}
		f.Close()
		c.send("appear")
		c.expect("there")
	}
	for i, m := range maps {
		if !bytes.Equal(m, want) {
			t.Errorf("mapping %d has other bytes at the end", i)
		}
	}
}

// TestPassthroughCopies: the kernel's ways to move a file without reading it.
func TestPassthroughCopies(t *testing.T) {
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	want, err := io.ReadAll(contentOf(n))
	if err != nil {
		t.Fatal(err)
	}
	_, dir := servePassed(t, "sample", false)
	for _, c := range []struct {
		name string
		copy func(to, from int) (int, error)
	}{
		{"sendfile", func(to, from int) (int, error) { return unix.Sendfile(to, from, nil, 1<<20) }},
		{"copy_file_range", func(to, from int) (int, error) { return unix.CopyFileRange(from, nil, to, nil, 1<<20, 0) }},
		{"splice", func(to, from int) (int, error) { return spliceThrough(to, from) }},
	} {
		from := mustOpen(t, filepath.Join(dir, "mega"), os.O_RDONLY)
		to := filepath.Join(t.TempDir(), "to")
		out, err := os.Create(to)
		if err != nil {
			t.Fatal(err)
		}
		for moved := 1; moved > 0 && err == nil; {
			moved, err = c.copy(int(out.Fd()), int(from.Fd()))
		}
		out.Close()
		from.Close()
		if got, _ := os.ReadFile(to); err != nil && !errors.Is(err, unix.EXDEV) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %d bytes of %d, or others", c.name, err, len(got), len(want))
		}
	}
}

// spliceThrough moves some of a file through a pipe.
func spliceThrough(to, from int) (int, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	n, err := unix.Splice(from, nil, pipe[1], nil, 64<<10, 0)
	for left := n; left > 0 && err == nil; {
		var some int64
		some, err = unix.Splice(pipe[0], nil, to, nil, int(left), 0)
		left -= some
	}
	return int(n), err
}

// TestPassthroughExec runs a program from the tree, and the daemon is told that
// it is one.
func TestPassthroughExec(t *testing.T) {
	c, dir := servePassed(t, "program", false)
	for range 2 {
		out, err := exec.Command(filepath.Join(dir, "program"), "-c", "echo works").CombinedOutput()
		if string(out) != "works\n" || err != nil {
			t.Errorf("the program says %q, %v", out, err)
		}
	}
	c.state("0 open, 0 passed, 0 registered, 0 files, 2 execs")
}

// TestPassthroughAfterUnmount: a file that is open stays readable when its mount
// is taken out of the directory tree, and is given back when it is closed.
func TestPassthroughAfterUnmount(t *testing.T) {
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	c, dir := servePassed(t, "sample", false)
	f := mustOpen(t, filepath.Join(dir, "mega"), os.O_RDONLY)
	if err := UnmountLazy(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	c.state("1 open, 1 passed, 1 registered, 1 files")
	compareAll(t, f, n)
	f.Close()
	c.ended()
}

// TestPassthroughAborted: when the connection is lost, nothing is kept open.
func TestPassthroughAborted(t *testing.T) {
	c, dir := servePassed(t, "sample", false)
	abort := aborter(t, dir)
	mustOpen(t, filepath.Join(dir, "mega"), os.O_RDONLY)
	c.state("1 open, 1 passed, 1 registered, 1 files")
	c.send("tell")
	c.expect("told")
	abort()
	c.expect("0 open, 0 passed, 0 registered, 0 files, 0 execs")
	c.ended()
}

const (
	openers    = 8
	openRounds = 1000 / openers
	manyFiles  = 50
)

// openRole opens files at random, reads some of each and closes it.
func openRole(k task) error {
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	buf := make([]byte, 4096)
	for range openRounds {
		i := random.IntN(manyFiles)
		f, err := os.Open(filepath.Join(k.Dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		off := random.Int64N(manySize - int64(len(buf)))
		if _, err := f.ReadAt(buf, off); err != nil {
			return err
		}
		for j, b := range buf {
			if want := patternAt(int64(i) + off + int64(j)); b != want {
				return fmt.Errorf("%s: byte %d is %d, want %d", f.Name(), off+int64(j), b, want)
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// TestPassthroughLeaksNothing opens files in many processes at a time.
func TestPassthroughLeaksNothing(t *testing.T) {
	testenv.Slow(t)
	c, dir := servePassed(t, "many", false)
	fds := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := fds()
	var children []*child
	for range openers {
		children = append(children, start(t, 0, task{Role: "open", Dir: dir}))
	}
	for _, o := range children {
		o.expect("")
		if err := o.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	c.state("0 open, 0 passed, 0 registered, 0 files")
	if after := fds(); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}
