//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// manyFiles is a layer of n files whose content is their number, far enough
// apart that each is in a chunk of its own.
func manyFiles(n int) labimage.Layer {
	return func(a *labimage.Archive) error {
		for i := range n {
			if err := a.File(fmt.Sprintf("f%d", i), seededNoise(byte(i+1), 300_000)); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestOutageIsToldOnce has many reads fail while the registry is away: the log
// has a line when it goes and one when it is back, and the stats say it.
func TestOutageIsToldOnce(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	const n = 12
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, manyFiles(n))
	s := newSandbox(t)
	s.ok("index", image)
	s.dropBlobs()
	dir := s.mount(image, "--read-timeout=600ms")
	addr := reg.Host()
	reg.Close()
	var wg sync.WaitGroup
	for round := range 2 {
		for i := range n {
			wg.Go(func() {
				name := filepath.Join(dir, fmt.Sprintf("f%d", i))
				if text, err := headOf(name, 4096); err == nil {
					t.Errorf("round %d: %d bytes of a registry that is away", round, len(text))
				}
			})
		}
		wg.Wait()
	}
	log := filepath.Join(s.cache, "imgfs.log")
	if text := readFile(t, log); strings.Count(text, "\n") != 1 || !strings.Contains(text, ": registry "+addr+": down: ") || !strings.Contains(text, "connection refused") {
		t.Errorf("imgfs.log is %q, want one line", text)
	}
	got := s.stats(dir)
	if len(got.Servers) != 1 || got.Servers[0].Host != addr || !got.Servers[0].Down || got.Servers[0].Reason == "" || time.Since(got.Servers[0].Since) > time.Minute || got.Goroutines < 5 {
		t.Errorf("stats: got %+v", got)
	}
	if text := s.ok("stats", dir).stdout; !strings.Contains(text, "\nservers   "+addr+" down since ") {
		t.Errorf("stats do not say that the registry is down:\n%s", text)
	}

	back := registrytest.New(t, &registrytest.Options{Addr: addr})
	if err := back.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("f%d", i))); err != nil || string(text) != seededNoise(byte(i+1), 300_000) {
			t.Errorf("file %d after the outage: error %v, or other content", i, err)
		}
	}
	if text := readFile(t, log); strings.Count(text, "\n") != 2 || !strings.HasSuffix(text, ": registry "+addr+": it answers again\n") {
		t.Errorf("imgfs.log is %q, want two lines", text)
	}
	if text := s.ok("stats", dir).stdout; strings.Contains(text, "down since") {
		t.Errorf("stats say that the registry is down:\n%s", text)
	}
	if got := s.stats(dir).Servers; len(got) != 1 || got[0].Down {
		t.Errorf("stats: got %+v", got)
	}
	s.umount(dir)
}

// TestWaitForEver has readers outlast an outage and servers' errors with
// --read-timeout=0. Readers that are killed end at once.
func TestWaitForEver(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	t.Parallel()
	m := newFaultMount(t, mountFault{}, false)
	m.umount(m.dir)
	m.dir = m.mount(m.reg.Host()+"/app:"+labimage.Tag, "--read-timeout=0")
	if _, err := headOf(filepath.Join(m.dir, "mild"), 1); err != nil {
		t.Fatal(err)
	}
	m.dropChunks()
	m.inject(always(registrytest.Status(502)), nil, "hard", false)
	m.killed()
	var wg sync.WaitGroup
	wg.Go(func() { m.right("502 for a while", "hard") })
	// More often than the default would have it.
	if !eventually(30*time.Second, func() bool { return m.asked("hard") > defaultRetries+3 }) {
		t.Errorf("%d requests, want that it goes on", m.asked("hard"))
	}
	m.reg.Inject(m.kind, nil)
	wg.Wait()
	m.after()
}

// TestNoCoreFiles looks at what a mount may leave when it crashes.
func TestNoCoreFiles(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mountpoint()
	// A shell that wants core files.
	cmd := s.program("sh", "-c", `ulimit -c unlimited 2>/dev/null || ulimit -c "$(ulimit -H -c)"; exec "$0" mount "$1" "$2"`, imgfsBinary(t), image, dir)
	if r := s.finish(cmd); r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/limits", s.daemon(dir)))) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
			t.Errorf("core files are possible: %s", line)
		}
	}
	s.umount(dir)
}
