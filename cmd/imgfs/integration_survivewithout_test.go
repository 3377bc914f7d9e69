//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSurviveOffline kills servers of mounts whose registry is gone, and whose cache has
// been pruned or removed since.
func TestSurviveOffline(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	for _, flags := range [][]string{{"--offline"}, nil} {
		for name, lose := range map[string]func(s *sandbox) (content bool){
			"as it was": func(*sandbox) bool { return true },
			"pruned":    func(s *sandbox) bool { s.ok("cache", "prune", "--all"); return false },
			"removed": func(s *sandbox) bool {
				if err := os.RemoveAll(s.cache); err != nil {
					s.t.Error(err)
				}
				return false
			},
		} {
			t.Run(fmt.Sprint(name, flags), func(t *testing.T) {
				reg := registrytest.New(t, nil)
				image, _ := publish(t, reg, threeLayers()...)
				s := newSandbox(t)
				s.ok("index", "--fetch", image)
				dir := s.mount(image, flags...)
				want := s.finish(s.program("ls", "-lR", dir)).stdout
				reg.Close()
				content := lose(s)
				for range 2 {
					s.killed(dir)
					if got := s.finish(s.program("timeout", "20", "ls", "-lR", dir)); got.stdout != want || want == "" {
						t.Errorf("got %s, %s, want %s", got.stdout, got.stderr, want)
					}
				}
				if content {
					s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
				}
				s.umount(dir)
			})
		}
	}
}

// TestSurviveArchive kills servers of archives, whose file is removed, and of one that came
// on standard input.
func TestSurviveArchive(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	big := noiseText(300 << 10)
	content := saved(t, small, func(a *labimage.Archive) error { return a.File("big", big) })
	for _, way := range []string{"file", "removed", "stdin"} {
		t.Run(way, func(t *testing.T) {
			s := newSandbox(t)
			dir := s.mountpoint()
			file := writeFile(t, filepath.Join(s.dir, "archive.tar"), content)
			cmd := s.command("mount", "docker-archive:"+file, dir)
			if way == "stdin" {
				cmd = s.command("mount", "-", dir)
				cmd.Stdin = strings.NewReader(content)
			}
			if r := s.finish(cmd); r.code != 0 {
				t.Fatal(r.stderr)
			}
			if way != "file" {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				s.killed(dir)
				s.holds(filepath.Join(dir, "big"), big)
				s.holds(filepath.Join(dir, "etc/os-release"), "NAME=small\n")
			}
			s.umount(dir)
		})
	}
}

// TestSurviveProgramRemoved removes the program from the disk before it kills the server,
// and the holder.
func TestSurviveProgramRemoved(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	image, _ := publish(t, registrytest.New(t, nil), small)
	s := newSandbox(t)
	program := filepath.Join(s.dir, "imgfs")
	tool(t, "cp", imgfsBinary(t), program)
	dir := s.mountpoint()
	if r := s.finish(s.program(program, "mount", image, dir)); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	s.killed(dir)
	old := s.holder(dir)
	s.signal(old, syscall.SIGKILL)
	if !eventually(backSoon, func() bool { pids := holders(dir); return len(pids) == 1 && pids[0] != old }) {
		t.Fatalf("there is no other holder: %v", holders(dir))
	}
	s.killed(dir)
	s.umount(dir)
}

// TestSurviveGivesUp: a mount whose server cannot come up again is dead after a while, and
// ps, stats and the log say why. imgfs umount removes all of it.
func TestSurviveGivesUp(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for name, test := range map[string]struct {
		spoil func(s *sandbox, dir string)
		why   string
	}{
		"state": {func(s *sandbox, dir string) {
			state, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/4", s.holder(dir)), os.O_WRONLY, 0)
			if err != nil {
				s.t.Fatal(err)
			}
			defer state.Close()
			if _, err := state.WriteAt(make([]byte, 4096), 0); err != nil {
				s.t.Fatal(err)
			}
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := users(t)["this user"]
			dir := s.mount(image, "--read-timeout=1s")
			test.spoil(s, dir)
			s.signal(s.daemon(dir), syscall.SIGKILL)
			if !eventually(30*time.Second, func() bool { return len(processes(dir)) == 0 }) {
				t.Fatalf("the holder goes on: %v", processes(dir))
			}
			if !mounted(dir) {
				t.Fatal("it is unmounted")
			}
			rows := s.ps()
			if len(rows) != 1 || rows[0].Health != serve.HealthDead || !strings.Contains(rows[0].Why, test.why) {
				t.Errorf("ps says %+v, want dead, and %q", rows, test.why)
			}
			if r := s.ok("ps"); !strings.Contains(r.stdout, "dead: ") {
				t.Errorf("ps says %s", r.stdout)
			}
			s.fails(cli.ExitFailure, []string{"stats " + dir, "dead", test.why, "imgfs umount " + dir}, "stats", dir)
			if name == "state" {
				if log := s.logOf(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "the mount is dead") || !strings.Contains(log, test.why) {
					t.Errorf("the log is %q, want one line with %q", log, test.why)
				}
			} else if err := os.Remove(s.cache); err != nil {
				t.Fatal(err)
			}
			s.ok("umount", dir)
			s.gone(dir)
			if left, err := os.ReadDir(filepath.Join(s.dir, "xdg-run/imgfs")); err != nil || len(left) > 0 {
				t.Errorf("%v is left, error %v", left, err)
			}
			s.ok("mount", image, dir)
			s.killed(dir)
			s.umount(dir)
		})
	}
}

