//go:build linux

package fusefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// A dump is one line for each path of a tree. Both sides print through line,
// one from a real directory, one from a tree.

func line(path string, st *unix.Stat_t, target string, xattrs []string, content string) string {
	return fmt.Sprintf("%q mode=%o owner=%d:%d nlink=%d size=%d blocks=%d time=%d.%09d rdev=%d:%d ino=%d target=%q xattrs=%q content=%s",
		path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Blocks, st.Mtim.Sec, st.Mtim.Nsec,
		unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Ino, target, xattrs, content)
}

// denied stands for content and names that the user may not see.
const denied = "denied"

// sizeToRead is how much of a file a dump reads.
const sizeToRead = 8 << 20

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(r, sizeToRead)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// dumpRole prints the dump of a directory, as the user that it runs as.
func dumpRole(k task) error {
	return filepath.WalkDir(k.Dir, func(p string, _ os.DirEntry, err error) error {
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := lineOfPath(p, strings.TrimPrefix(p, k.Dir))
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		say("%s", text)
		return nil
	})
}

func lineOfPath(p, name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	var target, content string
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if target, err = os.Readlink(p); err != nil {
			return "", err
		}
	case unix.S_IFREG:
		if content, err = digestOfFile(p); err != nil {
			return "", err
		}
	}
	xattrs, err := xattrsOfPath(p)
	return line(name, &st, target, xattrs, content), err
}

func digestOfFile(p string) (string, error) {
	f, err := os.Open(p)
	if errors.Is(err, os.ErrPermission) {
		return denied, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest(f)
}

func xattrsOfPath(p string) ([]string, error) {
	names := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, names)
	if err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	// The size without a buffer must be the same.
	if m, err := unix.Llistxattr(p, nil); err != nil || m != n {
		return nil, fmt.Errorf("listxattr says size %d (%v), then gives %d", m, err, n)
	}
	var xattrs []string
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(p, name, value)
		switch {
		case errors.Is(err, unix.EACCES):
			xattrs = append(xattrs, name+"="+denied)
		case err != nil:
			return nil, fmt.Errorf("getxattr %s: %w", name, err)
		default:
			xattrs = append(xattrs, name+"="+string(value[:n]))
		}
	}
	slices.Sort(xattrs)
	return xattrs, nil
}

// dumpOfTree returns what dumpRole is to print when a user runs it.
func dumpOfTree(t testing.TB, tree *fs.Tree, uid int) []string {
	t.Helper()
	var lines []string
	var walk func(n fs.Node, name string)
	walk = func(n fs.Node, name string) {
		lines = append(lines, lineOfNode(t, n, name, uid))
		if !isDir(n) || !allowed(n.Attr(), uid) {
			return
		}
		for child, c := range n.Children() {
			walk(c, name+"/"+child)
		}
	}
	walk(tree.Root(), "")
	return lines
}

// allowed reports whether the mode lets a user read. No directory of the
// trees has r without x, and no user a group in common with a file.
func allowed(a fs.Attr, uid int) bool {
	if a.UID == uint32(uid) {
		return uid == 0 || a.Mode&0o400 != 0
	}
	return uid == 0 || a.Mode&0o004 != 0
}

// addLinks adds to a link count, whose type differs from one processor to the
// other.
func addLinks[T uint32 | uint64](p *T, n uint32) { *p += T(n) }

func lineOfNode(t testing.TB, n fs.Node, name string, uid int) string {
	t.Helper()
	a := n.Attr()
	st := unix.Stat_t{
		Mode: a.Mode, Uid: a.UID, Gid: a.GID, Size: a.Size, Ino: n.Ino(),
		Mtim: unix.Timespec{Sec: a.ModSec, Nsec: int64(a.ModNsec)},
		Rdev: unix.Mkdev(a.Major, a.Minor), Blocks: int64(a.Blocks()),
	}
	addLinks(&st.Nlink, a.Nlink)
	var content string
	if a.Mode&unix.S_IFMT == unix.S_IFREG {
		content = denied
		if allowed(a, uid) {
			var err error
			if content, err = digest(contentOf(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var xattrs []string
	for _, x := range n.Xattrs() {
		if strings.HasPrefix(x.Name, "trusted.") && uid != 0 {
			continue
		}
		value := x.Value
		if strings.HasPrefix(x.Name, "user.") && !allowed(a, uid) {
			value = denied
		}
		xattrs = append(xattrs, x.Name+"="+value)
	}
	slices.Sort(xattrs)
	return line(name, &st, n.Target(), xattrs, content)
}

// dumpOfMount returns the dump of a directory as a user sees it.
func dumpOfMount(t testing.TB, dir string, uid int) []string {
	t.Helper()
	c := start(t, uid, task{Role: "dump", Dir: dir})
	var lines []string
	for text := c.next(); text != ""; text = c.next() {
		lines = append(lines, text)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("dumping: %v: %s", err, lines[len(lines)-1])
	}
	return lines
}

func compareDumps(t testing.TB, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	bad := 0
	for _, g := range got {
		if _, ok := slices.BinarySearch(want, g); !ok && bad < 10 {
			t.Errorf("the mount has\n%s", g)
			bad++
		}
	}
	for _, w := range want {
		if _, ok := slices.BinarySearch(got, w); !ok && bad < 20 {
			t.Errorf("the tree has\n%s", w)
			bad++
		}
	}
	if len(got) != len(want) {
		t.Errorf("the mount has %d paths, want %d", len(got), len(want))
	}
}
