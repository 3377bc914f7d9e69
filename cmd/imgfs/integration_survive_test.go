//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// backSoon is how long a mount may take to be served again.
const backSoon = 15 * time.Second

// signal sends a signal to a process.
func (s *sandbox) signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatalf("signal %v for process %d: %v", sig, pid, err)
	}
}

// holder returns the process that would start another server of a mount.
func (s *sandbox) holder(dir string) int {
	s.t.Helper()
	var pids []int
	if !eventually(soon, func() bool { pids = holders(dir); return len(pids) == 1 }) { // one that executes a program has no name
		s.t.Fatalf("holders of %s: %v, want one", dir, pids)
	}
	return pids[0]
}

// killed kills the server of a mount, and returns what the next one says of itself.
func (s *sandbox) killed(dir string) serve.Stats {
	s.t.Helper()
	before := s.stats(dir)
	if s.holder(dir) == 0 || before.Recovery.State != "on" {
		s.t.Fatalf("%s: recovery is %+v", dir, before.Recovery)
	}
	s.signal(before.PID, syscall.SIGKILL)
	return s.served(dir, before)
}

// served waits until another server serves a mount, and returns what it says of itself.
func (s *sandbox) served(dir string, before serve.Stats) serve.Stats {
	s.t.Helper()
	if !eventually(backSoon, func() bool { pids := serving(dir); return len(pids) == 1 && pids[0] != before.PID }) {
		s.t.Fatalf("no other process serves %s: %v\n%s", dir, serving(dir), s.logOf())
	}
	now := s.stats(dir)
	if now.PID == before.PID || now.PID != s.daemon(dir) || !now.Since.Equal(before.Since) || now.Image != before.Image || now.Manifest != before.Manifest ||
		now.Dir != before.Dir || now.Recovery.Restarts != before.Recovery.Restarts+1 || now.Recovery.LastRestart.IsZero() || now.Recovery.LastWhy == "" || now.Recovery.State != "on" {
		s.t.Errorf("before: %+v\nnow: %+v", about(before), about(now))
	}
	return now
}

// about leaves out the counters.
func about(m serve.Stats) serve.Stats {
	m.Layers, m.Files, m.FastPaths, m.Servers = nil, nil, nil, nil
	return m
}

// holds checks what a program reads in a mount, past what the kernel keeps of it.
func (s *sandbox) holds(path, want string) {
	s.t.Helper()
	r := s.finish(s.program("timeout", "20", "dd", "if="+path, "iflag=direct", "bs=64k", "status=none"))
	if r.code != 0 || r.stdout != want {
		s.t.Errorf("%s: %d bytes, exit code %d, %s, want %d bytes, or other ones", path, len(r.stdout), r.code, r.stderr, len(want))
	}
}

// endSoon checks that a mount and its processes are gone in a second, or four where others
// have the machine, and have left nothing.
func (s *sandbox) endSoon(dir string) {
	s.t.Helper()
	begun := time.Now()
	eventually(soon, func() bool { return !mounted(dir) })
	s.gone(dir)
	if took := time.Since(begun); took > 4*time.Second {
		s.t.Errorf("the processes of %s took %v to end", dir, took)
	}
}

// TestSurviveServer kills servers under readers: they see the right bytes and no error, and
// the mount is the same one.
func TestSurviveServer(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	want := writeFile(t, filepath.Join(publicDir(t), "want"), noiseText(3<<20))
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir, stop := s.mount(image), filepath.Join(s.dir, "stop")
		script := `while [ ! -e "$2" ]; do dd if="$0/noise" iflag=direct bs=64k status=none | cmp - "$1" || exit 1; ls -lR "$0" >"$2.ls" || exit 1; done`
		_, out, done := s.waiter("sh", "-c", script, dir, want, stop)
		for range 5 {
			s.killed(dir)
		}
		writeFile(t, stop, "")
		if err := ends(t, "the reader", done); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
		if r := s.ok("stats", dir); !strings.Contains(r.stdout, "recovery  5 restarts, the last on ") {
			t.Errorf("stats say %s", r.stdout)
		}
		if r := s.ok("ps"); !strings.Contains(r.stdout, fmt.Sprint(" ", s.daemon(dir), " ")) {
			t.Errorf("ps says %s, want the process %d", r.stdout, s.daemon(dir))
		}
		s.ok("umount", dir)
		s.endSoon(dir)
	})
}

