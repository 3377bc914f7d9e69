//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// A profiled image has a program of some files in two layers among others that nobody reads,
// and other contents in each version of it.
type profiled struct {
	reg    *registrytest.Server
	images []string // versions, all of one repository
}

// programFiles are what the program reads, in order.
var programFiles = []string{"bin/program", "lib/libone.so", "etc/program.conf", "lib/libtwo.so", "share/data"}

func newProfiled(t *testing.T, versions int) *profiled {
	t.Helper()
	p := &profiled{reg: registrytest.New(t, &registrytest.Options{Writable: true})}
	for v := range versions {
		layout := filepath.Join(t.TempDir(), "layout")
		noise := func(i, size int) string { return seededNoise(byte(16*v+i+1), size) }
		desc, err := labimage.Write(layout, func(a *labimage.Archive) error {
			return errors.Join(a.Dir("bin"), a.Dir("lib"), a.Dir("etc"), a.Dir("share"),
				a.File("bin/program", noise(0, 1<<20)), a.File("share/unread", noise(1, 8<<20)), a.File("lib/libone.so", noise(2, 2<<20)))
		}, func(a *labimage.Archive) error {
			return errors.Join(a.File("share/more", noise(3, 8<<20)), a.File("etc/program.conf", "version "+fmt.Sprint(v)), a.File("lib/libtwo.so", noise(4, 1<<20)),
				a.File("share/data", noise(5, 3<<20)), a.File("share/rest", noise(6, 8<<20)))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.reg.PushLayout(layout, "app"); err != nil {
			t.Fatal(err)
		}
		tag := fmt.Sprintf("v%d", v)
		p.reg.Tag("app", tag, desc.Digest)
		p.images = append(p.images, p.reg.Host()+"/app:"+tag)
	}
	return p
}

// start reads what the program reads.
func (s *sandbox) start(dir string) {
	s.t.Helper()
	for _, name := range programFiles {
		if _, err := os.ReadFile(filepath.Join(dir, name)); err != nil {
			s.t.Error(err)
		}
	}
}

// forecast returns what a mount has fetched by its profile, when it has come to rest.
func (s *sandbox) forecast(dir string) (last image.ForecastStats) {
	s.t.Helper()
	same := 0
	if !eventually(20*time.Second, func() bool {
		now := s.stats(dir).Profile
		if same++; now != last {
			same, last = 0, now
		}
		return same >= 5 && last.State != image.ForecastRunning
	}) {
		s.t.Errorf("it does not come to rest: %+v", last)
	}
	return last
}

// profiles returns the starts that are noted of an image, when there are as many.
func (s *sandbox) profiles(img string, starts int) (doc profileDoc) {
	s.t.Helper()
	if !eventually(10*time.Second, func() bool {
		r := s.run("profile", "show", "--json", img)
		if r.code != 0 {
			return starts == 0
		}
		doc = profileDoc{}
		if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
			s.t.Fatal(err)
		}
		return len(doc.Starts) == starts
	}) {
		s.t.Errorf("%s: %d starts are noted, want %d", img, len(doc.Starts), starts)
	}
	return doc
}

// noteAll has a mount of an image note all that is in it, returns that, and leaves no bytes
// of it in the cache.
func (s *sandbox) noteAll(img string) dump {
	s.t.Helper()
	dir := s.mount(img)
	s.start(dir)
	all := dumpOf(s.t, s.account, dir)
	s.umount(dir)
	s.profiles(img, 1)
	s.dropBlobs()
	return all
}

// TestProfile: what is read after one mount is fetched by the next one, of another tag with
// other layers, before it is read, and little else.
func TestProfile(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 2)
	s := newSandbox(t)
	dir := s.mount(p.images[0])
	if got := s.forecast(dir); got.Files+int(got.Fetched) > 0 {
		t.Errorf("of a new repository: %+v", got)
	}
	s.start(dir)
	s.umount(dir)
	doc := s.profiles(p.images[0], 1)
	if len(doc.Starts) == 1 && (doc.Starts[0].Files != len(programFiles) || doc.Starts[0].Bytes < 7<<20 || doc.Starts[0].Bytes > 8<<20 || doc.Starts[0].Runs != 1) {
		t.Errorf("noted: %+v", doc.Starts[0])
	}
	// The indexes of the other tag are there, as with an index repository, and no bytes.
	s.ok("index", p.images[1])
	s.dropBlobs()
	dir = s.mount(p.images[1])
	got := s.forecast(dir)
	if got.State != image.ForecastWaiting || got.Files != len(programFiles) || got.Fetched < 1<<20 || got.Used != 0 {
		t.Errorf("before anything is read: %+v", got)
	}
	before := s.stats(dir).Total
	s.start(dir)
	after := s.stats(dir)
	if n := after.Total.Fetched - before.Fetched; n > 9<<20-got.Fetched {
		t.Errorf("%d bytes had to be fetched for readers", n)
	}
	if got := after.Profile; got.Used < got.Fetched*8/10 {
		t.Errorf("of %d bytes that were expected %d were read", got.Fetched, got.Used)
	}
	s.umount(dir)
	if doc := s.profiles(p.images[1], 1); doc.Starts[0].Runs != 2 {
		t.Errorf("noted: %+v", doc.Starts[0])
	}
}

