package blobs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// anyHex is a name as digests have it.
var anyHex = strings.Repeat("0a", 32)

// TestSomebodysDirectory: a directory that has something in it and is no cache
// stays as it is, whatever its parts are called.
func TestSomebodysDirectory(t *testing.T) {
	for _, tt := range []struct {
		file string // of the directory
		text string
		ours bool
	}{
		{"letter.txt", "dear", false},
		{"tmp/1", "dear", false},
		{"tmp/letter", "", false},
		{"images/cat.jpg", "meow", false},
		{"images/2026/" + anyHex + ".json", "{}", false},
		{"blobs/sha256/" + anyHex + ".txt", "", false},
		{"space", "the final frontier", false},
		{"version", "7", false},
		{".hidden", "", false},
		{"photos/", "", false},
		{"refs/", "", true},
		{"version", "", true},
		{"tmp/1", "", true},
		{"tmp/1", "imgfs cache 1\n", true},
		{"blobs/sha256/" + anyHex, "", true},
		{"blobs/sha256/" + anyHex, "a blob of an OCI layout", false},
		{"indexes/sha256/" + anyHex, "anything", false},
		{"indexes/sha256/" + anyHex, "imgfsidx and so on", true},
		{"indexes/sha256/.new-1", "anything", false},
		{"meta/sha256/" + anyHex, "{}", false},
		{"refs/" + anyHex + ".json", "{}", false},
		{"images/" + anyHex + ".json", "{}", false},
		{"contents/sha256/" + anyHex, "anything", false},
		{"verified/sha256/" + anyHex, "{}", false},
		{"claims/sha256/" + anyHex, "anything", false},
		{"imgfs.log", "anything", true},
		{"space", "imgfsspc and so on", true},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, tt.file)
		if strings.HasSuffix(tt.file, "/") {
			mkdir(t, path, 0o700)
		} else {
			write(t, path, tt.text)
		}
		before := treeOf(t, dir)
		c, err := openTest(dir, nil)
		if err == nil {
			c.Close()
		}
		if tt.ours != (err == nil) {
			t.Errorf("%s: Open() = %v", tt.file, err)
		}
		var unfit *directory.DirError
		if !tt.ours && (!errors.As(err, &unfit) || !strings.Contains(err.Error(), dir) || treeOf(t, dir) != before) {
			t.Errorf("%s: Open() = %v, and then it is\n%s", tt.file, err, treeOf(t, dir))
		}
	}
}

// foreigners puts into a cache directory what imgfs does not make, and returns
// the names.
func foreigners(t *testing.T, dir string) []string {
	t.Helper()
	files := []string{"letter", "tmp/letter", "tmp/a/1", "photos/1.jpg", "blobs/sha256/letter", "blobs/letter", "indexes/sha256/.letter",
		"indexes/letter", "meta/sha256/letter", "refs/letter.json", "images/letter.json", "contents/sha256/letter", "claims/letter", "verified/sha256/letter"}
	for _, f := range files {
		write(t, filepath.Join(dir, f), "precious")
		cachetest.Age(t, filepath.Join(dir, f), 1000*time.Hour)
	}
	for _, f := range []string{"tmp/2", "blobs/sha256/" + anyHex, "indexes/sha256/.new-1", "indexes/sha256/" + anyHex, "meta/sha256/" + anyHex,
		"refs/" + anyHex + ".json", "images/" + anyHex + ".json", "contents/sha256/" + anyHex, "claims/sha256/" + anyHex, "verified/sha256/" + anyHex} {
		mkdir(t, filepath.Dir(filepath.Join(dir, f)), 0o700)
		if err := unix.Mkfifo(filepath.Join(dir, f), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// TestForeignersStay: nothing that imgfs did not make is removed, by whatever
// removes; it is named.
func TestForeignersStay(t *testing.T) {
	dir := t.TempDir()
	openCache(t, dir, nil)
	files := foreigners(t, dir)
	c := openCache(t, dir, &testOptions{Budget: 1 << 20}) // it sweeps
	if err := useOnce(c); err != nil {
		t.Error(err)
	}
	c.MakeRoom(1 << 19)
	if _, _, err := c.metaPart.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for _, opts := range []directory.PruneOptions{{OlderThan: time.Minute, To: -1}, {To: 0}, {All: true, To: -1}} {
		if _, err := c.Prune(opts); err != nil {
			t.Error(err)
		}
	}
	for _, f := range files {
		if !cachetest.Exists(filepath.Join(dir, f)) {
			t.Errorf("%s was removed", f)
		}
	}
	others, err := c.Others()
	var got []string
	for _, o := range others {
		got = append(got, o.Path)
		if o.Why == "" {
			t.Errorf("%s: no word why", o.Path)
		}
	}
	want := slices.DeleteFunc(files, func(f string) bool { return f == "tmp/a/1" || f == "photos/1.jpg" })
	want = append(want, "tmp/a", "photos")
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Others() names\n%q, %v; want\n%q", got, err, want)
	}
}

// TestForeignersTakeRoom: when what is not ours keeps the cache from what it
// needs, it is said, once, and with a name.
func TestForeignersTakeRoom(t *testing.T) {
	dir := t.TempDir()
	openCache(t, dir, nil)
	write(t, filepath.Join(dir, "letter"), strings.Repeat("x", 3<<20))
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Budget: 2 << 20, Warnf: w.Warnf})
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 920)}
	for range 2 {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
	}
	c.MakeRoom(1)
	w.Check(t, dir, "letter", "not of imgfs")
}

