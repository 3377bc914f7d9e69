package treetar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	l "github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
)

var (
	long   = strings.Repeat("long/", 60)
	longer = strings.Repeat("n", 200)
	binary = "\x00\n=\xff\x00 17 x=y\n"
)

// odd has what ustar has no room for, and names as strangers choose them.
func odd() []l.Member {
	return []l.Member{
		l.Dir("", l.Mode(0o1555), l.Owner(7, 8), l.MTime(5, 6)),
		l.Dir("etc", l.Mode(0o500)),
		l.File("etc/passwd", "root\n", l.Mode(0o4755), l.Owner(1<<21, 1<<32-2), l.MTime(1700000000, 123456789), l.Xattr("user.b", binary), l.Xattr("security.capability", "\x01\x00\x00\x02")),
		l.File("before", "1", l.MTime(-1001, 500000000)), l.File("before2", "1", l.MTime(-1, 0)), l.File("after", "2", l.MTime(1<<36, 1)),
		l.File("h\xffllo\n\x1b[31m", "names are bytes"), l.File("h\xff"+longer, "and long"), l.File("grüße", "utf8"), l.File(strings.Repeat("ü", 120), "long utf8"),
		l.File(long+"x", "deep"), l.File(long+longer, "deep and long"), l.Dir(long + "d" + longer[:100]),
		l.Link("hard", "etc/passwd"), l.Link("Hard\xfe", "etc/passwd"), l.Link("hardlong", long+longer),
		l.Symlink("link", "../../etc/passwd"), l.Symlink("linklong", longer+longer), l.Symlink("linkbytes", "\xff"+longer), l.Link("linkhard", "link"),
		l.Fifo("fifo", l.Mode(0o600)), l.Device(layerindex.TypeChar, "null", 1, 3, l.Mode(0o666)), l.Device(layerindex.TypeBlock, "disk", 0xfff, 0xfffff),
		l.Sparse("sparse", 1<<40, "abcde", []layerindex.Extent{{Off: 3, Size: 2}, {Off: 700, Size: 1}, {Off: 1 << 39, Size: 2}}),
		l.Sparse("sparse"+longer, 5000, "xyz", []layerindex.Extent{{Off: 4997, Size: 3}}), l.Sparse("hole", 1<<20, "", []layerindex.Extent{}),
		l.Link("sparsehard", "sparse"), l.File("empty", ""), l.File("block", strings.Repeat("b", 512)),
	}
}

// TestRoundTrip: a layer that is the tar of a tree is the same tree.
func TestRoundTrip(t *testing.T) {
	members := odd()
	for i, m := range members { // whose content is too long to compare
		if strings.HasPrefix(m.Name, "sparse") && m.Size > 1<<20 {
			members[i].Size = 1<<19 + 1<<10
			members[i].Sparse[2].Off = 1 << 19
		}
	}
	tree := membersTree(t, members...)
	made := tarOf(t, tree, "/")
	if got, want := dumpOf(t, treeOf(t, made)), dumpOf(t, tree); got != want {
		t.Errorf("the tree of the tar:\n%swant\n%s", got, want)
	}
	if !bytes.Equal(made, tarOf(t, tree, "/")) {
		t.Error("a second tar has other bytes")
	}
	r := tar.NewReader(bytes.NewReader(made))
	for n := 0; ; n++ {
		h, err := r.Next()
		if err == io.EOF {
			if want := strings.Count(dumpOf(t, tree), "\n"); n != want {
				t.Errorf("archive/tar finds %d members, want %d", n, want)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("archive/tar: %q: %v", h.Name, err)
		}
	}
}

// TestSparse: a file that is nearly all hole is small in the tar, and of runs that GNU
// tar would read in another way none is left.
func TestSparse(t *testing.T) {
	made := tarOf(t, membersTree(t, odd()...), "sparse")
	if len(made) > 20*blockSize {
		t.Errorf("a file with 5 bytes of data is %d bytes", len(made))
	}
	if want := "2\n0\n1024\n549755813888\n512\n"; !bytes.Contains(made, []byte(strings.Replace(want, "2\n", "3\n", 1)+"1099511627776\n0\n")) {
		t.Errorf("the map of runs is not in %q", made)
	}
}

// TestOtherTars: GNU tar and bsdtar read what imgfs writes.
func TestOtherTars(t *testing.T) {
	tree := membersTree(t, odd()...)
	file := writeFile(t, filepath.Join(t.TempDir(), "a.tar"), tarOf(t, tree))
	want := map[string]bool{}
	for p, n := range tree.All() {
		if p != "/" && n.Mode()&0o170000 == 0o040000 {
			p += "/"
		}
		want[p[1:]] = p != "/"
	}
	delete(want, "")
	for _, args := range [][]string{{"tar", "--quoting-style=literal", "-tf", file}, {"bsdtar", "-tf", file}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not installed", args[0])
			continue
		}
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, &stderr)
		}
		if args[0] == "bsdtar" { // which quotes
			continue
		}
		for name := range want {
			if !strings.Contains("\n"+string(out), "\n"+name+"\n") {
				t.Errorf("%s does not list %q\n%s", args[0], name, &stderr)
			}
		}
	}
}

