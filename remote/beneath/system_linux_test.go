package beneath

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMounts: nothing is reached through a mount, of another file system or of
// the same, on a directory or on a file.
func TestMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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

// TestExchanged: somebody exchanges directories of the name for links, as fast as
// they can, while everything is done with it.
func TestExchanged(t *testing.T) {
	testenv.Slow(t)
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
		rounds := 3000
		if testing.Short() {
			rounds = 300
		}
		for range rounds {
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

// TestWalkAround: a walk enters no link and no mount, and says what it could not
// enter.
func TestWalkAround(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	everyWay(t, func(t *testing.T, open func(*testing.T, string, *Options) *Dir) {
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
