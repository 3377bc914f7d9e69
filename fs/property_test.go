package fs_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestStacks merges random stacks and extracts them for real: 500, or as many
// as IMGFS_STACKS says. Without root, devices, owners and trusted xattrs are
// left out. A stack that fails is printed as small as it can be, in the dialect:
// it belongs into TestAccepted or TestRefused.
func TestStacks(t *testing.T) {
	testenv.Slow(t)
	stacks := stackCount(t, 500)
	dir := scratch(t)
	able := abilities(t, dir)
	dir = filepath.Join(dir, "stack")
	refused, merged := make(map[string]int), 0
	run := func(seed uint64) {
		g := able
		g.choose = rand.New(rand.NewPCG(seed, 0)).IntN
		stack := g.stack()
		// What is refused is compared, left out, and the rest goes on.
		for {
			at, err := compareStack(t, dir, stack, able)
			if err != nil {
				stack = shrink(stack, func(less [][]member) bool {
					_, err := compareStack(t, dir, less, able)
					return err != nil
				})
				_, err = compareStack(t, dir, stack, able)
				t.Fatalf("seed %d: %v\nwith\n%s", seed, err, stackString(stack))
			}
			if at == nil {
				merged++
				return
			}
			refused[at.err.Error()]++
			stack[at.layer] = slices.Delete(slices.Clone(stack[at.layer]), at.entry, at.entry+1)
		}
	}
	for seed := range stacks {
		run(seed)
	}
	t.Logf("%d stacks merged, entries refused: %v", merged, refused)
}

// stackCount is how many random stacks a test takes: few, or what IMGFS_STACKS
// says.
func stackCount(t *testing.T, few uint64) uint64 {
	t.Helper()
	s := os.Getenv("IMGFS_STACKS")
	if s == "" {
		return few
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("IMGFS_STACKS: %v", err)
	}
	return n
}

// scratch makes a directory to extract in: in memory if that can hold xattrs,
// which is ten times as fast as a disk.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "imgfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if unix.Lsetxattr(dir, "user.a", nil, 0) != nil {
		return t.TempDir()
	}
	return dir
}

// abilities finds out what can be extracted in a directory.
func abilities(t *testing.T, dir string) generator {
	t.Helper()
	f := filepath.Join(dir, "f")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return generator{
		owners:  os.Lchown(f, 4000000000, 5) == nil,
		devices: unix.Mknod(filepath.Join(dir, "d"), unix.S_IFBLK|0o600, 0) == nil,
		xattrs:  unix.Lsetxattr(f, "user.a", nil, 0) == nil,
		trusted: unix.Lsetxattr(f, "trusted.a", nil, 0) == nil,
	}
}

// compareStack merges and extracts a stack and says what differs. It returns
// where both refuse it.
func compareStack(t *testing.T, dir string, stack [][]member, able generator) (*refusal, error) {
	t.Helper()
	defer os.RemoveAll(dir)
	n := naive{root: dir + "/root", spare: dir + "/spare", owners: able.owners}
	refused, err := n.extract(stack)
	if err != nil {
		return nil, fmt.Errorf("extracting: %w", err)
	}
	tree, mergeErr := fs.Merge(t.Context(), layersOf(stack...))
	if refused != nil {
		want := stack[refused.layer][refused.entry].Name
		var e *fs.EntryError
		if !errors.As(mergeErr, &e) || !errors.Is(mergeErr, refused.err) || e.Name != want || e.Layer != fmt.Sprintf("L%d", refused.layer+1) {
			return nil, fmt.Errorf("Merge: got error %v, want entry %q of layer L%d refused: %w", mergeErr, want, refused.layer+1, refused.err)
		}
		return refused, nil
	}
	if mergeErr != nil {
		return nil, fmt.Errorf("Merge: got error %w, want none", mergeErr)
	}
	if err := compareRows(treeRows(t, tree, able.owners), realRows(t, n.root, able.owners, linksOfInode)); err != nil {
		return nil, err
	}
	checkTree(t, tree)
	return nil, checkExport(t, tree)
}

// compareRows says where two trees differ first.
func compareRows(got, want map[string]string) error {
	for _, p := range slices.Sorted(maps.Keys(joined(got, want))) {
		if got[p] != want[p] {
			return fmt.Errorf("%q:\n got %s\nwant %s", p, got[p], want[p])
		}
	}
	return nil
}

