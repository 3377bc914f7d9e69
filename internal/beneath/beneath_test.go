package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// both runs a test with openat2 and without.
func both(t *testing.T, test func(t *testing.T, open func(t *testing.T, path string, opts *Options) *Dir)) {
	for _, walk := range []bool{false, true} {
		if !walk && !hasOpenat2() {
			continue
		}
		t.Run(map[bool]string{false: "openat2", true: "walking"}[walk], func(t *testing.T) {
			test(t, func(t *testing.T, path string, opts *Options) *Dir {
				t.Helper()
				d, err := Open(path, opts)
				if err != nil {
					t.Fatal(err)
				}
				d.root.walk = walk
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
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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

// TestMounts: nothing is reached through a mount, of another file system or of
// the same, on a directory or on a file.
func TestMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		for _, tt := range []struct{ on, from, name string }{
			{"sub", "OUT", "sub/secret"},
			{"sub", "OUT", "sub/deep/secret"},
			{"sub/deep", "OUT", "sub/deep/secret"},
			{"sub/deep", "OUT", "sub/deep"},
			{"sub/deep/file", "OUT/secret", "sub/deep/file"},
			{"sub", "tmpfs", "sub/deep"},
		} {
			t.Run(tt.from+" on "+tt.on, func(t *testing.T) {
				p := newPlace(t)
				on, from, kind, flags := filepath.Join(p.dir, tt.on), strings.Replace(tt.from, "OUT", p.outside, 1), "", uintptr(unix.MS_BIND)
				if tt.from == "tmpfs" {
					kind, flags = "tmpfs", 0
				}
				if err := unix.Mount(from, on, kind, flags, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Unmount(on, unix.MNT_DETACH) })
				before := p.snapshot(t)
				if worked := everything(open(t, p.dir, nil), tt.name); len(worked) > 0 {
					t.Errorf("%s: %q worked", tt.name, worked)
				}
				if after := p.snapshot(t); after != before {
					t.Errorf("outside was\n%s\nand is\n%s", before, after)
				}
			})
		}
	})
}

// TestOddFiles: what is no regular file is not opened, which takes no waiting, and
// neither removed nor replaced.
func TestOddFiles(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK, "device": unix.S_IFCHR, "directory": unix.S_IFDIR} {
			t.Run(name, func(t *testing.T) {
				p := newPlace(t)
				path := filepath.Join(p.dir, "odd")
				err := error(nil)
				switch {
				case mode == unix.S_IFDIR:
					err = os.Mkdir(path, 0o700)
				case mode == unix.S_IFCHR && os.Geteuid() != 0:
					t.Skip("devices need root")
				default:
					err = unix.Mknod(path, mode|0o600, int(unix.Mkdev(1, 7))) // /dev/full
				}
				if err != nil {
					t.Fatal(err)
				}
				var told []*RefusedError
				d := open(t, p.dir, &Options{Refused: func(e *RefusedError) { told = append(told, e) }})
				for _, do := range map[string]func() error{
					"open":    func() error { _, err := d.Open("odd"); return err },
					"write":   func() error { _, err := d.OpenFile("odd", os.O_RDWR); return err },
					"create":  func() error { _, err := d.OpenFile("odd", os.O_RDWR|os.O_CREATE); return err },
					"read":    func() error { _, _, err := d.ReadFile("odd", 1); return err },
					"remove":  func() error { return d.Remove("odd") },
					"replace": func() error { return d.Rename("sub/deep/file", "odd") },
					"touch":   func() error { return d.Touch("odd", time.Now()) },
				} {
					if err := do(); err == nil {
						t.Error("it worked")
					}
				}
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != mode {
					t.Errorf("then it is %o, %v", st.Mode, err)
				}
				if _, err := d.Open("odd"); name != "socket" && name != "directory" && (!errors.Is(err, ErrNotRegular) || !errors.Is(err, fs.ErrNotExist)) {
					t.Errorf("Open() = %v; want one that says that it is not regular, and counts as missing", err)
				}
				if len(told) == 0 && name != "socket" {
					t.Error("nobody was told")
				}
			})
		}
	})
}

// TestFiles: what it is all for.
func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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

// TestForeign: a file that another user could have written counts as missing.
func TestForeign(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		for _, tt := range []struct {
			name string
			mode fs.FileMode
			uid  int
			ok   bool
		}{
			{"own", 0o600, os.Geteuid(), true},
			{"readable by all", 0o644, os.Geteuid(), true},
			{"for all to write", 0o602, os.Geteuid(), false},
			{"for the group to write", 0o660, os.Geteuid(), false},
			{"a stranger's", 0o600, 54321, false},
		} {
			p := newPlace(t)
			path := p.dir + "/file"
			write(t, path, "text")
			if err := errors.Join(os.Chown(path, tt.uid, -1), os.Chmod(path, tt.mode)); err != nil {
				if os.Geteuid() != 0 {
					continue // only root can give files away
				}
				t.Fatal(err)
			}
			_, _, err := open(t, p.dir, nil).ReadFile("file", 10)
			if tt.ok != (err == nil) || !tt.ok && (!errors.Is(err, ErrForeign) || !errors.Is(err, fs.ErrNotExist)) {
				t.Errorf("%s: ReadFile() = %v", tt.name, err)
			}
			var refused *RefusedError
			if errors.As(err, &refused) && (refused.Path != path || refused.UID != uint32(tt.uid)) {
				t.Errorf("%s: it names %s of %d", tt.name, refused.Path, refused.UID)
			}
		}
	})
}

