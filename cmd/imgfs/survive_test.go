//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	// killsEnv says how often each kind of process is killed, for each way to mount.
	killsEnv   = "IMGFS_KILLS"
	killsShort = 12
)

// A surviveMode is a way of mounting.
type surviveMode struct {
	name   string
	flags  []string
	user   bool // a plain user mounts, with fusermount3
	others bool // another user reads as well
}

var surviveModes = []surviveMode{
	{name: "device", flags: []string{"--passthrough=off"}},
	{name: "passthrough", flags: []string{"--passthrough=on"}},
	{name: "fusermount3", user: true},
	{name: "allow_other", flags: []string{"--allow-other"}, others: true},
}

// killCount is how often a kind of process is killed.
func killCount(t *testing.T) int {
	text := os.Getenv(killsEnv)
	if text == "" {
		return killsShort
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("the variable %s: %v", killsEnv, err)
	}
	return n
}

// TestSurviveKills kills what serves a mount at random moments under eight processes
// that read it in all ways and compare everything, for each way of mounting. Nothing
// fails, nothing is wrong, nothing hangs, and nothing is left.
func TestSurviveKills(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t) // for the users, and to have the kernel forget what it knows
	kills, quiet := killCount(t), quietMachine(t)
	content, layers := surviveImage(t, 0)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, layers...)
	for i := range surviveModes {
		mode := &surviveModes[i]
		t.Run(mode.name, func(t *testing.T) {
			s := newSurvival(t, mode, content, image)
			n := kills
			if mode.name != "device" && os.Getenv(killsEnv) == "" {
				n /= 2
			}
			s.kills("server killed", n, quiet, func() time.Time { return s.kill(s.server()) })
			// What holds a mount is the same in all ways.
			if mode.name != "device" && os.Getenv(killsEnv) == "" {
				n = 4
			}
			s.kills("holder killed", n/2, quiet, func() time.Time { return s.kill(s.holder()) })
			s.kills("holder, then server", n/2, quiet, func() time.Time {
				server := s.server()
				s.kill(s.holder())
				s.holder()
				time.Sleep(time.Duration(rand.Int64N(int64(100 * time.Millisecond))))
				return s.kill(server)
			})
			s.end()
		})
	}
}

// TestSurviveUpgrade replaces the program of a mount under the same readers, by another
// build of it and back.
func TestSurviveUpgrade(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	count, quiet := 4, quietMachine(t)
	if os.Getenv(killsEnv) != "" {
		count = 40
	}
	program := imgfsBinary(t)
	other := filepath.Join(filepath.Dir(program), "other", "imgfs")
	cmd := buildCommand(other)
	cmd.Args = slices.Insert(cmd.Args, 2, "-ldflags=-s -w")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	builds := []string{other, program}
	content, layers := surviveImage(t, 0)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, layers...)
	for i := range surviveModes {
		mode := &surviveModes[i]
		t.Run(mode.name, func(t *testing.T) {
			s := newSurvival(t, mode, content, image)
			n := 0
			s.pausesMost = 300 * time.Millisecond
			s.kills("upgraded", count, quiet, func() time.Time {
				begun, server, build := time.Now(), s.server(), builds[n%len(builds)]
				if r := s.finish(s.program(build, "upgrade", s.dir)); r.code != 0 {
					t.Fatalf("imgfs upgrade: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
				}
				n++
				if pid := s.server(); pid == server {
					t.Errorf("after the upgrade process %d serves as before", pid)
				} else if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != build {
					t.Errorf("after the upgrade %s serves (%v), want %s", exe, err, build)
				}
				return begun
			})
			s.end()
		})
	}
}

// A survival is a mount whose processes are killed under readers.
type survival struct {
	*sandbox
	dir     string
	others  account // who reads as well; "" is nobody
	content []stressFile
	dump    string // a file

	pausesMost time.Duration
}

// newSurvival mounts the image in a sandbox of its own.
func newSurvival(t *testing.T, mode *surviveMode, content []stressFile, image string) *survival {
	t.Helper()
	who := thisUser()
	if mode.user {
		who = otherUser(t)
	}
	return sandboxOf(t, who).survivalOf(mode, content, image)
}

// survivalOf mounts the image and notes what it shows.
func (s *sandbox) survivalOf(mode *surviveMode, content []stressFile, image string) *survival {
	s.t.Helper()
	v := &survival{sandbox: s, content: content, pausesMost: time.Second, dir: s.mountpoint()}
	if mode.others {
		v.others = otherUser(s.t)
	}
	// Sockets are where nothing else is.
	if err := errors.Join(os.MkdirAll(v.runtime(), 0o700), os.Chown(v.runtime(), s.uid, s.gid)); err != nil {
		s.t.Fatal(err)
	}
	r := s.run(append(append([]string{"mount"}, mode.flags...), image, v.dir)...)
	if r.code != 0 && slices.Contains(mode.flags, "--passthrough=on") {
		s.t.Skipf("imgfs mount cannot do that here: %s", r.stderr)
	}
	if r.code != 0 {
		s.t.Fatalf("imgfs mount: exit code %d\n%s", r.code, r.stderr)
	}
	v.dump = s.writeDump(v.dir)
	return v
}

// runtime is XDG_RUNTIME_DIR.
func (s *sandbox) runtime() string { return filepath.Join(s.dir, "xdg-run") }

