package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
