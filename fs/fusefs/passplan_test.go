//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// fakeFiles have what a test says.
type fakeFiles struct {
	err    error
	closed int
}

func (f *fakeFiles) Backing(fs.Node, bool) (BackingFile, bool) { return f, f.err == nil }
func (f *fakeFiles) BackingProbe() (BackingFile, error)        { return f, f.err }
func (f *fakeFiles) Fd() uintptr                               { return 0 }
func (f *fakeFiles) Close() error                              { f.closed++; return nil }

// A fakeConn does not take files, or takes them all.
type fakeConn struct{ err error }

func (fakeConn) serve()                            {}
func (c fakeConn) register(uintptr) (int32, error) { return 7, c.err }
func (c fakeConn) unregister(int32) error          { return nil }

func TestPlanPassthrough(t *testing.T) {
	const mib = 1 << 20 / blockSize
	large := treeFacts{files: 10, blocks: 10 * mib, largest: 16 << 20}
	many := treeFacts{files: 11, blocks: 10 * mib, largest: 16 << 20}
	none := treeFacts{}
	noneLarge := treeFacts{files: 10, blocks: 10 * mib, largest: 16<<20 - 1}
	errNoFiles := errors.New("no files are kept")
	for _, c := range []struct {
		name   string
		choice Choice
		tree   treeFacts
		probe  error
		want   error
	}{
		{"off", Off, large, nil, errTurnedOff},
		{"auto, large files", Auto, large, nil, nil},
		{"auto, small files", Auto, many, nil, errSmallFiles},
		{"auto, none that is large", Auto, noneLarge, nil, errSmallFiles},
		{"auto, no files", Auto, none, nil, errSmallFiles},
		{"on, small files", On, many, nil, nil},
		{"on, nothing kept", On, many, errNoFiles, errNoFiles},
		{"auto, nothing kept", Auto, large, errNoFiles, errNoFiles},
	} {
		if c.want == nil || c.want == errNoFiles {
			if !isPrivileged() {
				c.want = errPrivilege
			}
		}
		files := &fakeFiles{err: c.probe}
		opts := &Options{Passthrough: c.choice}
		plan := planPassthrough(opts, &c.tree, files)
		if !errors.Is(plan.why, c.want) || plan.why == nil && plan.depth != 1 {
			t.Errorf("%s: not because %v, depth %d; want %v", c.name, plan.why, plan.depth, c.want)
		}
		if err := plan.refused(opts); (err != nil) != (c.choice == On && c.want != nil) || err != nil && !errors.Is(err, ErrPassthrough) {
			t.Errorf("%s: refused: %v", c.name, err)
		}
		opts.Engine = true
		if engine := planPassthrough(opts, &c.tree, files); c.choice == Auto && !errors.Is(engine.why, errEngine) || c.choice != Auto && !errors.Is(engine.why, c.want) {
			t.Errorf("%s, for an engine: not because %v", c.name, engine.why)
		} else {
			engine.close()
			files.closed -= map[bool]int{true: 1}[engine.why == nil]
		}
		plan.close()
		if want := map[bool]int{true: 1}[c.want == nil]; files.closed != want {
			t.Errorf("%s: the probe was closed %d times, want %d", c.name, files.closed, want)
		}
	}
}