// TestPaths: names and order, for whole trees and parts.
func TestPaths(t *testing.T) {
	tree := membersTree(t, l.File("b/x", "1"), l.File("b/a/y", "22"), l.File("b.c", "333"), l.Link("z", "b/x"), l.Symlink("s", "b"), l.File("a", "4"))
	for _, c := range []struct {
		paths, want string
		size        int64
	}{
		{"", "a b/ b/a/ b/a/y b/x b.c s z", 7},
		{"/", "./ a b/ b/a/ b/a/y b/x b.c s z", 7},
		{".", "./ a b/ b/a/ b/a/y b/x b.c s z", 7},
		{"b", "b/ b/a/ b/a/y b/x", 3},
		{"/b//a/. z", "b/a/ b/a/y z", 3},
		{"z b", "z b/ b/a/ b/a/y b/x", 3},
		{"b/x b b", "b/ b/a/ b/a/y b/x", 3},
		{"s", "s", 0},
		{"s/", "s/ s/a/ s/a/y s/x", 3},
		{"s/x", "s/x", 1},
	} {
		paths := strings.Fields(c.paths)
		var names []string
		r := tar.NewReader(bytes.NewReader(tarOf(t, tree, paths...)))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			names = append(names, h.Name)
			if h.Typeflag == tar.TypeLink && !strings.Contains(strings.Join(names, " "), h.Linkname) {
				t.Errorf("%q: %s is a link to %s, which has not come yet", c.paths, h.Name, h.Linkname)
			}
		}
		got := strings.Join(names, " ")
		size, err := Size(tree, paths)
		if got != c.want || size != c.size || err != nil {
			t.Errorf("%q: got %s and %d bytes, error %v; want %s and %d", c.paths, got, size, err, c.want, c.size)
		}
	}
	for _, p := range []string{"no", "a/", "a/x", ""} {
		var b bytes.Buffer
		if err := Write(t.Context(), &b, tree, []string{"b", p}, nil); err == nil || b.Len() > 0 {
			t.Errorf("%q: got %d bytes, error %v", p, b.Len(), err)
		}
	}
}

// A lateCancel ends a context when some bytes have been written.
type lateCancel struct {
	bytes.Buffer
	after  int
	cancel func()
}

func (w *lateCancel) Write(p []byte) (int, error) {
	if w.Len()+len(p) > w.after {
		w.cancel()
	}
	return w.Buffer.Write(p)
}

// TestBreaksOff: no program takes a tar for whole that is not.
func TestBreaksOff(t *testing.T) {
	notWhole := func(what string, b []byte) {
		t.Helper()
		if bytes.HasSuffix(b, zeros[:]) || len(b) == 0 {
			t.Errorf("%s: %d bytes with the end of a tar", what, len(b))
		}
		file := writeFile(t, filepath.Join(t.TempDir(), "cut.tar"), b)
		for _, program := range []string{"tar", "bsdtar"} {
			if _, err := exec.LookPath(program); err != nil {
				continue
			}
			if out, err := exec.CommandContext(t.Context(), program, "-xOf", file).CombinedOutput(); err == nil {
				t.Errorf("%s: %s takes it for whole\n%q", what, program, out)
			}
		}
	}
	var b bytes.Buffer
	err := Write(t.Context(), &b, brokenTree(t), nil, nil)
	var failed *Error
	if !errors.As(err, &failed) || failed.Path != "/b" || !errors.Is(err, errRead) {
		t.Errorf("got the error %v, want one of /b", err)
	}
	notWhole("a read error", b.Bytes())
	for _, after := range []int{0, 500, 512, 1024, 1600} {
		ctx, cancel := context.WithCancel(t.Context())
		w := &lateCancel{after: after, cancel: cancel}
		err := Write(ctx, w, membersTree(t, l.File("a", "first"), l.Dir("d"), l.File("e", ""), l.File("f", "last")), nil, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted after %d bytes: got the error %v", after, err)
		}
		notWhole("interrupted", w.Bytes())
	}
}
