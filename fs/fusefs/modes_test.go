//go:build linux

package fusefs

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/imgfs/imgfs/fs"
)

// A mode is a choice of fast paths. Its fields travel to the daemon in a task.
type mode struct {
	KeepOpens   bool
	Disabled    uint64 // capabilities that the kernel is taken not to have
	Passthrough Choice
	IOUring     Choice
	Disk, Late  bool // whether there are files on disk to pass through; or only when the daemon is told
}

// opensAreFree reports whether the kernel does not ask about opens.
func (m mode) opensAreFree() bool {
	return !m.KeepOpens && m.Passthrough != On && m.Disabled&fuse.CAP_NO_OPEN_SUPPORT == 0
}

const (
	// since54 are capabilities that came after Linux 5.4.
	since54 = fuse.CAP_PASSTHROUGH | fuse.CAP_OVER_IO_URING
	// since418 are those that came after Linux 3.8, the first with which
	// this is worth trying.
	since418 = since54 | fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_READDIRPLUS | fuse.CAP_CACHE_SYMLINKS |
		fuse.CAP_MAX_PAGES | fuse.CAP_EXPLICIT_INVAL_DATA | fuse.CAP_PARALLEL_DIROPS
)

// forEachMode runs a test with each fast path used and not.
func forEachMode(t *testing.T, test func(t *testing.T, w who)) {
	w := mounters(t)[0]
	for _, c := range []struct {
		name string
		mode mode
	}{
		{"default", mode{}},
		{"with opens", mode{KeepOpens: true}},
		{"passthrough", mode{Passthrough: On, Disk: true}},
		{"Linux 5.4", mode{Disabled: since54, Disk: true}},
		{"oldest Linux", mode{Disabled: since418}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mode.Passthrough == On {
				needPassthrough(t)
			}
			w := w
			w.mode = c.mode
			test(t, w)
		})
	}
}

// passthroughWorks is whether it has been tried.
var passthroughWorks atomic.Bool

// needPassthrough skips a test where the kernel has none for this process.
func needPassthrough(t testing.TB) {
	t.Helper()
	needFUSE(t)
	if !isPrivileged() {
		t.Skipf("no passthrough: %v", errPrivilege)
	}
	if passthroughWorks.Load() {
		return
	}
	c := start(t, 0, task{Role: "serve", Dir: mountDir(t, 0), Tree: "plain", mode: mode{Passthrough: On, Disk: true}})
	defer c.stop("")
	switch line := c.next(); {
	case strings.Contains(line, "the kernel ("+kernelRelease()+") has no"):
		t.Skip(line)
	case line != "ready":
		t.Fatal(line)
	}
	passthroughWorks.Store(true)
}

// diskFiles are files with the content of those of a tree, made when they are
// first asked for.
type diskFiles struct {
	ready atomic.Bool  // whether there are any yet
	open  atomic.Int64 // how many are in use
	execs atomic.Int64 // how often one was asked for to be executed

	registered atomic.Int64
}

func newDiskFiles(ready bool) *diskFiles {
	d := &diskFiles{}
	d.ready.Store(ready)
	return d
}

// maxDisk is the size of the largest file that diskFiles have.
const maxDisk = 64 << 20

func (d *diskFiles) Backing(n fs.Node, exec bool) (BackingFile, bool) {
	if exec {
		d.execs.Add(1)
	}
	if !d.ready.Load() || n.Attr().Size > maxDisk {
		return nil, false
	}
	f, err := d.BackingProbe()
	if err != nil {
		say("error: %v", err)
		return nil, false
	}
	size := n.Attr().Size
	if _, err := io.Copy(f.(diskFile).File, io.NewSectionReader(readerAt{n}, 0, size)); err != nil {
		_ = f.Close() // a layer that cannot be read
		return nil, false
	}
	return f, true
}

func (d *diskFiles) BackingProbe() (BackingFile, error) {
	f, err := os.CreateTemp("", "imgfs-content")
	if err != nil {
		return nil, err
	}
	d.open.Add(1)
	return diskFile{f, d}, os.Remove(f.Name())
}

