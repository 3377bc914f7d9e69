//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	// viewFiles is how many files of a view are there to be written.
	viewFiles = 400
	// viewSize is the size of each.
	viewSize = 20_000
)

// viewFile is what a file of the image has.
func viewFile(i int) string {
	return strings.Repeat(fmt.Sprintf("file %d\n", i), viewSize/7+1)[:viewSize]
}

// viewLayer has the files.
func viewLayer(a *labimage.Archive) error {
	errs := []error{a.Dir("files")}
	for i := range viewFiles {
		errs = append(errs, a.File(fmt.Sprint("files/", i), viewFile(i)))
	}
	return errors.Join(append(errs, a.File("noise", noiseText(3<<20)))...)
}

// fuseOverlays are the processes of fuse-overlayfs that write to a directory.
func fuseOverlays(upper string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/fd/5") // as it is given to them
	for _, name := range names {
		if to, err := os.Readlink(name); err != nil || to != upper {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(name, "/")[2]); err == nil && !slices.Contains(processes(""), pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// below is where the image of a view is mounted.
func (s *sandbox) below() string {
	s.t.Helper()
	mounts := mountsBelow(s.runtime())
	if len(mounts) != 1 {
		s.t.Fatalf("mounted below %s: %q, want one image", s.runtime(), mounts)
	}
	return mounts[0]
}

// nothingOf checks that both mounts of a view, all their processes and what was made for
// them are gone, soon.
func (s *sandbox) nothingOf(dir, upper string) {
	s.t.Helper()
	s.endSoon(dir)
	if !eventually(soon, func() bool { return len(mountsBelow(s.dir)) == 0 }) {
		s.t.Errorf("still mounted: %q", mountsBelow(s.dir))
	}
	if !eventually(soon, func() bool { return len(fuseOverlays(upper)) == 0 }) {
		s.t.Errorf("fuse-overlayfs still runs: %v", fuseOverlays(upper))
	}
	var left []os.DirEntry
	if !eventually(soon, func() bool {
		var err error
		left, err = os.ReadDir(filepath.Join(s.runtime(), "imgfs"))
		return err == nil && len(left) == 0
	}) {
		s.t.Errorf("%v is left", left)
	}
}

// TestOverlaySurvives kills servers under readers and writers of a writable view: none of
// them notices. Then it unmounts in all ways.
func TestOverlaySurvives(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	need(t, "fuse-overlayfs", "fusermount3")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, viewLayer)
	for name, s := range users(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			dir, upper := s.mountpoint(), filepath.Join(s.dir, "up")
			s.ok("mount", "--overlay", upper, image, dir)
			s.writtenUnderKills(dir, upper)
			s.ok("umount", dir)
			s.nothingOf(dir, upper)
			s.viewEnds(image, upper)
		})
	}
}

// writtenUnderKills kills the server of a view five times while it is read and written.
func (s *sandbox) writtenUnderKills(dir, upper string) {
	s.t.Helper()
	stop, count := filepath.Join(s.dir, "stop"), filepath.Join(s.dir, "count")
	want := writeFile(s.t.(*testing.T), filepath.Join(publicDir(s.t), "want"), noiseText(3<<20))
	_, read, reads := s.waiter("sh", "-c", `while [ ! -e "$2" ]; do dd if="$0/noise" iflag=direct bs=64k status=none | cmp - "$1" || exit 1; ls -lR "$0" >"$2.ls" || exit 1; done`, dir, want, stop)
	_, wrote, writes := s.waiter("sh", "-c", `i=0; while [ ! -e "$1" ] && [ $i -lt "$3" ]; do
		printf +$i >>"$0/files/$i" && echo new >"$0/files/new-$i" || exit 1
		i=$((i + 1)); echo $i >"$2.next" && mv "$2.next" "$2" || exit 1; sleep 0.02; done`, dir, stop, count, fmt.Sprint(viewFiles))
	written := func() (n int) {
		text, _ := os.ReadFile(count)
		n, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return n
	}
	for range 5 {
		s.killed(dir)
		if before := written(); before < viewFiles && !eventually(backSoon, func() bool { return written() > before }) {
			s.t.Fatalf("no more files are written %d of them\n%s", before, s.logOf())
		}
	}
	n := written()
	if n == viewFiles {
		s.t.Log("all files were written before the last kill")
	}
	writeFile(s.t.(*testing.T), stop, "")
	for _, p := range []struct {
		what string
		done chan error
		out  fmt.Stringer
	}{{"the reader", reads, read}, {"the writer", writes, wrote}} {
		if err := ends(s.t.(*testing.T), p.what, p.done); err != nil {
			s.t.Errorf("%s: %v\n%s", p.what, err, p.out)
		}
	}
	n = written()
	script := `cd "$0" && for i in $(seq 0 $(($1 - 1))); do cat $i; echo; done`
	r := s.finish(s.program("timeout", "60", "sh", "-c", script, filepath.Join(dir, "files"), fmt.Sprint(viewFiles)))
	var all strings.Builder
	for i := range viewFiles {
		all.WriteString(viewFile(i))
		if i < n {
			fmt.Fprint(&all, "+", i)
		}
		all.WriteString("\n")
	}
	if r.code != 0 || r.stdout != all.String() {
		s.t.Errorf("%d files were written, and they are others then: exit code %d, %s", n, r.code, r.stderr)
	}
	// What was written, and nothing else, is in the directory.
	if entries, err := os.ReadDir(filepath.Join(upper, "upper", "files")); len(entries) != 2*n || err != nil {
		s.t.Errorf("the upper directory has %d files, %v, want %d", len(entries), err, 2*n)
	}
	if m := s.stats(dir); m.Dir != dir || m.Recovery.Restarts != 5 {
		s.t.Errorf("stats say %+v", about(m))
	}
}

