package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a directory below which everything is that a test makes: dir, the
// directory that a Dir is of, and outside, which it must not reach.
type place struct {
	dir, outside string
}

func newPlace(t *testing.T) place {
	t.Helper()
	base := t.TempDir()
	p := place{filepath.Join(base, "dir"), filepath.Join(base, "outside")}
	for _, d := range []string{p.dir, p.outside, p.dir + "/sub/deep", p.outside + "/deep"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"secret", "deep/secret"} {
		write(t, filepath.Join(p.outside, f), "secret")
	}
	write(t, p.dir+"/sub/deep/file", "file")
	return p
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// everyWay runs a test with openat2, without, and with what every system has.
func everyWay(t *testing.T, test func(t *testing.T, open func(t *testing.T, path string, opts *Options) *Dir)) {
	for _, way := range []struct {
		name        string
		walk, plain bool
	}{{"openat2", false, false}, {"walking", true, false}, {"plain", true, true}} {
		if !way.walk && !hasOpenat2() || !way.plain && !hasPath {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			test(t, func(t *testing.T, path string, opts *Options) *Dir {
				t.Helper()
				d, err := Open(path, opts)
				if err != nil {
					t.Fatal(err)
				}
				d.root.walk, d.root.plain = way.walk, way.plain
				t.Cleanup(func() { d.Close() })
				return d
			})
		})
	}
}

// snapshot returns all that is outside, and when it was changed.
func (p place) snapshot(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(p.outside, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// everything does with a name all that a Dir can do with one, and returns what
// worked.
func everything(d *Dir, name string) (worked []string) {
	note := func(what string, err error) {
		if err == nil {
			worked = append(worked, what)
		}
	}
	try := func(what string, f *os.File, err error) {
		note(what, err)
		if err == nil {
			f.Close()
		}
	}
	f, err := d.Open(name)
	try("open", f, err)
	f, err = d.OpenFile(name, os.O_RDWR)
	try("write", f, err)
	f, err = d.OpenFile(name, os.O_RDWR|os.O_CREATE)
	try("create", f, err)
	f, err = d.OpenDir(name, true)
	try("directory", f, err)
	f, _, err = d.CreateTemp(name, "x")
	try("temporary", f, err)
	f, err = d.Nameless(name, "x")
	try("nameless", f, err)
	_, _, err = d.ReadFile(name, 100)
	note("read", err)
	note("mkdir", d.MkdirAll(name+"/made"))
	note("touch", d.Touch(name, time.Unix(1, 0)))
	note("walk", d.Walk(name, func(string, *unix.Stat_t) bool { return true }, func(string, error) {}))
	note("writable", d.Writable(name))
	if f, spare, err := d.CreateTemp(".", "spare"); err == nil {
		f.Close()
		note("rename to", d.Rename(spare, name))
	}
	note("rename from", d.Rename(name, "moved"))
	note("remove", d.Remove(name))
	return worked
}

// TestLinks: a link at any level of a name is not followed, whatever is done.
func TestLinks(t *testing.T) {
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		for _, tt := range []struct{ at, to, name string }{
			{"a", "OUT", "a"},
			{"a", "OUT", "a/secret"},
			{"a", "OUT", "a/deep/secret"},
			{"a", "OUT/secret", "a"},
			{"a", "../outside", "a/secret"},
			{"a", "OUT/new", "a"},
			{"sub/a", "OUT", "sub/a/secret"},
			{"sub/deep/a", "OUT/secret", "sub/deep/a"},
			{"sub/deep/a", "OUT", "sub/deep/a/secret"},
			{"a", "sub/deep", "a/file"}, // inside, too
			{"a", "sub/deep/file", "a"},
			{"a", ".", "a/sub/deep/file"},
		} {
			t.Run(tt.at+" to "+tt.to, func(t *testing.T) {
				p := newPlace(t)
				link(t, strings.Replace(tt.to, "OUT", p.outside, 1), filepath.Join(p.dir, tt.at))
				before := p.snapshot(t)
				if worked := everything(open(t, p.dir, nil), tt.name); len(worked) > 0 {
					t.Errorf("%s: %q worked", tt.name, worked)
				}
				if after := p.snapshot(t); after != before {
					t.Errorf("outside was\n%s\nand is\n%s", before, after)
				}
				if got, err := os.ReadFile(p.dir + "/sub/deep/file"); string(got) != "file" {
					t.Errorf("the file is %q, %v", got, err)
				}
			})
		}
	})
}

// TestNames: no name leads out by itself.
func TestNames(t *testing.T) {
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		d := open(t, p.dir, nil)
		before := p.snapshot(t)
		for _, name := range []string{"..", "../outside/secret", "sub/../../outside/secret", p.outside + "/secret", "/", "", "sub/", "sub//deep", "./sub", "sub\x00", "sub/deep/.."} {
			if worked := everything(d, name); len(worked) > 0 {
				t.Errorf("%q: %q worked", name, worked)
			}
		}
		if after := p.snapshot(t); after != before {
			t.Errorf("outside was\n%s\nand is\n%s", before, after)
		}
	})
}

// TestFiles: what it is all for.
func TestFiles(t *testing.T) {
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		d := open(t, p.dir, &Options{Refused: func(e *RefusedError) { t.Errorf("refused: %v", e) }}).Sub("own")
		f, name, err := d.CreateTemp("tmp", "new-")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("hello"); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, "tmp/new-") || !d.Is(f, name) || f.Name() != filepath.Join(p.dir, "own", name) {
			t.Errorf("CreateTemp() = %q, at %q", name, f.Name())
		}
		if err := d.Rename(name, "a/b/c"); err != nil || d.Is(f, name) || !d.Is(f, "a/b/c") || !d.Exists("a/b/c") || d.Exists(name) {
			t.Errorf("Rename() = %v", err)
		}
		data, st, err := d.ReadFile("a/b/c", 5)
		if string(data) != "hello" || err != nil || st.Mode&0o7777 != 0o600 {
			t.Errorf("ReadFile() = %q, %v", data, err)
		}
		if _, _, err := d.ReadFile("a/b/c", 4); !errors.Is(err, ErrTooBig) {
			t.Errorf("ReadFile() = %v, want %v", err, ErrTooBig)
		}
		when := time.Unix(1_000_000_000, 5)
		if err := d.Touch("a/b/c", when); err != nil {
			t.Error(err)
		}
		if st, err := d.Stat("a/b/c"); err != nil || !time.Unix(st.Mtim.Unix()).Equal(when) {
			t.Errorf("Stat() = %v, %v", st, err)
		}
		var seen []string
		if err := d.Walk(".", func(name string, _ *unix.Stat_t) bool { seen = append(seen, name); return true }, nil); err != nil || !slices.Equal(seen, []string{".", "a", "a/b", "a/b/c", "tmp"}) {
			t.Errorf("Walk() visits %q, %v", seen, err)
		}
		n, err := d.Nameless("tmp", "x")
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if entries, err := os.ReadDir(p.dir + "/own/tmp"); len(entries) > 0 || err != nil {
			t.Errorf("a file without a name has one: %v, %v", entries, err)
		}
		if st, err := n.Stat(); err != nil || !st.Mode().IsRegular() {
			t.Errorf("it is %v, %v", st, err)
		}
		if err := d.Remove("a/b/c"); err != nil || d.Exists("a/b/c") {
			t.Errorf("Remove() = %v", err)
		}
		if err := d.Remove("a/b/c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Remove() = %v again", err)
		}
	})
}
