//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	// loadEnv says how long TestLoad goes on.
	loadEnv   = "IMGFS_LOAD"
	loadShort = 8 * time.Second
	// loadReaders are those of each mount in the long form.
	loadReaders = 16
)

// A loadSample is what all processes of the mounts take at a time.
type loadSample struct {
	pss, rss  int64 // bytes; pss counts what processes share once
	files     int   // descriptors
	processes int
}

// TestLoad has 64 processes read four mounts, each mounted in another way and each of an
// image of its own, from a slow registry through a cache directory that is far too small,
// while their servers and holders are killed all the time. Nothing fails, nothing is
// wrong, nothing grows, and nothing is left.
func TestLoad(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	length, perMount := loadShort, 2
	if text := os.Getenv(loadEnv); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("the variable %s: %v", loadEnv, err)
		}
		length, perMount = d, loadReaders
	}
	reg := registrytest.New(t, nil)
	proxy := slowProxy(t, reg.URL())
	root := newSandbox(t)
	var mounts []*survival
	for i := range surviveModes {
		mode := surviveModes[i]
		content, layers := surviveImage(t, uint64(1000*(i+1)))
		_, layout := publish(t, reg, layers...)
		repository := fmt.Sprintf("load/%d", i)
		if err := reg.PushLayout(layout, repository); err != nil {
			t.Fatal(err)
		}
		s := root
		if mode.user {
			s = sandboxOf(t, otherUser(t))
		}
		mode.flags = append(slices.Clone(mode.flags), "--cache-size="+strconv.FormatInt(sizeOf(t, layout)/3, 10))
		mounts = append(mounts, s.survivalOf(&mode, content, proxy+"/"+repository+":latest"))
	}
	var all []*readers
	for _, m := range mounts {
		all = append(all, m.startReaders(perMount))
	}
	begun := time.Now()
	kills, samples := killAll(t, mounts, begun.Add(length))
	done := map[string]int{}
	for i, r := range all {
		r.end()
		for way, n := range r.done {
			done[way] += n
		}
		if never := r.never(); len(never) > 0 {
			t.Errorf("%s: nothing was read by way of %q: that proves nothing", mounts[i].dir, never)
		}
	}
	took := time.Since(begun)
	notGrown(t, samples)
	last := samples[len(samples)-1]
	t.Logf("%v; %d samples, the last %+v", done, len(samples), last)
	t.Logf("figure: %d readers, %d kills, %.1f MB/s compared", len(mounts)*perMount, kills, float64(done[comparedBytes])/1e6/took.Seconds())
	t.Logf("figure: memory in all %d MB (PSS), %d descriptors", last.pss/1e6, last.files)
	for _, m := range mounts {
		m.umount(m.dir)
	}
	for _, m := range mounts {
		m.nothingLeft()
	}
}

// slowProxy is a registry in front of a registry, with a round trip and a bandwidth.
func slowProxy(t *testing.T, to string) (host string) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(10 * time.Millisecond)
		proxy.ServeHTTP(narrowWriter{w}, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// A narrowWriter sends 20 MB a second.
type narrowWriter struct{ http.ResponseWriter }

// Write implements io.Writer.
func (w narrowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / 20_000_000)
	return w.ResponseWriter.Write(p)
}

// killAll kills a server or a holder of some mount again and again, and measures.
func killAll(t *testing.T, mounts []*survival, end time.Time) (kills int, samples []loadSample) {
	t.Helper()
	const (
		between   = 500 * time.Millisecond
		forgetful = 5 * time.Second
	)
	forgot := time.Now()
	for ; time.Now().Before(end); kills++ {
		time.Sleep(time.Duration(rand.Int64N(int64(between))))
		m := mounts[rand.IntN(len(mounts))]
		// Both at once would be the end of it.
		server, holder := m.server(), m.holder()
		m.kill([]int{server, holder}[rand.IntN(2)])
		if time.Since(forgot) > forgetful {
			dropCaches()
			forgot = time.Now()
			samples = append(samples, sampleOf(t, mounts))
		}
	}
	return kills, append(samples, sampleOf(t, mounts))
}

// sampleOf measures when all mounts have both processes.
func sampleOf(t *testing.T, mounts []*survival) (all loadSample) {
	t.Helper()
	for _, m := range mounts {
		for _, pid := range []int{m.server(), m.holder()} {
			all.processes++
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // killed in between it has none
			all.files += len(fds)
			all.pss += smaps(pid, "Pss")
			all.rss += smaps(pid, "Rss")
		}
	}
	return all
}

// smaps returns a line of a process's smaps_rollup in bytes; 0: it has ended.
func smaps(pid int, line string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	_, rest, _ := strings.Cut(string(text), "\n"+line+":")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// notGrown compares the first quarter of samples with the last, by their medians.
func notGrown(t *testing.T, samples []loadSample) {
	t.Helper()
	n := len(samples) / 4
	if n == 0 {
		return // too short to tell
	}
	median := func(of []loadSample, value func(loadSample) int64) int64 {
		var all []int64
		for _, s := range of {
			all = append(all, value(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	for _, c := range []struct {
		what  string
		value func(loadSample) int64
		more  int64 // what is no growth
	}{
		// No process lives for long. What grows is what a young one takes: on a slow
		// machine as much as two servers have for decoded pieces, and the files that one
		// keeps open. One descriptor that each kill loses would be three times that.
		{"PSS", func(s loadSample) int64 { return s.pss }, 64 << 20},
		{"RSS", func(s loadSample) int64 { return s.rss }, 96 << 20},
		{"descriptors", func(s loadSample) int64 { return int64(s.files) }, 64},
	} {
		before, after := median(samples[:n], c.value), median(samples[len(samples)-n:], c.value)
		t.Logf("%s: %d in the first quarter, %d in the last", c.what, before, after)
		if after > before+c.more {
			t.Errorf("%s have grown from %d to %d", c.what, before, after)
		}
	}
}

// TestMillionFiles mounts an image of 100,000 files, in the nightly run of a million,
// finds them all, and unmounts.
func TestMillionFiles(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "find")
	files, limit := 100_000, int64(60_000_000)
	if os.Getenv("IMGFS_STACKS") != "" {
		files, limit = 1_000_000, 150_000_000
	}
	s := newSandbox(t)
	layout := imageOfMany(t, filepath.Join(s.dir, "layout"), files)
	s.ok("index", "-q", layout)
	begun := time.Now()
	dir := s.mount(layout)
	mounting := time.Since(begun)
	begun = time.Now()
	found := strings.Count(tool(t, "find", dir), "\n")
	finding := time.Since(begun)
	if found < files {
		t.Errorf("find found %d files, want at least %d", found, files)
	}
	server, holder := s.serving(dir, false), s.serving(dir, true)
	if holder == 0 {
		t.Error("nobody holds the mount")
	}
	memory, peak := smaps(server, "Pss")+smaps(holder, "Pss"), residentPeak(server)<<20
	begun = time.Now()
	s.umount(dir)
	t.Logf("figure: %d files: mount %d ms, find %.1f s, umount %d ms; %d MB then, %d MB while mounting", found, mounting.Milliseconds(), finding.Seconds(), time.Since(begun).Milliseconds(), memory/1e6, peak/1e6)
	if memory > limit {
		t.Errorf("server and holder have %d bytes, want at most %d", memory, limit)
	}
}
