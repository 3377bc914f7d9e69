//go:build linux

package treecopy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	l "github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// TestExchanged: somebody else exchanges a directory and a file of the copy, again and
// again, for symlinks that lead out. Nothing outside is written or gets attributes.
func TestExchanged(t *testing.T) {
	testenv.Slow(t)
	members := []l.Member{l.Dir("d", l.Mode(0o770), l.MTime(1, 0)), l.Dir("d/sub", l.Mode(0o777), l.MTime(2, 0))}
	for i := range 20 {
		name := fmt.Sprintf("d/sub/%02d", i)
		members = append(members, l.File(name, "of the image", l.MTime(3, 0)), l.Link(name+"link", name, l.MTime(3, 0)),
			l.Symlink(name+"symlink", "x", l.MTime(4, 0)), l.Fifo(name+"fifo", l.Mode(0o666), l.MTime(5, 0)), l.Dir(name+"dir", l.Mode(0o777), l.MTime(6, 0)))
	}
	tree := membersTree(t, members...)
	n, err := tree.Lookup("/d", false)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{HardLinks: true, Attributes: os.Geteuid() == 0, Xattrs: true}
	for _, named := range []bool{false, true} {
		c, outside := newCopyTest(t), t.TempDir()
		for _, err := range []error{
			os.MkdirAll(c.path+"/d/sub", 0o755), os.WriteFile(c.path+"/d/sub/07", nil, 0o644), os.WriteFile(outside+"/07", []byte("outside"), 0o600),
			os.Symlink(outside, c.path+"/toDir"), os.Symlink(outside+"/07", c.path+"/toFile"),
			os.Chtimes(outside, time.Unix(1e9, 0), time.Unix(1e9, 0)), os.Chtimes(outside+"/07", time.Unix(1e9, 0), time.Unix(1e9, 0)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		// The directory itself, by whatever name it has.
		sub, err := os.Open(c.path + "/d/sub")
		if err != nil {
			t.Fatal(err)
		}
		var stop atomic.Bool
		ended := make(chan int)
		go func() {
			exchanged := 0
			exchange := func(name string, dir int, with string) {
				if unix.Renameat2(int(c.dir.Fd()), name, dir, with, unix.RENAME_EXCHANGE) == nil {
					exchanged++
				}
			}
			for !stop.Load() {
				exchange("toDir", int(c.dir.Fd()), "d/sub")
				exchange("toFile", int(sub.Fd()), "07")
			}
			sub.Close()
			ended <- exchanged
		}()
		refused, passed := 0, 0
		opts.Failed = func(err error) {
			if errors.Is(err, ErrNotDirectory) {
				refused++
			}
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); passed++ {
			copier := New(&opts)
			copier.named = named
			if err := copier.Copy(t.Context(), tree, "/d", n, c.dir, "d"); err != nil {
				t.Fatal(err)
			}
		}
		stop.Store(true)
		if exchanged := <-ended; exchanged < 10 || refused == 0 || refused == passed {
			t.Errorf("exchanged %d times; of %d copies %d were refused: the test tests nothing", exchanged, passed, refused)
		}
		var names []string
		_ = filepath.WalkDir(outside, func(p string, _ os.DirEntry, _ error) error {
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil || st.Mtim.Sec != 1e9 || st.Nlink != 1 && st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&0o077 != 0 && p != outside {
				t.Errorf("%s: error %v, mode %o, %d links, time %d", p, err, st.Mode, st.Nlink, st.Mtim.Sec)
			}
			names = append(names, strings.TrimPrefix(p, outside))
			return nil
		})
		if b, err := os.ReadFile(outside + "/07"); strings.Join(names, " ") != " /07" || string(b) != "outside" || err != nil {
			t.Errorf("outside there is %q; 07 is %q, error %v", names, b, err)
		}
	}
}
