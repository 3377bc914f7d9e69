//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	stressReaders = 8
	// stressEnv says how long each way of mounting is read, and makes the
	// image a big one.
	stressEnv = "IMGFS_STRESS"
	// stressShort is how long that is without it.
	stressShort = 2 * time.Second
	// stressWhole is what a file has at least that is read to be kept whole.
	stressWhole = 128 << 10
)

// A stressMode is a way of mounting.
type stressMode struct {
	name  string
	flags []string
	uring bool // whether the kernel has to offer FUSE over io_uring
	// room is what the cache directory has of what the layers take; 0: all it
	// wants.
	room float64
}

var stressModes = []stressMode{
	{name: "default"},
	{name: "small cache", room: 0.4},
	{name: "passthrough", flags: []string{"--passthrough=on"}},
	{name: "passthrough, small cache", flags: []string{"--passthrough=on"}, room: 0.8},
	{name: "io_uring", flags: []string{"--io-uring=on"}, uring: true},
	{name: "io_uring and passthrough, small cache", flags: []string{"--io-uring=on", "--passthrough=on"}, uring: true, room: 0.8},
}

// stressTime is how long each way of mounting is read, and whether the image
// is a big one.
func stressTime(t *testing.T) (length time.Duration, big bool) {
	text := os.Getenv(stressEnv)
	if text == "" {
		return stressShort, false
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("the variable %s: %v", stressEnv, err)
	}
	return d, true
}

// A stressPlan is what a reading process is told.
type stressPlan struct {
	Dir    string
	Tmp    string // where it may write
	Files  []stressFile
	Length time.Duration
	Seed   uint64
}