// writeDump writes what a mount shows into a file.
func (s *sandbox) writeDump(dir string) (path string) {
	s.t.Helper()
	cmd := s.as(testProcess(s.t.Context()))
	cmd.Env, cmd.Dir = append(os.Environ(), dumpEnv+"="+dir), "/"
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	path = filepath.Join(s.dir, "dump-"+filepath.Base(dir))
	if err := os.WriteFile(path, out, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// server returns the process that serves the mount now, and waits until there is one.
func (s *survival) server() int { return s.await("server", false) }

// holder returns the process that holds it.
func (s *survival) holder() int { return s.await("holder", true) }

func (s *survival) await(what string, holds bool) (pid int) {
	s.t.Helper()
	if !eventually(20*time.Second, func() bool { pid = s.serving(s.dir, holds); return pid != 0 }) {
		s.t.Fatalf("%s has no %s; processes: %q", s.dir, what, processesKnowing(s.sandbox.dir))
	}
	return pid
}

// serving returns the process that serves a mount, or the one that holds it; 0: none.
func (s *sandbox) serving(dir string, holds bool) int {
	for _, pid := range processes(dir) {
		if args := cmdline(pid); len(args) > 1 && (args[1] == holdWord) == holds {
			return pid
		}
	}
	return 0
}

// holdWord is the first argument of holders.
const holdWord = "__hold"

// kill kills a process, waits for its end, and returns when that began.
func (s *sandbox) kill(pid int) time.Time {
	s.t.Helper()
	begun := time.Now()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		s.t.Errorf("process %d: %v", pid, err)
		return begun
	}
	defer unix.Close(fd)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Errorf("killing %d: %v", pid, err)
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := again(func() (int, error) { return unix.Poll(ended, 20_000) })
	if n != 1 {
		s.t.Errorf("process %d does not end: %v", pid, err)
	}
	return begun
}

// kills has something done n times at random moments under readers, and prints how long
// the mount did not answer after each time.
func (s *survival) kills(what string, n int, quiet bool, do func() time.Time) {
	s.t.Helper()
	const between = 300 * time.Millisecond
	readers, prober := s.startReaders(stressReaders), s.startProber()
	prober.answer()
	var times []time.Time
	for range n {
		time.Sleep(time.Duration(rand.Int64N(int64(between))))
		dropCaches()
		s.holder()
		times = append(times, do())
		prober.answer()
	}
	s.holder()
	readers.end()
	worst := longest(times, prober.end())
	most := worst[len(worst)-1]
	s.t.Logf("%s %d times under %v: pauses of %v, %v in nine of ten, at most %v", what, n, readers.done, worst[len(worst)/2], worst[len(worst)*9/10], most)
	errors := "0 errors"
	if s.t.Failed() {
		errors = "ERRORS"
	}
	s.t.Logf("figure: %s, %s: %d times, %s, median %d ms, max %d ms", filepath.Base(s.t.Name()), what, n, errors, worst[len(worst)/2].Milliseconds(), most.Milliseconds())
	if most > s.pausesMost {
		if quiet {
			s.t.Errorf("%s: a pause of %v, want at most %v", what, most, s.pausesMost)
		} else {
			s.t.Logf("more than %v, but others use this machine", s.pausesMost)
		}
	}
	for _, way := range readers.never() {
		s.t.Errorf("%s: nothing was read by way of %q: that proves nothing", what, way)
	}
}

// end unmounts, and looks for what is left.
func (s *survival) end() {
	s.t.Helper()
	s.umount(s.dir)
	s.nothingLeft()
}

// nothingLeft checks that there are no sockets and temporary files after all mounts.
func (s *sandbox) nothingLeft() {
	s.t.Helper()
	for _, path := range pathsBelow(s.runtime(), "") {
		if info, err := os.Lstat(path); err == nil && !info.IsDir() {
			s.t.Errorf("left behind: %s", path)
		}
	}
	if left := files(s.t.(*testing.T), filepath.Join(s.cache, "tmp")); len(left) > 0 {
		s.t.Errorf("left in the cache: %q", left)
	}
	if r := s.run("cache", "verify"); r.code != 0 || strings.Contains(r.stdout, "removed") {
		s.t.Errorf("cache verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// longest returns, in order of length, the longest pause after each time and before the
// next.
func longest(times []time.Time, pauses []pause) []time.Duration {
	worst := make([]time.Duration, len(times))
	for _, p := range pauses {
		// One that ends after the time belongs to the last such.
		ends := p.Began.Add(p.Took)
		for i, at := range slices.Backward(times) {
			if ends.After(at) {
				worst[i] = max(worst[i], p.Took)
				break
			}
		}
	}
	slices.Sort(worst)
	return worst
}

// dropCaches has the kernel forget what it can.
func dropCaches() {
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // in containers none may
}

// quietMachine reports whether nothing else runs: only then times are what they are.
func quietMachine(t testing.TB) bool {
	t.Helper()
	const samples = 40
	sum := 0
	for range samples {
		var load [3]float64
		running := 0
		text := readFile(t, "/proc/loadavg")
		if _, err := fmt.Sscanf(text, "%f %f %f %d/", &load[0], &load[1], &load[2], &running); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		sum += running - 1 // without this process
		time.Sleep(25 * time.Millisecond)
	}
	quiet := float64(sum)/samples < 0.5
	t.Logf("processes that run beside this one: %.1f", float64(sum)/samples)
	return quiet
}