func joined(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// checkExport says whether a tree that is exported and merged is the same.
func checkExport(t testing.TB, tree *fs.Tree) error {
	t.Helper()
	again, err := fs.Merge(t.Context(), layersOf(export(t, tree)...))
	if err != nil {
		return fmt.Errorf("merging the export: %w", err)
	}
	if got, want := dump(t, again), dump(t, tree); got != want {
		return fmt.Errorf("the merged export is\n%swant\n%s", got, want)
	}
	return nil
}

// shrink leaves out members as long as the stack still fails.
func shrink(stack [][]member, fails func([][]member) bool) [][]member {
	for again := true; again; {
		again = false
		for i := range stack {
			for j := len(stack[i]) - 1; j >= 0; j-- {
				less := slices.Clone(stack)
				less[i] = slices.Delete(slices.Clone(stack[i]), j, j+1)
				if fails(less) {
					stack, again = less, true
				}
			}
		}
	}
	return stack
}

// row shows everything about an inode; group is its first path.
func row(a fs.Attr, target, group, content string, xattrs any, owners bool) string {
	if !owners {
		a.UID, a.GID = 0, 0
	}
	return fmt.Sprintf("%o %d:%d nlink %d size %d mtime %d.%09d dev %d:%d target %q group %q xattrs %q content %q",
		a.Mode, a.UID, a.GID, a.Nlink, a.Size, a.ModSec, a.ModNsec, a.Major, a.Minor, target, group, xattrs, content)
}

func treeRows(t *testing.T, tree *fs.Tree, owners bool) map[string]string {
	rows, first := make(map[string]string), make(map[uint64]string)
	add := func(path string, n fs.Node) {
		if _, ok := first[n.Ino()]; !ok {
			first[n.Ino()] = path
		}
		content := ""
		if n.Mode()&syscall.S_IFMT == syscall.S_IFREG {
			content = strings.TrimRight(readAll(t, n), "\x00")
		}
		rows[path] = row(n.Attr(), n.Target(), first[n.Ino()], content, n.Xattrs(), owners)
	}
	add("", tree.Root())
	pathsOf(tree.Root(), "", add)
	return rows
}

// A linkCount says where the number of links of an inode is taken from.
type linkCount bool

const (
	linksOfInode linkCount = false // as the file system has it
	linksShown   linkCount = true  // the names that are in the tree
)

// A realFile is a path of a real directory.
type realFile struct {
	path, target, content string
	stat                  unix.Stat_t
	dirs                  uint32 // directories in it
	xattrs                []layerindex.Xattr
}

// realRows is treeRows of a real directory.
func realRows(t *testing.T, root string, owners bool, links linkCount) map[string]string {
	t.Helper()
	rows, first, names := make(map[string]string), make(map[uint64]string), make(map[uint64]uint32)
	files := realFiles(t, root, "")
	for _, f := range files {
		names[f.stat.Ino]++
	}
	for _, f := range files {
		st := &f.stat
		if _, ok := first[st.Ino]; !ok {
			first[st.Ino] = f.path
		}
		a := fs.Attr{
			Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Size: st.Size,
			ModSec: st.Mtim.Sec, ModNsec: uint32(st.Mtim.Nsec), Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			a.Size, a.Nlink = 4096, 2+f.dirs // file systems differ in both
		case links == linksShown:
			a.Nlink = names[st.Ino]
		}
		rows[f.path] = row(a, f.target, first[st.Ino], f.content, f.xattrs, owners)
	}
	return rows
}

// realFiles walks a real directory, in the order of names.
func realFiles(t *testing.T, root, path string) []realFile {
	t.Helper()
	f := realFile{path: path}
	real := filepath.Join(root, path)
	if err := unix.Lstat(real, &f.stat); err != nil {
		t.Fatalf("%s: %v", real, err)
	}
	var err error
	var below []os.DirEntry
	switch f.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		below, err = os.ReadDir(real)
	case unix.S_IFLNK:
		f.target, err = os.Readlink(real)
	case unix.S_IFREG:
		var b []byte
		b, err = os.ReadFile(real)
		f.content = strings.TrimRight(string(b), "\x00")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.xattrs = realXattrs(real)
	files := []realFile{f}
	for _, e := range below {
		if e.IsDir() {
			files[0].dirs++
		}
		files = append(files, realFiles(t, root, strings.TrimPrefix(path+"/"+e.Name(), "/"))...)
	}
	return files
}
