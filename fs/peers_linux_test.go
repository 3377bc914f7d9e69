package fs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A peer makes a real tree of layers, the base first, below dir, which is
// empty, and returns where it is. done, if not nil, comes before dir goes.
type peer func(dir string, layers [][]byte) (root string, done func(), err error)

// peerStacks is how many random stacks a peer takes: it runs other programs
// for each.
func peerStacks(t *testing.T) uint64 { return max(40, stackCount(t, 0)/20) }

// comparePeer has a peer and imgfs make trees of random stacks whose meaning
// is agreed, and compares them in full: imgfs reads the same tars as the peer.
func comparePeer(t *testing.T, p peer) {
	t.Helper()
	dir := scratch(t)
	able := abilities(t, dir)
	entries := 0
	for seed := range peerStacks(t) {
		g := able
		g.choose = rand.New(rand.NewPCG(seed, 1)).IntN
		stack := g.stack()
		for _, l := range agreed(stack) {
			entries += len(l)
		}
		err := compareAgreed(t, p, filepath.Join(dir, "stack"), agreed(stack))
		if err == nil {
			continue
		}
		stack = shrink(stack, func(less [][]member) bool {
			return compareAgreed(t, p, filepath.Join(dir, "stack"), agreed(less)) != nil
		})
		err = compareAgreed(t, p, filepath.Join(dir, "stack"), agreed(stack))
		t.Fatalf("seed %d: %v\nwith\n%s", seed, err, stackString(agreed(stack)))
	}
	t.Logf("%d stacks of %d entries", peerStacks(t), entries)
}

// compareAgreed says what differs between what imgfs and a peer make of a stack.
func compareAgreed(t *testing.T, p peer, dir string, stack [][]member) error {
	t.Helper()
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "peer"), 0o755); err != nil {
		return err
	}
	var layers [][]byte
	for _, l := range stack {
		layers = append(layers, tarOf(l))
	}
	root, done, err := p(filepath.Join(dir, "peer"), layers)
	if err != nil {
		return fmt.Errorf("the peer: %w", err)
	}
	if done != nil {
		defer done()
	}
	want := realRows(t, root, true, linksShown)
	tree, closeTree, err := openTars(t, filepath.Join(dir, "cache"), layers)
	if err != nil {
		return err
	}
	defer closeTree()
	return compareRows(treeRows(t, tree, true), want)
}

// run runs another program to its end; what it says is in the error.
func run(stdin []byte, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// needRootAnd skips the test without root and the programs named. In CI the
// programs must be there.
func needRootAnd(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners, devices and trusted xattrs need root")
	}
	dir := scratch(t)
	if able := abilities(t, dir); !able.owners || !able.devices || !able.xattrs || !able.trusted {
		t.Skip("this root or file system cannot have owners, devices and trusted xattrs")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// TestAgreesWithOverlayfs compares with the kernel's own overlayfs on layers
// that GNU tar extracts, as container runtimes have them.
func TestAgreesWithOverlayfs(t *testing.T) {
	needRootAnd(t, "tar")
	if list, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(list), "\toverlay\n") {
		t.Skip("this kernel has no overlayfs")
	}
	privateMounts(t)
	comparePeer(t, func(dir string, layers [][]byte) (string, func(), error) {
		lower := ""
		for i, l := range append([][]byte{tarOf(nil)}, layers...) { // two directories are the least
			d := filepath.Join(dir, fmt.Sprint("lower", i))
			if err := os.Mkdir(d, 0o755); err != nil {
				return "", nil, err
			}
			err := run(l, "tar", "-C", d, "--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-xpf", "-")
			if err == nil {
				err = errors.Join(mendDirs(d, l), convertWhiteouts(d))
			}
			if err != nil {
				return "", nil, err
			}
			lower = strings.TrimSuffix(d+":"+lower, ":") // the topmost is the first
		}
		root := filepath.Join(dir, "overlay")
		if err := os.Mkdir(root, 0o755); err != nil {
			return "", nil, err
		}
		if err := unix.Mount("overlay", root, "overlay", unix.MS_RDONLY, "lowerdir="+lower); err != nil {
			return "", nil, fmt.Errorf("mounting the overlay: %w", err)
		}
		return root, func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Errorf("unmounting the overlay: %v", err)
			}
		}, nil
	})
}

// mendDirs sets times and modes of a layer's directories again. GNU tar makes
// symlinks that lead out of its directory at the very end, when it has set the
// times of the directories that they are in; and a directory that is made in a
// setgid one stays so, whatever its entry says.
func mendDirs(dir string, layer []byte) error {
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && h.Typeflag == tar.TypeDir {
			p := filepath.Join(dir, h.Name)
			ts := unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
			err = errors.Join(unix.Chmod(p, uint32(h.Mode)), unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, 0))
		}
		if err != nil {
			return err
		}
	}
}

// privateMounts gives the test a mount namespace of its own, on a thread of
// its own that ends with it: whatever happens, no mount is left.
func privateMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
}

// convertWhiteouts makes what overlayfs has of the whiteouts and markers of a
// layer: devices 0:0 and an xattr. Times of directories stay.
func convertWhiteouts(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		name, isWhiteout := strings.CutPrefix(e.Name(), ".wh.")
		switch {
		case e.Name() == ".wh..wh..opq":
			err = errors.Join(os.RemoveAll(p), unix.Lsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0))
		case isWhiteout:
			err = os.RemoveAll(p)
			if _, statErr := os.Lstat(filepath.Join(dir, name)); err == nil && errors.Is(statErr, os.ErrNotExist) {
				err = unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR, 0)
			}
		case e.IsDir():
			err = convertWhiteouts(p)
		}
		if err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Mtim, st.Mtim}, 0)
}

// TestAgreesWithUmoci compares with umoci unpack.
func TestAgreesWithUmoci(t *testing.T) {
	needRootAnd(t, "umoci")
	comparePeer(t, func(dir string, layers [][]byte) (string, func(), error) {
		store := sourcetest.NewStore()
		var stack sourcetest.Image
		for _, l := range layers {
			stack.Layers = append(stack.Layers, sourcetest.Layer{Content: l})
		}
		layout, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")
		if err := store.WriteLayout(layout, sourcetest.Tagged(store.AddImage(stack), "latest")); err != nil {
			return "", nil, err
		}
		return filepath.Join(bundle, "rootfs"), nil, run(nil, "umoci", "unpack", "--image", layout+":latest", bundle)
	})
}