// TestProfileOff: --profile=off notes and fetches nothing, and neither does an image that
// lies here.
func TestProfileOff(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	dir := s.mount(p.images[0], "--profile=off")
	s.start(dir)
	s.umount(dir)
	s.fails(1, []string{"nothing was noted of " + p.reg.Host() + "/app"}, "profile", "show", p.images[0])
	_, layout := publish(t, p.reg, small)
	dir = s.mount("oci:" + layout)
	if got := s.stats(dir).Profile; got != (image.ForecastStats{}) {
		t.Errorf("of a layout: %+v", got)
	}
	s.umount(dir)
	s.fails(1, []string{"is on this machine"}, "profile", "show", "oci:"+layout)
}

// TestProfileFiles: a profile goes from one machine to another, by import or for one mount.
func TestProfileFiles(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	s.noteStart(p.images[0])
	file := filepath.Join(t.TempDir(), "profile")
	exported := s.ok("profile", "export", p.images[0]).stdout
	if err := os.WriteFile(file, []byte(exported), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.ok("profile", "show", p.images[0]); !strings.Contains(r.stdout, "/share/data") {
		t.Errorf("show: %s", r.stdout)
	}
	if r := s.ok("profile", "show", "--files", p.images[0]); strings.Count(r.stdout, "\n") < 1+len(programFiles) || !strings.Contains(r.stdout, "/etc/program.conf") {
		t.Errorf("show --files: %s", r.stdout)
	}
	s.ok("profile", "rm", p.images[0])
	s.fails(1, []string{"nothing was noted"}, "profile", "export", p.images[0])

	s.dropBlobs()
	dir := s.mount(p.images[0], "--profile="+file)
	if got := s.forecast(dir); got.Fetched < 1<<20 {
		t.Errorf("by a file: %+v", got)
	}
	s.umount(dir)
	s.ok("profile", "import", p.images[0], file)
	if again := s.ok("profile", "export", p.images[0]).stdout; again != exported {
		t.Errorf("what was imported is\n%s\nand was\n%s", again, exported)
	}
	s.dropBlobs()
	dir = s.mount(p.images[0])
	if got := s.forecast(dir); got.Fetched < 1<<20 {
		t.Errorf("after import: %+v", got)
	}
	s.umount(dir)

	_, layout := publish(t, p.reg, small)
	dir = s.mountpoint()
	if r := s.ok("mount", "--profile="+file, "oci:"+layout, dir); !strings.Contains(r.stderr, "the profile is not used") {
		t.Errorf("mounting what lies here by a profile says %q", r.stderr)
	}
	s.umount(dir)
}

// TestProfileHostile: profiles of other images, of too much, and of nothing that is one,
// harm no reader.
func TestProfileHostile(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	dir := s.mount(p.images[0])
	s.start(dir)
	want := dumpOf(t, s.account, dir)
	s.umount(dir)
	file := filepath.Join(t.TempDir(), "profile")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"format":"imgfs profile 1","starts":[` + strings.Repeat(`{"runs":1},`, 1_000_000) + `{"runs":1}]}`)
	s.fails(1, []string{"no profile of imgfs", "8388608"}, "profile", "import", p.images[0], file)
	s.fails(1, []string{"no profile of imgfs"}, "mount", "--profile="+file, p.images[0], s.mountpoint())
	write("not JSON")
	s.fails(1, []string{file, "no profile of imgfs"}, "mount", "--profile="+file, p.images[0], s.mountpoint())
	s.fails(1, []string{"no such file"}, "mount", "--profile="+file+"x", p.images[0], s.mountpoint())

	// Directories, links, what is not there, what lies behind the end, the same very often.
	var reads []string
	for range 8_000 {
		reads = append(reads, "[6,0,1,0,100]")
	}
	write(`{"format":"imgfs profile 1","starts":[{"last":"2026-11-30T12:00:00Z","runs":9,"paths":["/bin","/nowhere","/etc/program.conf","/../../etc/passwd","/bin/../bin/program","/share/data","/share/unread"],` +
		`"reads":[[0,0,1,0,100],[1,0,1,0,100],[2,1099511627776,1,0,100],[3,0,1,0,100],[4,0,1,0,100],[5,1000000,9,0,100],` + strings.Join(reads, ",") + `]}]}`)
	s.dropBlobs()
	dir = s.mount(p.images[0], "--profile="+file)
	if got := s.forecast(dir); got.State == image.ForecastFailed || got.Fetched > 9<<20 {
		t.Errorf("got %+v", got)
	}
	compare(t, "by a hostile profile", dumpOf(t, s.account, dir), "first", want)
	s.umount(dir)
}

// TestProfileGuess: of a program that nobody has started before the interpreter and the
// libraries that its file names are fetched when it is read, for a script those of its
// interpreter.
func TestProfileGuess(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	program, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Skip(err)
	}
	libraries, err := file.ImportedLibraries()
	if err != nil || len(libraries) == 0 {
		t.Skipf("/bin/sh needs %q, %v", libraries, err)
	}
	const size = 600 << 10
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, func(a *labimage.Archive) error {
		errs := []error{a.Dir("usr"), a.Dir("usr/bin"), a.Dir("usr/lib"), a.File("unread", seededNoise(9, 8<<20))}
		for i, name := range libraries {
			errs = append(errs, a.File("usr/lib/"+name+".0", seededNoise(byte(i), size)), a.Symlink("usr/lib/"+name, name+".0"))
		}
		return errors.Join(append(errs, a.File("rest", seededNoise(10, 8<<20)))...)
	}, func(a *labimage.Archive) error {
		return errors.Join(a.File("usr/bin/tool", string(program), labimage.Mode(0o755)), a.File("usr/bin/script", "#!/usr/bin/env tool\n", labimage.Mode(0o755)))
	})
	for _, name := range []string{"usr/bin/tool", "usr/bin/script"} {
		s := newSandbox(t)
		s.ok("index", image)
		s.dropBlobs()
		dir := s.mount(image)
		if _, err := os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
		want := int64(len(libraries)) * size * 9 / 10 // how far a range goes is not known to the byte
		if !eventually(20*time.Second, func() bool { return s.stats(dir).Profile.Fetched >= want }) {
			t.Errorf("after %s was read: %+v, of %d libraries of 600 KiB", name, s.stats(dir).Profile, len(libraries))
		}
		if got := s.forecast(dir); got.Fetched > want+4<<20 {
			t.Errorf("after %s was read: %+v, of %d libraries of 600 KiB", name, got, len(libraries))
		}
		s.umount(dir)
	}
}

// TestProfileRun: imgfs run notes what is read, and goes by it, as a mount does.
func TestProfileRun(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(runnables(t)["busybox"], "app"); err != nil {
		t.Fatal(err)
	}
	img := reg.Host() + "/app:" + labimage.Tag
	s := runSandbox(t, thisUser())
	s.ok("run", img, "true")
	s.profiles(img, 1)
	s.dropBlobs()
	s.ok("run", img, "true")
	if doc := s.profiles(img, 1); len(doc.Starts) == 1 && doc.Starts[0].Runs != 2 {
		t.Errorf("noted: %+v", doc.Starts[0])
	}
}

// TestProfileRegistryDies: a registry that dies while what is expected is being fetched ends
// that, and readers go on when it is back.
func TestProfileRegistryDies(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	want := s.noteAll(p.images[0])
	p.reg.Inject(registrytest.Blob, func(n int) registrytest.Fault {
		if n < 2 {
			return nil
		}
		return registrytest.Status(500)
	})
	dir := s.mount(p.images[0], "--read-timeout=2s", "--retries=2")
	if got := s.forecast(dir); got.State != image.ForecastFailed {
		t.Errorf("got %+v", got)
	}
	p.reg.Inject(registrytest.Blob, nil)
	compare(t, "after an outage", dumpOf(t, s.account, dir), "first", want)
	s.umount(dir)
}

// TestProfileSmallCache: a cache that is smaller than what is expected is not filled with it.
func TestProfileSmallCache(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	want := s.noteAll(p.images[0])
	dir := s.mount(p.images[0], "--cache-size=4M")
	if got := s.forecast(dir); got.Fetched > 2<<20 {
		t.Errorf("of a cache of 4 MiB it takes %d bytes", got.Fetched)
	}
	compare(t, "with a small cache", dumpOf(t, s.account, dir), "first", want)
	s.umount(dir)
}

// TestProfileFullDisk: on a disk that does not take what is expected no more of it is fetched
// than where nobody reads, and readers are not harmed.
func TestProfileFullDisk(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("it takes root to mount a small disk")
	}
	p := newProfiled(t, 1)
	s := newSandbox(t)
	want := s.noteAll(p.images[0])
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	if err := os.CopyFS(disk, os.DirFS(s.cache)); err != nil {
		t.Fatal(err)
	}
	dir := s.mount(p.images[0], "--cache-dir="+disk, "--cache-size=0")
	if got := s.forecast(dir); got.Fetched > 16<<20 {
		t.Errorf("got %+v", got)
	}
	compare(t, "on a full disk", dumpOf(t, s.account, dir), "first", want)
	s.umount(dir)
}