// TestHardLinks: of a file with several names only the one named goes.
func TestHardLinks(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		d := open(t, p.dir, nil)
		for _, do := range []func() error{
			func() error { return d.Remove("linked") },
			func() error { return d.Rename("sub/deep/file", "linked") },
		} {
			if err := os.Link(p.outside+"/secret", p.dir+"/linked"); err != nil {
				t.Fatal(err)
			}
			if err := do(); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(p.outside + "/secret"); string(got) != "secret" {
				t.Errorf("the other name has %q, %v", got, err)
			}
		}
	})
}

// TestExchanged: somebody exchanges directories of the name for links, as fast as
// they can, while everything is done with it.
func TestExchanged(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		d := open(t, p.dir, nil)
		link(t, p.outside, p.dir+"/trap")
		before := p.snapshot(t)
		stop := make(chan struct{})
		var other sync.WaitGroup
		other.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Renameat2(unix.AT_FDCWD, p.dir+"/sub", unix.AT_FDCWD, p.dir+"/trap", unix.RENAME_EXCHANGE)
				}
			}
		})
		for range 3000 {
			if data, _, err := d.ReadFile("sub/secret", 100); string(data) == "secret" {
				t.Fatalf("%q was read, %v", data, err)
			}
			f, name, err := d.CreateTemp("sub", "x")
			if err == nil {
				f.Close()
				_ = d.Rename(name, "sub/secret")
				_ = d.Remove("sub/secret")
			}
			_ = d.MkdirAll("sub/new")
			_ = d.Touch("sub/secret", time.Unix(2, 0))
			_ = d.Walk("sub", func(name string, _ *unix.Stat_t) bool {
				if strings.HasSuffix(name, "secret") && !d.Exists(name) {
					return false
				}
				return true
			}, func(string, error) {})
		}
		close(stop)
		other.Wait()
		if after := p.snapshot(t); after != before {
			t.Errorf("outside was\n%s\nand is\n%s", before, after)
		}
	})
}

// TestExchangedItself: the path of a Dir comes to mean another directory; the Dir
// does not.
func TestExchangedItself(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		d := open(t, p.dir, nil)
		if err := errors.Join(os.Rename(p.dir, p.dir+".moved"), os.Symlink(p.outside, p.dir)); err != nil {
			t.Fatal(err)
		}
		before := p.snapshot(t)
		if data, _, err := d.ReadFile("sub/deep/file", 10); string(data) != "file" || err != nil {
			t.Errorf("ReadFile() = %q, %v", data, err)
		}
		if err := errors.Join(d.Rename("sub/deep/file", "secret"), d.Remove("secret"), d.MkdirAll("new")); err != nil {
			t.Error(err)
		}
		if after := p.snapshot(t); after != before {
			t.Errorf("outside was\n%s\nand is\n%s", before, after)
		}
	})
}

// TestAgain: a directory that was removed is opened again when something is to be
// made, once, and by whoever comes first.
func TestAgain(t *testing.T) {
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		again := 0
		d := open(t, p.dir, &Options{Again: func() (*os.File, error) {
			again++
			if err := os.Mkdir(p.dir, 0o700); err != nil {
				return nil, err
			}
			return os.Open(p.dir)
		}})
		if err := os.RemoveAll(p.dir); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open("sub/deep/file"); !errors.Is(err, fs.ErrNotExist) || again != 0 {
			t.Errorf("Open() = %v, opened again %d times", err, again)
		}
		var makers sync.WaitGroup
		for i := range 8 {
			makers.Go(func() {
				f, err := d.OpenFile(fmt.Sprintf("a/%d", i), os.O_RDWR|os.O_CREATE)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
			})
		}
		makers.Wait()
		if names, err := os.ReadDir(p.dir + "/a"); len(names) != 8 || err != nil || again != 1 {
			t.Errorf("%d files, %v, opened again %d times", len(names), err, again)
		}
		d.Close()
		if err := d.MkdirAll("b"); err == nil {
			t.Error("MkdirAll works after Close")
		}
	})
}

// TestWalkAround: a walk enters no link and no mount, and says what it could not
// enter.
func TestWalkAround(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	both(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
		p := newPlace(t)
		link(t, p.outside, p.dir+"/link")
		if err := unix.Mount(p.outside, p.dir+"/sub/deep", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(p.dir+"/sub/deep", unix.MNT_DETACH) })
		write(t, p.dir+"/odd\xff", "")
		var log bytes.Buffer
		err := open(t, p.dir, nil).Walk(".", func(name string, _ *unix.Stat_t) bool {
			fmt.Fprintf(&log, "%q ", name)
			return name != "closed"
		}, func(name string, err error) { fmt.Fprintf(&log, "%s: %v ", name, err) })
		if want := `"." "link" "odd\xff" "sub" "sub/deep" sub/deep: invalid cross-device link `; log.String() != want || err != nil {
			t.Errorf("Walk: %s, %v; want %s", &log, err, want)
		}
	})
}