// TestSurviveNoWait kills servers while the image is not open, and when it is.
func TestSurviveNoWait(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, func(t *testing.T, who account) {
		reg, release := heldRegistry(t)
		image, _ := publish(t, reg, small)
		s := sandboxOf(t, who)
		dir := s.mountpoint()
		s.ok("mount", "--no-wait", image, dir)
		_, out, done := s.waiter("cat", filepath.Join(dir, "etc/os-release"))
		s.killed(dir)
		s.killed(dir)
		if m := s.stats(dir); !m.Opening {
			t.Errorf("it is open: %+v", about(m))
		}
		release()
		if err := ends(t, "the reader", done); err != nil || out.String() != "NAME=small\n" {
			t.Errorf("it has read %q, %v\n%s", out, err, s.logOf())
		}
		s.killed(dir)
		s.holds(filepath.Join(dir, "etc/os-release"), "NAME=small\n")
		s.umount(dir)
		s.ok("mount", "--no-wait", image, dir)
		if !eventually(backSoon, func() bool { return !s.stats(dir).Opening }) {
			t.Fatal("the image is not opened")
		}
		s.killed(dir)
		s.holds(filepath.Join(dir, "etc/os-release"), "NAME=small\n")
		s.umount(dir)
	})
}

// TestSurviveNoWaitFails: an image that cannot be opened by a successor ends the mount, as
// it would have without a kill.
func TestSurviveNoWaitFails(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg, release := heldRegistry(t)
	s := newSandbox(t)
	dir := s.mountpoint()
	s.ok("mount", "--no-wait", reg.Host()+"/missing", dir)
	s.killed(dir)
	release()
	if !eventually(backSoon, func() bool { return !mounted(dir) }) {
		t.Fatal("it is still mounted")
	}
	s.gone(dir)
	if !strings.Contains(s.logOf(), "not found") {
		t.Errorf("the log is %q", s.logOf())
	}
}

// TestSurvivePrefetch: what was brought is not brought again, and what was not is.
func TestSurvivePrefetch(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mount(image, "--prefetch")
	var done serve.PrefetchState
	if !eventually(backSoon, func() bool { done = prefetchOf(t, dir); return done.State == "done" }) {
		t.Fatalf("prefetch: %+v", done)
	}
	lines := strings.Count(s.logOf(), "prefetch: all")
	s.killed(dir)
	var again serve.PrefetchState
	if !eventually(backSoon, func() bool { again = prefetchOf(t, dir); return again == done }) {
		t.Errorf("prefetch: %+v, before %+v", again, done)
	}
	if n := strings.Count(s.logOf(), "prefetch: all"); n != lines {
		t.Errorf("the log tells of %d ends of prefetching, want %d:\n%s", n, lines, s.logOf())
	}
	s.umount(dir)
}

// TestSurviveCredentials: credentials that could be read once are those of all servers.
func TestSurviveCredentials(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "bash")
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	auth := strings.TrimPrefix(credentials(t, reg.Host(), "u", "secret-p"), "--authfile=")
	for _, script := range []string{`"$0" mount --authfile <(cat "$1") "$2" "$3"`, `REGISTRY_AUTH_FILE=<(cat "$1") "$0" mount "$2" "$3"`} {
		dir := s.mountpoint()
		if r := s.finish(s.program("bash", "-c", script, imgfsBinary(t), auth, image, dir)); r.code != 0 {
			t.Fatalf("%s: %s", script, r.stderr)
		}
		for range 2 {
			s.killed(dir)
		}
		s.dropBlobs()
		reg.RevokeTokens()
		s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
		s.umount(dir)
	}
}