func TestTryPassthrough(t *testing.T) {
	for _, c := range []struct {
		name string
		can  uint64
		err  error
		want string
	}{
		{"works", fuse.CAP_PASSTHROUGH, nil, "<nil>"},
		{"an older kernel", 0, nil, fmt.Sprintf("the kernel (%s) has no passthrough, which came with 6.9", kernelRelease())},
		{"no rights", fuse.CAP_PASSTHROUGH, unix.EPERM, errPrivilege.Error()},
		{"stacked", fuse.CAP_PASSTHROUGH, unix.ELOOP, "the cache directory is on too many stacked file systems, such as overlayfs"},
		{"another", fuse.CAP_PASSTHROUGH, unix.ENOMEM, "the kernel does not take files of the cache directory: cannot allocate memory"},
	} {
		plan := passPlan{probe: &fakeFiles{}}
		if got := fmt.Sprint(plan.try(fakeConn{c.err}, c.can)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestRegisterFails: the daemon reads what the kernel does not take.
func TestRegisterFails(t *testing.T) {
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	files, logged := &fakeFiles{}, 0
	p := newPassthrough(fakeConn{unix.EMFILE}, files, nil, func(string, ...any) { logged++ })
	for i := range 3 {
		var out fuse.OpenOut
		p.open(n, &fuse.OpenIn{}, &out)
		if out.OpenFlags != fuse.FOPEN_KEEP_CACHE || out.Fh != countedOpen || files.closed != i+1 || logged != 1 {
			t.Errorf("open %d: %+v, %d files closed, %d lines logged", i, out, files.closed, logged)
		}
		p.release(n.Ino(), countedOpen)
	}
	p.close()
	var late fuse.OpenOut
	if p.open(n, &fuse.OpenIn{}, &late); late.Fh != 0 {
		t.Error("an open after the end is counted")
	}
	p.release(n.Ino(), countedOpen) // does no harm
}

// mountOverlay mounts an overlayfs over a directory and returns where.
func mountOverlay(t *testing.T, lower string) string {
	t.Helper()
	top := t.TempDir()
	at, upper, work := filepath.Join(top, "at"), filepath.Join(top, "upper"), filepath.Join(top, "work")
	// Upper must be on another file system than an overlayfs.
	if err := unix.Mount("none", top, "tmpfs", 0, ""); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
	if err := errors.Join(os.Mkdir(at, 0o755), os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", at, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		t.Fatalf("mounting an overlayfs on %s: %v", lower, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// TestCacheOnOverlay: files on an overlayfs are passed through for who asks for
// it, and it is not done by itself, as nothing could be mounted on top then.
func TestCacheOnOverlay(t *testing.T) {
	needPassthrough(t)
	lower := t.TempDir()
	t.Setenv("TMPDIR", mountOverlay(t, lower))
	plan := planPassthrough(&Options{}, &treeFacts{files: 1, blocks: 1 << 20, largest: 1 << 30}, newDiskFiles(true))
	if plan.close(); !errors.Is(plan.why, errStackedAuto) {
		t.Errorf("auto: not because %v, want %v", plan.why, errStackedAuto)
	}
	c, dir := serve(t, who{mode: mode{Passthrough: On, Disk: true}}, task{Tree: "sample"})
	f := mustOpen(t, filepath.Join(dir, "mega"), os.O_RDONLY)
	c.state("1 open, 1 passed, 1 registered, 1 files")
	compareAll(t, f, mustLookup(t, treeNamed(t, "sample"), "mega"))
	f.Close()
}

// TestOverlayOnTop mounts an overlayfs on a tree, as containers have it.
func TestOverlayOnTop(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	n := mustLookup(t, treeNamed(t, "sample"), "mega")
	forEachMode(t, func(t *testing.T, w who) {
		_, dir := serve(t, w, task{Tree: "sample", Dir: plainDir(t)})
		at := mountOverlay(t, dir)
		f := mustOpen(t, filepath.Join(at, "mega"), os.O_RDONLY)
		compareAll(t, f, n)
		f.Close()
		if err := os.WriteFile(filepath.Join(at, "srv/index"), []byte("changed"), 0o644); err != nil {
			t.Error(err)
		}
		if w.Passthrough != On {
			mountOverlay(t, at) // the kernel lets no more than two be stacked
		}
		compareReads(t, "setuid", mustOpen(t, filepath.Join(at, "setuid"), os.O_RDONLY), mustLookup(t, treeNamed(t, "sample"), "setuid"), 0, 9000)
	})
}

// plainDir is a mountpoint that needs no escapes.
func plainDir(t *testing.T) string {
	t.Helper()
	top, err := os.MkdirTemp("", "imgfs-fuse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(top) })
	return top
}