// viewEnds unmounts views in all ways, each after its server was killed.
func (s *sandbox) viewEnds(image, upper string) {
	s.t.Helper()
	program := func(name string, args ...string) func(dir string) {
		return func(dir string) {
			s.t.Helper()
			if r := s.finish(s.program("timeout", append([]string{"20", name}, append(args, dir)...)...)); r.code != 0 {
				s.t.Errorf("%s %q: exit code %d\n%s", name, args, r.code, r.stderr)
			}
		}
	}
	imgfs := imgfsBinary(s.t)
	ofImage := func(end func(dir string)) func(string) { return func(string) { end(s.below()) } }
	ways := map[string]func(dir string){
		"imgfs umount":           program(imgfs, "umount"),
		"imgfs umount -l":        program(imgfs, "umount", "-l"),
		"imgfs umount, image":    ofImage(program(imgfs, "umount")),
		"imgfs umount -l, image": ofImage(program(imgfs, "umount", "-l")),
		"SIGTERM":                func(dir string) { s.signal(s.daemon(dir), syscall.SIGTERM) },
		"SIGTERM, holder":        func(dir string) { s.signal(s.holder(dir), syscall.SIGTERM) },
		"no server":              s.without(program(imgfs, "umount")),
		"no server, -l":          s.without(program(imgfs, "umount", "-l")),
		"both killed":            func(dir string) { kill9(dir); s.waitGone(dir); s.ok("umount", dir) },
		"both killed, mount":     func(dir string) { kill9(dir); s.waitGone(dir); s.ok("mount", image, dir); s.ok("umount", dir) },
		"both killed, -l":        func(dir string) { kill9(dir); s.waitGone(dir); s.ok("umount", "-l", dir) },
	}
	if s.uid == 0 {
		ways["umount"], ways["umount -l"], ways["umount -l, image"] = program("umount"), program("umount", "-l"), ofImage(program("umount", "-l"))
	} else {
		ways["fusermount3 -u"], ways["fusermount3 -u -z, image"] = program("fusermount3", "-u"), ofImage(program("fusermount3", "-u", "-z"))
		ways["fuse-overlayfs killed"] = func(dir string) { s.killedOverlay(dir, upper) }
	}
	dir := s.mountpoint()
	defer func() {
		if s.t.Failed() {
			s.t.Log(s.logOf())
		}
	}()
	for why, end := range ways {
		s.ok("mount", "--overlay", upper, image, dir)
		s.t.Logf("%s: mounted: %q", why, mountsBelow(s.dir))
		s.killed(dir)
		end(dir)
		if strings.HasPrefix(why, "no server") { // a directory that nobody could remove goes at the next mount
			s.waitGone(dir)
			s.ok("umount", s.mountMade(image))
		}
		s.nothingOf(dir, upper)
		if s.t.Failed() {
			s.t.Fatalf("at %s", why)
		}
	}
	made := strings.TrimSuffix(s.ok("mount", "-q", "--overlay", upper, image).stdout, "\n")
	s.killed(made)
	s.ok("umount", made)
	missingSoon(s.t.(*testing.T), "umount", made)
	s.nothingOf(made, upper)
}

// killedOverlay kills fuse-overlayfs: its view is dead, and the image is not.
func (s *sandbox) killedOverlay(dir, upper string) {
	s.t.Helper()
	pids := fuseOverlays(upper)
	if len(pids) != 1 {
		s.t.Fatalf("processes of fuse-overlayfs: %v, want one", pids)
	}
	s.signal(pids[0], syscall.SIGKILL)
	if !eventually(10*time.Second, func() bool { return s.finish(s.program("timeout", "20", "stat", "-f", dir)).code != 0 }) {
		s.t.Error("the view is alive")
	}
	s.holds(filepath.Join(s.below(), "noise"), noiseText(3<<20))
	s.signal(s.daemon(dir), syscall.SIGKILL)
	s.holds(filepath.Join(s.below(), "noise"), noiseText(3<<20))
	s.ok("umount", dir)
}