// TestSurviveHolder kills holders, and servers after them; if both are gone at once the
// mount is dead, and imgfs umount and mount deal with that.
func TestSurviveHolder(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(image)
		next := func(old int) {
			t.Helper()
			if !eventually(backSoon, func() bool { pids := holders(dir); return len(pids) == 1 && pids[0] != old }) {
				t.Fatalf("there is no other holder: %v", holders(dir))
			}
		}
		for range 2 { // the holder, then the server
			old := s.holder(dir)
			s.signal(old, syscall.SIGKILL)
			next(old)
			s.killed(dir)
			// The server, then the holder.
			old = s.holder(dir)
			s.signal(old, syscall.SIGKILL)
			next(old)
			s.killed(dir)
		}
		s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
		kill9(dir)
		s.waitGone(dir)
		if !mounted(dir) {
			t.Fatal("the kernel has unmounted it: this test proves nothing")
		}
		if r := s.finish(s.program("timeout", "20", "stat", "-f", dir)); r.code == 0 || !strings.Contains(r.stderr, "not connected") && !strings.Contains(r.stderr, "connection abort") {
			t.Errorf("stat -f of a dead mount: exit code %d, %s", r.code, r.stderr)
		}
		if r := s.ok("ps"); !strings.Contains(r.stdout, serve.HealthDead) {
			t.Errorf("ps says %s", r.stdout)
		}
		s.ok("umount", dir)
		s.ok("mount", image, dir)
		s.killed(dir)
		s.umount(dir)
	})
}

// TestSurviveStopped kills a server that is stopped.
func TestSurviveStopped(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mount(image)
	before := s.stats(dir)
	testenv.Stop(t, before.PID)
	reader, _, done := s.waiter("cat", filepath.Join(dir, "noise"))
	reader.Process.Kill()
	_ = ends(t, "a reader that was killed", done)
	s.signal(before.PID, syscall.SIGKILL)
	s.served(dir, before)
	s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
	s.umount(dir)
}

// TestSurviveUnmount unmounts in all ways, also while there is no server: both processes
// end, and nothing is left.
func TestSurviveUnmount(t *testing.T) {
	testenv.Slow(t)
	need(t, "fusermount3")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for name, s := range users(t) {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			base := filepath.Join(s.dir, "xdg-run", "imgfs")
			program := func(name string, args ...string) func(dir string) {
				return func(dir string) {
					t.Helper()
					if r := s.finish(s.program("timeout", append([]string{"20", name}, append(args, dir)...)...)); r.code != 0 {
						t.Errorf("%s %q: exit code %d\n%s", name, args, r.code, r.stderr)
					}
				}
			}
			imgfs := imgfsBinary(t)
			ways := map[string]func(dir string){
				"imgfs umount":     program(imgfs, "umount"),
				"imgfs umount -l":  program(imgfs, "umount", "-l"),
				"fusermount3 -u":   program("fusermount3", "-u"),
				"SIGTERM":          func(dir string) { s.signal(s.daemon(dir), syscall.SIGTERM) },
				"SIGINT":           func(dir string) { s.signal(s.daemon(dir), syscall.SIGINT) },
				"SIGHUP":           func(dir string) { s.signal(s.daemon(dir), syscall.SIGHUP) },
				"SIGTERM, holder":  func(dir string) { s.signal(s.holder(dir), syscall.SIGTERM) },
				"no server":        s.without(program(imgfs, "umount")),
				"no server, -l":    s.without(program(imgfs, "umount", "-l")),
				"no server, -u -z": s.without(program("fusermount3", "-u", "-z")),
			}
			if s.uid == 0 {
				ways["umount"], ways["umount -l"], ways["no server, -f"] = program("umount"), program("umount", "-l"), s.without(program("umount", "-f"))
			}
			for why, end := range ways {
				dir := s.mount(image)
				if entries := func() []os.DirEntry { e, _ := os.ReadDir(base); return e }; !eventually(soon, func() bool { return len(entries()) == 1 }) {
					t.Errorf("in %s: %v, want one socket", base, entries())
				}
				end(dir)
				s.endSoon(dir)
				if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
					t.Errorf("%s: %v is left, error %v", why, left, err)
				}
				if t.Failed() {
					t.Fatalf("at %s\n%s", why, s.logOf())
				}
			}
		})
	}
}

