//go:build linux

package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// TestFarTimes compares what the commands print for times that have no date with the
// programs that they are like, in a file system that takes such times.
func TestFarTimes(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	need(t, "ls", "stat", "find")
	t.Setenv("TZ", "UTC")
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	dir, err := os.MkdirTemp("/dev/shm", "imgfs-test-")
	if err != nil {
		t.Skip("no /dev/shm:", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	times := map[string]int64{"first": math.MinInt64, "last": math.MaxInt64, "old": -67768040609740801, "oldest": -67768040609740800, "newest": 67768036191676799, "new": 67768036191676800}
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		for name, sec := range times {
			if err := a.File(name, "", labimage.ModTime(time.Unix(sec, 0))); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, sec := range times {
		path := writeFile(t, filepath.Join(dir, name), "")
		var st unix.Stat_t
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: sec}, {Sec: sec}}, 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(path, &st); err != nil || st.Mtim.Sec != sec {
			t.Skipf("/dev/shm keeps %d as %d, error %v", sec, st.Mtim.Sec, err)
		}
	}
	const date = "%t|%TY|%T+|%TT|%T@|%TS|%Ts|%TH|%Tc\n"
	for name, sec := range times {
		for _, c := range []struct{ program, args, rest string }{
			{"ls", "-og", ""}, {"ls", "-og --full-time", ""}, {"ls", "-og --time-style=+%Y", ""}, {"stat", "-c %y,%Y", ""}, {"find", "", "-printf " + date}, {"find", "", "-ls"},
		} {
			if c.program == "find" && name == "newest" { // whose year is negative there
				continue
			}
			args := strings.Fields(c.args)
			rest := strings.SplitN(c.rest, " ", 2)
			if c.rest == "" {
				rest = nil
			}
			want := tool(t, c.program, append(append(args, filepath.Join(dir, name)), rest...)...)
			got := succeed(t, append(append([]string{c.program, "--cache-dir", t.TempDir()}, append(args, "oci:"+layout, name)...), rest...)...)
			if want = strings.ReplaceAll(want, dir+"/", ""); c.rest == "-ls" { // the trees have other owners
				got, want = afterOwners(got), afterOwners(want)
			}
			if got != want {
				t.Errorf("%s %s %s of %d: got\n%swant\n%s", c.program, c.args, c.rest, sec, got, want)
			}
		}
		if got := succeed(t, "tree", "-D", "--cache-dir", t.TempDir(), "oci:"+layout); strings.Contains(got, "292277026596") {
			t.Errorf("tree: got\n%s", got)
		}
	}
}

// afterOwners returns what follows the owners in a line of find -ls.
func afterOwners(line string) string {
	_, rest, _ := strings.Cut(line, "-rw-r--r--")
	return strings.Join(strings.Fields(rest)[3:], " ")
}