type diskFile struct {
	*os.File
	of *diskFiles
}

func (f diskFile) Close() error {
	f.of.open.Add(-1)
	return f.File.Close()
}

// A countingConn counts what is registered.
type countingConn struct {
	conn
	registered *atomic.Int64
}

func (c countingConn) register(fd uintptr) (int32, error) {
	id, err := c.conn.register(fd)
	if err == nil {
		c.registered.Add(1)
	}
	return id, err
}

func (c countingConn) unregister(id int32) error {
	c.registered.Add(-1)
	return c.conn.unregister(id)
}

// countRegistered begins to count what a mount registers.
func countRegistered(s *Server, d *diskFiles) {
	if p := s.raw.pass; p != nil {
		p.mu.Lock()
		p.from = countingConn{p.from, &d.registered}
		p.mu.Unlock()
	}
}

// passState tells what a mount with passthrough holds.
func passState(s *Server, d *diskFiles) string {
	passed, inodes := 0, 0
	if p := s.raw.pass; p != nil {
		p.mu.Lock()
		inodes = len(p.opens)
		for _, f := range p.opens {
			f.decide.Do(func() {})
			if f.id != 0 {
				passed++
			}
		}
		p.mu.Unlock()
	}
	return fmt.Sprintf("%d open, %d passed, %d registered, %d files, %d execs", inodes, passed, d.registered.Load(), d.open.Load(), d.execs.Load())
}

// fastPathsOf asks a daemon which it has.
func fastPathsOf(c *child) (paths []FastPath) {
	c.t.Helper()
	c.send("paths")
	if err := json.Unmarshal([]byte(c.next()), &paths); err != nil {
		c.t.Fatal(err)
	}
	return paths
}

// TestFastPaths: what is not there is not used, and the reason is told.
func TestFastPaths(t *testing.T) {
	names := []string{"no-open", "no-opendir", "readdirplus", "large-reads", "readahead", "symlink-cache", "passthrough", "io-uring"}
	forEachMode(t, func(t *testing.T, w who) {
		c, _ := serve(t, w, task{Tree: "plain"})
		paths := fastPathsOf(c)
		opendir := !w.KeepOpens && w.Disabled&fuse.CAP_NO_OPENDIR_SUPPORT == 0
		offered := w.Disabled != since418 // as far as this kernel goes
		active := []bool{w.opensAreFree(), opendir, offered, offered, isRoot() && !inNamespace(), offered, w.Passthrough == On}
		for i, p := range paths {
			if i >= len(names) || p.Name != names[i] {
				t.Fatalf("%+v, want them in the order %q", paths, names)
			}
			if i < len(active) && p.Active != active[i] || p.Active != (p.Why == "") {
				t.Errorf("%+v, want %v", p, active)
			}
		}
		if len(paths) != len(names) {
			t.Errorf("%d fast paths, want %d", len(paths), len(names))
		}
	})
}

// TestAutoPassthrough: left to itself, a mount passes through what is large, if
// it can.
func TestAutoPassthrough(t *testing.T) {
	needPassthrough(t)
	const any = "any reason"
	for _, c := range []struct {
		tree string
		mode mode
		want string // why not
	}{
		{"sample", mode{Disk: true}, ""}, // it has a file of 5 GiB
		{"plain", mode{Disk: true}, errSmallFiles.Error()},
		{"sample", mode{Disk: true, Passthrough: Off}, errTurnedOff.Error()},
		{"sample", mode{Disk: true, Disabled: since54}, lacks("passthrough, which came with 6.9").Error()},
		{"sample", mode{}, any},
	} {
		d, _ := serve(t, who{mode: c.mode}, task{Tree: c.tree})
		paths := fastPathsOf(d)
		if open, pass := paths[0], paths[6]; pass.Active != (c.want == "") || pass.Why != c.want && c.want != any || open.Active == pass.Active {
			t.Errorf("%s, %+v: %+v and %+v, want %q", c.tree, c.mode, open, pass, c.want)
		}
		d.send("unmount")
		d.ended()
	}
}