// without returns a way to end a mount while its holder starts no server.
func (s *sandbox) without(end func(dir string)) func(dir string) {
	return func(dir string) {
		keeps := s.holder(dir)
		testenv.Stop(s.t, keeps)
		defer s.signal(keeps, syscall.SIGCONT)
		s.signal(s.daemon(dir), syscall.SIGKILL)
		end(dir)
	}
}

// TestSurviveUnmountInUse takes a mount out of the directory tree that somebody uses: it
// outlives its server even then, and ends with its last user.
func TestSurviveUnmountInUse(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		for _, how := range []string{"umount -l", "SIGTERM"} {
			s := sandboxOf(t, who)
			dir, stop := s.mount(image), filepath.Join(s.dir, "stop")
			_, out, done := s.waiter("sh", "-c", `cd "$0" && while [ ! -e "$1" ]; do dd if=noise iflag=direct bs=64k status=none | wc -c | grep -qx 3145728 || exit 1; done`, dir, stop)
			before := s.stats(dir)
			if how == "SIGTERM" {
				s.signal(before.PID, syscall.SIGTERM)
			} else {
				s.ok("umount", "-l", dir)
			}
			if !eventually(5*time.Second, func() bool { return !mounted(dir) }) {
				t.Fatalf("%s: it is still mounted", how)
			}
			if how == "umount -l" {
				s.signal(before.PID, syscall.SIGKILL)
				if !eventually(backSoon, func() bool { pids := serving(dir); return len(pids) == 1 && pids[0] != before.PID }) {
					t.Fatalf("nobody serves its users on: %v\n%s", serving(dir), s.logOf())
				}
			}
			time.Sleep(200 * time.Millisecond) // in which it reads
			writeFile(t, stop, "")
			if err := ends(t, "the reader", done); err != nil {
				t.Errorf("%s: %v\n%s", how, err, out)
			}
			s.gone(dir)
		}
	})
}

// TestSurviveNot: with --no-recover, as an option and a setting too, in the foreground and
// with io_uring there is one process, and stats say so.
func TestSurviveNot(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	check := func(dir, why string) {
		t.Helper()
		m := s.stats(dir)
		if len(processes(dir)) != 1 || m.Recovery.State != "off" || !strings.Contains(m.Recovery.Why, why) || m.Recovery.Holder != 0 {
			t.Errorf("processes %v, recovery %+v, want one, and %q", processes(dir), m.Recovery, why)
		}
		if r := s.ok("stats", dir); !strings.Contains(r.stdout, "recovery  off: "+m.Recovery.Why) {
			t.Errorf("stats say %s", r.stdout)
		}
		s.umount(dir)
	}
	check(s.mount(image, "--no-recover"), "turned off")
	check(s.mount(image, "-o", "norecover"), "turned off")
	writeFile(t, filepath.Join(s.dir, "xdg-config/imgfs/config.toml"), "[mount]\nno-recover = true\n")
	check(s.mount(image), "turned off")
	if err := os.RemoveAll(filepath.Join(s.dir, "xdg-config")); err != nil {
		t.Fatal(err)
	}
	dir := s.mountpoint()
	if err := s.command("mount", "-f", image, dir).Start(); err != nil || !eventuallyMounted(dir) {
		t.Fatalf("nothing is mounted: %v", err)
	}
	check(dir, "foreground")
	if os.Geteuid() == 0 {
		enableURing(t)
		check(s.mount(image, "--io-uring=on"), "io_uring")
	}
}

