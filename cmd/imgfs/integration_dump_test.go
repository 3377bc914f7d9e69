//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A dump says all there is to see of a tree: by path, everything but the path.
type dump map[string]string

// dumpEnv holds the directory that a child process of the test binary is to
// dump. A mount shows each user something else, so a process of that user must
// look at it.
const dumpEnv = "IMGFS_TEST_DUMP"

// dumpOf returns the dump of a directory as a user sees it.
func dumpOf(t testing.TB, who account, dir string) dump {
	t.Helper()
	// The path of the binary may be closed to the user.
	cmd := who.as(exec.CommandContext(t.Context(), "/proc/self/exe"))
	cmd.Env, cmd.Dir = append(os.Environ(), dumpEnv+"="+dir), "/"
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("dumping %s: %v\n%s", dir, err, &stderr)
	}
	d := dump{}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		path, rest, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			t.Fatalf("dumping %s: the line %q", dir, lines.Text())
		}
		d[path] = rest
	}
	return d
}

// printDump is what the child process does.
func printDump(w io.Writer, root string) error {
	out := bufio.NewWriter(w)
	first := map[[2]uint64]string{} // path by inode: the first name of a group of links
	// WalkDir goes in the order of names, the same in every tree.
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		name := strings.TrimPrefix(p, root)
		if errors.Is(err, os.ErrPermission) {
			_, err := fmt.Fprintf(out, "%q\tdenied\n", name+"/*")
			return err
		}
		if err != nil {
			return err
		}
		text, err := lineOf(p, name, first)
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		_, err = fmt.Fprintf(out, "%q\t%s\n", name, text)
		return err
	})
	return errors.Join(err, out.Flush())
}

// lineOf is everything about a path. The size of directories is left out,
// as is their number of links: they are not in an image.
func lineOf(p, name string, first map[[2]uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	var target, content string
	var err error
	size, links, group := st.Size, uint64(st.Nlink), name
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err = os.Readlink(p)
	case unix.S_IFREG:
		content, err = contentOf(p)
	case unix.S_IFDIR:
		size, links = 0, 0
	}
	if err != nil {
		return "", err
	}
	if links > 1 {
		inode := [2]uint64{st.Dev, st.Ino}
		if _, ok := first[inode]; !ok {
			first[inode] = name
		}
		group = first[inode]
	}
	xattrs, err := xattrsOf(p)
	return fmt.Sprintf("mode=%o owner=%d:%d links=%d size=%d mtime=%d.%09d rdev=%d:%d group=%q target=%q xattrs=%q sha256=%s",
		st.Mode, st.Uid, st.Gid, links, size, st.Mtim.Sec, st.Mtim.Nsec,
		unix.Major(st.Rdev), unix.Minor(st.Rdev), group, target, xattrs, content), err
}

// contentOf is the digest of a file, or "denied".
func contentOf(p string) (string, error) {
	f, err := os.Open(p)
	if errors.Is(err, os.ErrPermission) {
		return "denied", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// xattrsOf lists extended attributes with their values.
func xattrsOf(p string) ([]string, error) {
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	var xattrs []string
	value := make([]byte, 1<<16)
	for _, name := range strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }) {
		if name == "security.selinux" {
			continue // the machine's, not the image's
		}
		n, err := unix.Lgetxattr(p, name, value)
		switch {
		case errors.Is(err, unix.EACCES):
			xattrs = append(xattrs, name+"=denied")
		case err != nil:
			return nil, fmt.Errorf("getxattr %s: %w", name, err)
		default:
			xattrs = append(xattrs, name+"="+string(value[:n]))
		}
	}
	slices.Sort(xattrs)
	return xattrs, nil
}

// compare reports what differs between two dumps.
func compare(t testing.TB, gotName string, got dump, wantName string, want dump) {
	t.Helper()
	const most = 20
	bad := 0
	report := func(path string) {
		if bad++; bad <= most {
			t.Errorf("%s\n%-8s %s\n%-8s %s", path, gotName, got[path], wantName, want[path])
		}
	}
	for path := range got {
		if got[path] != want[path] {
			report(path)
		}
	}
	for path := range want {
		if _, ok := got[path]; !ok {
			report(path)
		}
	}
	if bad > most {
		t.Errorf("%d paths differ", bad)
	}
}
