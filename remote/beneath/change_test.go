package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
)

// TestForeign: a file that another user could have written counts as missing.
func TestForeign(t *testing.T) {
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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

// TestExchangedItself: the path of a Dir comes to mean another directory; the Dir
// does not.
func TestExchangedItself(t *testing.T) {
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