// TestSurviveLacks: a mount that cannot have what outlives its server goes without, and the
// user is told.
func TestSurviveLacks(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	for _, flags := range []string{"", "--no-wait"} {
		dir := s.mountpoint()
		r := s.finish(s.program("sh", "-c", `ulimit -f 1000; exec "$0" mount $1 "$2" "$3"`, imgfsBinary(t), flags, image, dir))
		if n := strings.Count(r.stderr, "the mount ends with the process that serves it: memory for recovery: "); r.code != 0 || n != 1 {
			t.Errorf("mount %s: exit code %d, it is said %d times:\n%s", flags, r.code, n, r.stderr)
		}
		if now := s.stats(dir).Recovery; now.State != "off" || !strings.HasPrefix(now.Why, "memory for recovery: ") || len(processes(dir)) != 1 {
			t.Errorf("recovery is %+v, with processes %v", now, processes(dir))
		}
		s.umount(dir)
	}
}

// TestSurviveMade: the directory that was made for a mount outlives servers, and goes with
// the mount.
func TestSurviveMade(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "fusermount3")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for name, s := range users(t) {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			for why, end := range map[string]func(dir string){
				"umount":      func(dir string) { s.ok("umount", dir) },
				"SIGTERM":     func(dir string) { s.signal(s.daemon(dir), syscall.SIGTERM) },
				"both killed": func(dir string) { kill9(dir); s.waitGone(dir); s.ok("umount", dir) },
			} {
				dir := s.mountMade(image)
				s.killed(dir)
				if other := s.mountMade(image); other == dir {
					t.Errorf("%s is given away while it is in use", dir)
				} else {
					s.ok("umount", other)
				}
				end(dir)
				missingSoon(t, why, dir)
				s.waitGone(dir)
				base := filepath.Dir(dir)
				var left []os.DirEntry
				var err error
				if !eventually(soon, func() bool { left, err = os.ReadDir(base); return err == nil && len(left) == 0 }) {
					t.Fatalf("%s: %v is left in %s, error %v\n%s", why, left, base, err, s.logOf())
				}
			}
		})
	}
}

// TestSurviveHelper mounts as mount(8) does, by a line of fstab.
func TestSurviveHelper(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	m := newMachine(t, thisUser())
	dir := m.mountpoint()
	m.well("mount", "-t", "fuse.imgfs", "-o", "quiet,cache-dir="+m.cache, image, dir)
	old := m.daemon(dir)
	m.signal(old, syscall.SIGKILL)
	if !eventually(backSoon, func() bool { pids := serving(dir); return len(pids) == 1 && pids[0] != old }) {
		t.Fatalf("nobody serves it again: %v\n%s", serving(dir), m.logOf())
	}
	if r := m.does("cat", dir+"/etc/os-release"); r.stdout != "NAME=small\n" {
		t.Errorf("got %q, %s", r.stdout, r.stderr)
	}
	if !slices.Equal(m.mounts(), []string{dir}) {
		t.Errorf("mounted: %q", m.mounts())
	}
	m.well("umount", dir)
	m.gone(dir)
	m.well("mount", "-t", "fuse.imgfs", "-o", "quiet,norecover,cache-dir="+m.cache, image, dir)
	if pids := processes(dir); len(pids) != 1 {
		t.Errorf("with norecover there are the processes %v, want one", pids)
	}
	m.well("umount", dir)
	m.gone(dir)
}