// TestOddInPlace: a FIFO, a directory or a link in the place of a file costs a
// warning, never a read, and never a wait.
func TestOddInPlace(t *testing.T) {
	testenv.Slow(t)
	src, used := memBlob(cachetest.RandomBytes(5*cachetest.TestChunk, 900)), t.TempDir()
	if err := useOnce(openCache(t, used, nil)); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	for _, name := range regular(t, used) {
		if name == directory.VersionFile {
			continue
		}
		for odd, make := range map[string]func(path string) error{
			"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
			"directory": func(path string) error { return os.Mkdir(path, 0o700) },
			"link":      func(path string) error { return os.Symlink(victim, path) },
		} {
			t.Run(strings.ReplaceAll(name, "/", "-")+" "+odd, func(t *testing.T) {
				dir := t.TempDir()
				write(t, victim, string(src))
				if err := useOnce(openCache(t, dir, nil)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, name)
				remove(t, path)
				if err := make(path); err != nil {
					t.Fatal(err)
				}
				var w cachetest.Warnings
				c := openCache(t, dir, &testOptions{Warnf: w.Warnf, Budget: 1 << 30})
				for range 2 {
					// Without the ledger nothing is counted, which only prune needs.
					if err := useOnce(c); err != nil && !(name == directory.LedgerName && strings.HasPrefix(err.Error(), "prune: ")) {
						t.Error(err)
					}
				}
				if _, err := c.Prune(directory.PruneOptions{All: true, To: -1}); err != nil && name != directory.LedgerName {
					t.Error(err)
				}
				if st, err := os.Lstat(path); err != nil || st.Mode().IsRegular() {
					t.Errorf("it is %v now, %v", st, err)
				}
				if got, err := os.ReadFile(victim); !bytes.Equal(got, src) {
					t.Errorf("where the link leads there are %d bytes, %v", len(got), err)
				}
				if len(w.All) > 2 || len(w.All) == 0 && name != directory.LogName {
					t.Errorf("warnings: %q", w.All)
				}
			})
		}
	}
}

// TestHardLinksStay: a file with another name elsewhere loses its name here, and
// nothing of what is in it.
func TestHardLinksStay(t *testing.T) {
	for _, opts := range []directory.PruneOptions{{To: 0}, {All: true, To: -1}} {
		dir, copies := t.TempDir(), t.TempDir()
		c := openCache(t, dir, nil)
		if err := useOnce(c); err != nil {
			t.Fatal(err)
		}
		names := regular(t, dir)
		for _, name := range names {
			if err := os.Link(filepath.Join(dir, name), filepath.Join(copies, strings.ReplaceAll(name, "/", "-"))); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		before := treeOf(t, copies)
		c = openCache(t, dir, nil)
		if _, err := c.Prune(opts); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if directory.KindOf(name) != directory.KindSelf && cachetest.Exists(filepath.Join(dir, name)) {
				t.Errorf("%+v: %s is still there", opts, name)
			}
		}
		// The ledger says something else each time.
		space := filepath.Join(copies, directory.LedgerName)
		lines := func(s string) []string {
			return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return strings.HasPrefix(l, space) })
		}
		if after := treeOf(t, copies); !slices.Equal(lines(after), lines(before)) {
			t.Errorf("%+v: the other names had\n%sand have\n%s", opts, before, after)
		}
	}
}