// TestStress has eight processes read a mounted image in all ways there are,
// while the kernel forgets what it has and the cache directory is too small,
// for each way of mounting. Every byte is compared, and nothing may fail.
func TestStress(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	length, big := stressTime(t)
	content, layers := stressImage(big, 0)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, layers...)
	size := sizeOf(t, layout)
	for i := range stressModes {
		mode := &stressModes[i]
		t.Run(mode.name, func(t *testing.T) {
			s := newSandbox(t)
			dir := s.mountAs(mode, image, size, big)
			// What a mount has in memory, as all of the small image, is not
			// worth a file.
			if big && slices.Contains(mode.flags, "--passthrough=on") {
				s.keepWhole(dir, content, length)
				if mode.room == 0 && s.keptWhole() == 0 {
					t.Error("no file is kept whole to be read past the daemon: that proves nothing")
				}
			}
			s.stress(stressPlan{Dir: dir, Files: content, Length: length}, big)
			s.umount(dir)
			t.Logf("files that are kept whole: %d", s.keptWhole())
			if r := s.run("cache", "verify"); r.code != 0 {
				t.Errorf("cache verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
}

// mountAs mounts an image in one of the ways, or skips the test where that
// cannot be. Size is what the layers take.
func (s *sandbox) mountAs(mode *stressMode, image string, size int64, alone bool) (dir string) {
	s.t.Helper()
	flags := slices.Clone(mode.flags)
	if mode.room > 0 {
		flags = append(flags, "--cache-size="+strconv.FormatInt(int64(mode.room*float64(size)), 10))
	}
	if mode.uring {
		offerUring(s.t, alone)
	}
	dir = s.mountpoint()
	r := s.run(append(append([]string{"mount"}, flags...), image, dir)...)
	if r.code != 0 && mode.flags != nil {
		s.t.Skipf("imgfs mount cannot do that here: %s", r.stderr)
	}
	if r.code != 0 {
		s.t.Fatalf("imgfs mount: exit code %d\n%s", r.code, r.stderr)
	}
	return dir
}

// keptWhole returns how many files the cache directory has whole.
func (s *sandbox) keptWhole() int {
	s.t.Helper()
	return len(files(s.t, filepath.Join(s.cache, "contents")))
}

// keepWhole reads all files again and again, past the page cache, until no
// more of them are kept whole.
func (s *sandbox) keepWhole(dir string, content []stressFile, limit time.Duration) {
	s.t.Helper()
	const still = 5 // rounds without another one
	kept := 0
	for end, rounds := time.Now().Add(max(limit, 10*time.Second)), 0; rounds < still && time.Now().Before(end); {
		for i := range content {
			if f := &content[i]; f.Size > stressWhole {
				if err := readUncached(filepath.Join(dir, f.Name)); err != nil {
					s.t.Fatal(err)
				}
			}
		}
		n := s.keptWhole()
		if rounds++; n != kept || n == 0 {
			kept, rounds = n, 0
		}
	}
	s.t.Logf("files kept whole beforehand: %d", kept)
}

// readUncached reads a file of which the kernel has forgotten the pages.
func readUncached(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return err
}

// offerUring has the kernel offer FUSE over io_uring. It may be
// switched on only while nothing else is tested. Each process that switches it on
// holds a shared lock on the parameter; the last one restores it.
func offerUring(t testing.TB, alone bool) {
	t.Helper()
	parameter, err := os.Open("/sys/module/fuse/parameters/enable_uring")
	if err != nil {
		t.Skipf("the kernel has no FUSE over io_uring: %v", err)
	}
	t.Cleanup(func() { parameter.Close() })
	fd := int(parameter.Fd())
	if err := syscall.Flock(fd, syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(parameter.Name())
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(old), "Y") {
		return
	}
	if !alone || os.Geteuid() != 0 {
		t.Skipf("%s is N", parameter.Name())
	}
	if err := os.WriteFile(parameter.Name(), []byte("Y"), 0); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			return // others need it
		}
		if err := os.WriteFile(parameter.Name(), old, 0); err != nil {
			t.Error(err)
		}
	})
}

// stress has processes read a mount, and adds up what they have done.
func (s *sandbox) stress(plan stressPlan, big bool) {
	s.t.Helper()
	var mu sync.Mutex
	done := map[string]int{}
	var wg sync.WaitGroup
	for i := range stressReaders {
		plan := plan
		plan.Seed, plan.Tmp = uint64(i), s.dir
		wg.Go(func() {
			counts, err := s.stressReader(plan)
			if err != nil {
				s.t.Errorf("reader %d: %v", i, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for way, n := range counts {
				done[way] += n
			}
		})
	}
	stop := make(chan struct{})
	forgetting := make(chan struct{})
	go func() {
		defer close(forgetting)
		s.forget(stop, plan.Length)
	}()
	wg.Wait()
	close(stop)
	<-forgetting
	s.t.Logf("%v; %+v", done, s.stats(plan.Dir).Total)
	for _, w := range stressWays {
		if done[w.name] == 0 {
			s.t.Errorf("nothing was read by way of %q: that proves nothing", w.name)
		}
	}
	if big && s.stats(plan.Dir).Total.Hits == 0 {
		s.t.Error("nothing came from the cache directory: that proves nothing")
	}
}

// forget makes the kernel forget what it has cached, now and then.
func (s *sandbox) forget(stop <-chan struct{}, length time.Duration) {
	if os.Geteuid() != 0 {
		return // readers do it for the files that they read
	}
	for {
		select {
		case <-stop:
			return
		case <-time.After(length/10 + time.Duration(rand.Int64N(int64(length/5)))):
		}
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			s.t.Logf("what the kernel has cached stays: %v", err)
			return
		}
	}
}

// stressReaderEnv holds the plan of a process that is to be a reader.
const stressReaderEnv = "IMGFS_TEST_STRESS_READER"

// stressReader runs a process that reads.
func (s *sandbox) stressReader(plan stressPlan) (map[string]int, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("plan-%d", plan.Seed))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	// A read that hangs is a failure, too.
	ctx, cancel := context.WithTimeout(s.t.Context(), plan.Length+2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run", "^TestStressReader$")
	cmd.Env = append(os.Environ(), stressReaderEnv+"="+path)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, "done: "); ok && err == nil {
			var counts map[string]int
			return counts, json.Unmarshal([]byte(text), &counts)
		}
	}
	return nil, errors.Join(ctx.Err(), fmt.Errorf("%w\n%s%s", errors.Join(err, errors.New("it did not read to its end")), &stdout, &stderr))
}

// TestStressReader is what the processes of TestStress run.
func TestStressReader(t *testing.T) {
	path := os.Getenv(stressReaderEnv)
	if path == "" {
		t.Skip("this is for processes that TestStress starts")
	}
	var plan stressPlan
	if err := json.Unmarshal([]byte(readFile(t, path)), &plan); err != nil {
		t.Fatal(err)
	}
	r := &stressReading{plan: &plan, rnd: rand.New(rand.NewPCG(plan.Seed, 6)), done: map[string]int{}}
	if err := r.run(); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r.done)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("done: %s\n", text)
}

// sizeOf returns what the files below a directory take.
func sizeOf(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, path := range files(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}
