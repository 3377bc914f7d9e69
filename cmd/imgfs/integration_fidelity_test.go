//go:build linux

package main

import (
	"bytes"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// caseRange is an id of docs/semantics.md, or the first and the last of some.
var caseRange = regexp.MustCompile(`\b([A-H])([0-9]{2})(?:-[A-H]([0-9]{2}))?\b`)

// caseIDs returns the ids that a text names, each once.
func caseIDs(text string) []string {
	var ids []string
	for _, m := range caseRange.FindAllStringSubmatch(text, -1) {
		var first, last int
		fmt.Sscan(strings.TrimLeft(m[2], "0"), &first)
		if last = first; m[3] != "" {
			fmt.Sscan(strings.TrimLeft(m[3], "0"), &last)
		}
		for i := first; i <= last; i++ {
			ids = append(ids, fmt.Sprintf("%s%02d", m[1], i))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// TestCasesAreTested: each case of docs/semantics.md, and of the table that it
// comes from, is a subtest by its id that runs and passes, and no other is.
func TestCasesAreTested(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-vet=off", "-v", "-run", "^TestCases$", "./fs", "./layerindex/internal/tarscan")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	var passed []string
	for _, m := range regexp.MustCompile(`(?m)^ *--- PASS: TestCases/(\S+) `).FindAllStringSubmatch(string(out), -1) {
		passed = append(passed, m[1])
	}
	slices.Sort(passed)
	if len(passed) != 136 {
		t.Errorf("%d cases passed, want 136", len(passed))
	}
	if got := caseIDs(readDoc(t, "docs/semantics.md")); !slices.Equal(got, passed) {
		t.Errorf("docs/semantics.md has the cases\n%q, passed have\n%q", got, passed)
	}
	t.Run("table", func(t *testing.T) {
		images := testenv.Image(t, "")
		table, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(images)), "docs", "semantics.md"))
		if err != nil {
			t.Skipf("the table is absent: %v", err)
		}
		var rows strings.Builder
		for line := range strings.Lines(string(table)) {
			if strings.HasPrefix(line, "| ") {
				rows.WriteString(line)
			}
		}
		// It counts 136 cases, two of which are in no row: a hard link to a
		// fifo, and a symlink whose name ends in a slash.
		got := append(caseIDs(rows.String()), "E12", "F14")
		slices.Sort(got)
		if !slices.Equal(got, passed) {
			t.Errorf("the table has the cases\n%q, passed have\n%q", got, passed)
		}
	})
}

// TestSemanticsNamesTests: the tests that docs/semantics.md names exist.
func TestSemanticsNamesTests(t *testing.T) {
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(p string, _ iofs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range function.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`).FindAllString(readDoc(t, "docs/semantics.md"), -1)
	for _, name := range named {
		if !there[name] {
			t.Errorf("docs/semantics.md names %s, which does not exist", name)
		}
	}
	if len(named) < 20 {
		t.Errorf("docs/semantics.md names %q only", named)
	}
}

// TestMountEqualsCorpus compares the mounts of the real images with their
// trees, path by path; TestGoldenImages has what the trees must be. In the
// nightly run it has all of them, else those of oci-tools.
func TestMountEqualsCorpus(t *testing.T) {
	testenv.Slow(t)
	needRoot(t) // to see all of them
	needFUSE(t)
	images := testenv.Image(t, "")
	s, nightly := newSandbox(t), os.Getenv("IMGFS_STACKS")
	for _, c := range goldenCases {
		if c.golden == "" || nightly == "" && !strings.HasPrefix(c.image, "oci-tools/") {
			continue
		}
		t.Run(c.image, func(t *testing.T) {
			name := filepath.Join(images, c.image)
			tree := openCorpus(t, name, c)
			want := dumpOfTree(t, tree)
			location := "oci:" + name
			if info, err := os.Stat(name); err == nil && !info.IsDir() {
				location = "docker-archive:" + name
			}
			if c.choose != "" {
				location += ":" + c.choose
			}
			var flags []string
			if c.amd64 {
				flags = []string{"--platform=linux/amd64"}
			}
			s := s.in(t)
			dir := s.mount(location, flags...)
			var out bytes.Buffer
			if err := printDump(&out, dir); err != nil {
				t.Fatal(err)
			}
			got := dump{}
			for line := range strings.Lines(out.String()) {
				path, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				got[path] = rest
			}
			compare(t, "mount", got, "tree", want)
			s.umount(dir)
		})
	}
}

// openCorpus opens the tree of an image of the corpus.
func openCorpus(t *testing.T, file string, c goldenCase) *fs.Tree {
	t.Helper()
	cache, err := cache.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	tree, err := openInCorpus(t, file, c, cache)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree.Tree()
}

// dumpOfTree is what a dump of a mount of the tree must be.
func dumpOfTree(t *testing.T, tree *fs.Tree) dump {
	t.Helper()
	d, first := dump{}, map[uint64]string{}
	var walk func(name string, n fs.Node)
	walk = func(name string, n fs.Node) {
		a := n.Attr()
		content, size, links, group := "", a.Size, a.Nlink, name
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content = hashOf(t, n)
		case unix.S_IFDIR:
			size, links = 0, 0
		}
		if links > 1 {
			if _, ok := first[n.Ino()]; !ok {
				first[n.Ino()] = name
			}
			group = first[n.Ino()]
		}
		var xattrs []string
		for _, x := range n.Xattrs() {
			xattrs = append(xattrs, x.Name+"="+x.Value)
		}
		slices.Sort(xattrs)
		d[fmt.Sprintf("%q", name)] = fmt.Sprintf("mode=%o owner=%d:%d links=%d size=%d mtime=%d.%09d rdev=%d:%d group=%q target=%q xattrs=%q sha256=%s",
			a.Mode, a.UID, a.GID, links, size, a.ModSec, a.ModNsec, a.Major, a.Minor, group, n.Target(), xattrs, content)
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			for child, c := range n.Children() {
				walk(name+"/"+child, c)
			}
		}
	}
	walk("", tree.Root())
	return d
}

// A listing is what "ls -l" counts in a directory.
type listing struct {
	files, dirs int
	data        int64 // blocks of 512 bytes that the bytes of the regular files need
	blocks      int64 // as many as the unpacked ones have, where that is about their content alone
	sparse      bool  // some file has fewer than its bytes need
}

func listingOf(t *testing.T, dir string) (l listing) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		st := lstatOf(t, name)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			l.dirs++
		case unix.S_IFREG:
			need := (st.Size + 511) / 512
			l.files++
			l.data += need
			l.sparse = l.sparse || st.Blocks < need
			if n, err := unix.Llistxattr(name, nil); err != nil || n > 0 {
				st.Blocks = need // disks have blocks for xattrs
			}
			l.blocks += st.Blocks
		}
	}
	return l
}

func lstatOf(t *testing.T, name string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	return st
}

// dirBlocks is how many blocks of 512 bytes a directory of a mount has.
const dirBlocks = 4096 / 512

// TestListingTotals: the total of "ls -l", the sum of du and the link counts
// of directories follow from what umoci unpacks, and are those of its tree as
// far as block sizes allow. A file counts as many blocks of 512 bytes as its
// bytes need, holes included, where a disk rounds up to its own blocks, of 4
// KiB mostly; a directory counts 4 KiB.
func TestListingTotals(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	needFUSE(t)
	need(t, "ls", "du")
	l := newLab(t)
	rootfs := l.unpack(t, zoo)
	s := newSandbox(t)
	mnt := s.mount(l.host + "/" + zoo)
	dirs, seen, all := 0, map[uint64]bool{}, int64(0)
	err := filepath.WalkDir(rootfs, func(p string, e iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstatOf(t, p)
		if e.Type().IsRegular() && !seen[st.Ino] {
			seen[st.Ino] = true
			all += (st.Size + 511) / 512
		}
		if !e.IsDir() {
			return nil
		}
		dirs++
		compareListing(t, listingOf(t, p), filepath.Join(mnt, strings.TrimPrefix(p, rootfs)), st)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if dirs < 15 {
		t.Errorf("umoci unpacked %d directories", dirs)
	}
	var du int64
	fmt.Sscan(tool(t, "du", "-s", "--block-size=512", mnt), &du)
	if want := all + int64(dirs)*dirBlocks; du != want {
		t.Errorf("du: %d blocks, want %d in files and %d in %d directories", du, all, int64(dirs)*dirBlocks, dirs)
	}
	s.umount(mnt)
}

// compareListing compares a directory of a mount with the same unpacked.
func compareListing(t *testing.T, unpacked listing, dir string, st unix.Stat_t) {
	t.Helper()
	var total int64
	text := tool(t, "ls", "-lA", "--block-size=512", dir)
	if _, err := fmt.Sscanf(text, "total %d\n", &total); err != nil {
		t.Fatalf("ls -l %s: %v\n%.200s", dir, err, text)
	}
	total -= int64(unpacked.dirs) * dirBlocks
	if total != unpacked.data {
		t.Errorf("%q: ls -l has %d blocks in files, want %d", dir, total, unpacked.data)
	}
	if diff := unpacked.blocks - total; !unpacked.sparse && (diff < 0 || diff > int64(unpacked.files)*7) {
		t.Errorf("%q: ls -l has %d blocks in %d files, unpacked they have %d", dir, total, unpacked.files, unpacked.blocks)
	}
	links := lstatOf(t, dir).Nlink
	if want := 2 + unpacked.dirs; int(links) != want {
		t.Errorf("%q: %d links, want 2 and one for each of %d directories", dir, links, unpacked.dirs)
	}
	// Some file systems do not count.
	if st.Nlink > 1 && links != st.Nlink {
		t.Errorf("%q: %d links, unpacked it has %d", dir, links, st.Nlink)
	}
}