// TestPartsElsewhere: a directory of which a part is a link, a mount or a file is
// refused, and nothing behind it is touched.
func TestPartsElsewhere(t *testing.T) {
	testenv.Slow(t)
	used := t.TempDir()
	if err := useOnce(openCache(t, used, nil)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"tmp", "refs", "images", "blobs", "blobs/sha256", "meta", "meta/sha256", "verified/sha256", "claims", "contents/sha256"} {
		dir, victim := t.TempDir(), t.TempDir()
		if err := useOnce(openCache(t, dir, nil)); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"1", "sha256/" + anyHex, anyHex, anyHex + ".json"} {
			write(t, filepath.Join(victim, f), "precious")
		}
		path := filepath.Join(dir, part)
		remove(t, path)
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
		before := treeOf(t, victim)
		if _, err := openTest(dir, nil); err == nil || !strings.Contains(err.Error(), path+": it is a symbolic link") {
			t.Errorf("%s: Open() = %v", part, err)
		}
		remove(t, path)
		write(t, path, "")
		if _, err := openTest(dir, nil); err == nil || !strings.Contains(err.Error(), path+": not a directory") {
			t.Errorf("%s: Open() = %v", part, err)
		}
		remove(t, path)
		if os.Geteuid() == 0 {
			mkdir(t, path, 0o700)
			unmount := testenv.BindMount(t, victim, path)
			useMounted(t, dir, part)
			unmount()
		}
		if after := treeOf(t, victim); after != before {
			t.Errorf("%s: behind it there was\n%sand is\n%s", part, before, after)
		}
	}
}

// useMounted uses a directory of which a part is a mount: it is refused, or the
// part counts as missing.
func useMounted(t *testing.T, dir, part string) {
	t.Helper()
	var w cachetest.Warnings
	c, err := openTest(dir, &testOptions{Warnf: w.Warnf})
	if err != nil {
		if !strings.Contains(err.Error(), "something is mounted there") {
			t.Errorf("%s: Open() = %v", part, err)
		}
		return
	}
	defer c.Close()
	if err := useOnce(c); err != nil {
		t.Errorf("%s: %v", part, err)
	}
	if _, err := c.Prune(directory.PruneOptions{All: true, To: -1}); err != nil {
		t.Errorf("%s: %v", part, err)
	}
	w.Check(t, dir, part, "something is mounted there")
}

// TestMovedAway: the directory that was opened is the one that is used, even if
// its path leads elsewhere.
func TestMovedAway(t *testing.T) {
	base := t.TempDir()
	dir, victim := filepath.Join(base, "cache"), filepath.Join(base, "victim")
	c := openCache(t, dir, &testOptions{Budget: 1 << 30})
	for _, f := range []string{"tmp/1", "blobs/sha256/" + anyHex, "meta/sha256/" + anyHex, "version"} {
		write(t, filepath.Join(victim, f), "precious")
	}
	if err := errors.Join(os.Rename(dir, dir+".moved"), os.Symlink(victim, dir)); err != nil {
		t.Fatal(err)
	}
	before := treeOf(t, victim)
	if err := useOnce(c); err != nil {
		t.Error(err)
	}
	if _, err := c.Prune(directory.PruneOptions{All: true, To: -1}); err != nil {
		t.Error(err)
	}
	if err := useOnce(c); err != nil {
		t.Error(err)
	}
	if after := treeOf(t, victim); after != before {
		t.Errorf("where the path leads there was\n%sand is\n%s", before, after)
	}
	if !cachetest.Exists(filepath.Join(dir+".moved", directory.Blobs, "sha256", memBlob(cachetest.RandomBytes(5*cachetest.TestChunk, 900)).Digest().Encoded())) {
		t.Error("nothing was kept in the directory that was opened")
	}
}

// TestRemovedWhileUsed: a directory that is removed by hand is made again, with
// the same care.
func TestRemovedWhileUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := openCache(t, dir, &testOptions{Warnf: t.Errorf})
	for range 2 {
		if err := useOnce(c); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, directory.VersionFile)); string(data) != "imgfs cache 1\n" {
			t.Errorf("the version file has %q, %v", data, err)
		}
		if len(regular(t, dir)) < 8 {
			t.Errorf("there are only %q", regular(t, dir))
		}
		remove(t, dir)
	}
	write(t, filepath.Join(dir, "letter"), "precious")
	c.Warnf = func(string, ...any) {}
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 930)}
	for range 2 {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
	}
	c.NoteImage(meta.Image{Name: "a", Manifest: src.Digest()})
	if got := treeOf(t, dir); strings.Count(got, "\n") != 2 {
		t.Errorf("somebody's directory in its place was used:\n%s", got)
	}
}
