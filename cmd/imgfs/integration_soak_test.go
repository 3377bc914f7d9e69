//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
)

const (
	soakLayers  = 10
	soakFile    = 2 << 20 // all of them are far more than a mount has in memory
	soakReaders = 8
	// soakGrace is how long after a fault a read may fail for its sake: a
	// server that wanted to be left alone is, for half of the read timeout.
	soakGrace = 3 * time.Second
)

// soakTime is how long TestSoak goes on.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("IMGFS_SOAK")
	if text == "" {
		t.Skip("the variable IMGFS_SOAK does not say for how long")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("the variable IMGFS_SOAK: %v", err)
	}
	return d
}

// A soak is a mount with readers and faults.
type soak struct {
	*sandbox
	reg   *registrytest.Server
	dir   string
	files []string // their contents, by their numbers

	layers []digest.Digest

	stop    atomic.Bool
	trouble atomic.Int64 // when faults were on last, Unix nanoseconds
	reads   atomic.Int64
	failed  atomic.Int64
}

// TestSoak has eight readers of random files, and all kinds of faults at
// random. Nothing is wrong, reads fail only while a fault is on, and nothing
// has grown afterwards.
func TestSoak(t *testing.T) {
	needFUSE(t)
	length := soakTime(t)
	s := &soak{sandbox: newSandbox(t), reg: registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, CDN: true})}
	var layers []labimage.Layer
	for i := range soakLayers {
		var own []string
		for j := range 3 {
			own = append(own, seededNoise(byte(3*i+j+1), soakFile*(j+1)))
		}
		s.files = append(s.files, own...)
		layers = append(layers, func(a *labimage.Archive) error {
			var errs []error
			for j, content := range own {
				errs = append(errs, a.File(fmt.Sprintf("f%d", 3*i+j), content))
			}
			return errors.Join(errs...)
		})
	}
	image, _ := publish(t, s.reg, layers...)
	s.dir = s.mount(image, "--read-timeout=1s", "--max-requests=4", "--cache-size=3M")
	for _, l := range s.stats(s.dir).Layers {
		s.layers = append(s.layers, l.Digest)
	}
	s.readAll("before")
	before := s.size()

	end := time.Now().Add(length)
	var wg sync.WaitGroup
	for range soakReaders {
		wg.Go(s.reader)
	}
	for time.Now().Before(end) {
		s.faults(time.Duration(200+rand.IntN(3000)) * time.Millisecond)
		time.Sleep(time.Duration(rand.IntN(6000)) * time.Millisecond)
	}
	time.Sleep(soakGrace)
	s.stop.Store(true)
	wg.Wait()
	s.readAll("after")
	t.Logf("%d reads of files, %d of them failed; %+v", s.reads.Load(), s.failed.Load(), s.stats(s.dir).Total)
	if total := s.stats(s.dir).Total; s.reads.Load() < 50 || total.Requests < 50 {
		t.Errorf("%d reads of files, %d requests: that proves nothing", s.reads.Load(), total.Requests)
	}
	s.notGrown(before)
	s.umount(s.dir)
	if left := files(t, filepath.Join(s.cache, "tmp")); len(left) > 0 {
		t.Errorf("left in the cache: %q", left)
	}
	if r := s.run("cache", "verify"); r.code != 0 || strings.Contains(r.stdout, "removed") {
		t.Errorf("cache verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// faults has everything go wrong at random for some time.
func (s *soak) faults(d time.Duration) {
	all := []registrytest.Fault{
		registrytest.Reset(-1), registrytest.Reset(10_000), registrytest.Truncate(5000), registrytest.TruncateChunked(100), registrytest.Status(500), registrytest.Status(502),
		registrytest.Status(403), registrytest.Status(404), registrytest.Status(416), registrytest.Page(), registrytest.Gzip(), registrytest.Multipart(nil), registrytest.FlipBit(),
		s.wholeOnes(nil), s.wholeOnes(registrytest.FlipBit()), s.wholeOnes(registrytest.Truncate(200_000)), s.reg.Stall(10), s.reg.Stall(-1),
		registrytest.Status(429, "Retry-After", "1"), registrytest.Redirect("?again"), registrytest.Redirect(""), registrytest.Detour(),
		registrytest.OtherRange(func(first, last int64) (int64, int64) { return first + 1, last + 1 }),
		registrytest.OtherRange(func(first, last int64) (int64, int64) { return first, first + (last-first)/2 }),
		registrytest.Header(func(h http.Header) { h.Del("Content-Range") }),
	}
	// One kind of fault for all, or all of them now and then.
	one, often := rand.IntN(2*len(all)), 1+rand.IntN(4)
	chance := func(int) registrytest.Fault {
		switch {
		case rand.IntN(often) > 0:
			return nil
		case one < len(all):
			return all[one]
		}
		return all[rand.IntN(len(all))]
	}
	s.trouble.Store(time.Now().Add(time.Hour).UnixNano())
	for _, kind := range []registrytest.Kind{registrytest.Blob, registrytest.CDN, registrytest.Token} {
		s.reg.Inject(kind, chance)
	}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		switch rand.IntN(8) {
		case 0:
			s.reg.RevokeTokens()
		case 1:
			s.reg.ExpireURLs()
		}
	}
	for _, kind := range []registrytest.Kind{registrytest.Blob, registrytest.CDN, registrytest.Token} {
		s.reg.Inject(kind, nil)
	}
	s.reg.Forget() // ten minutes of records are much
	s.trouble.Store(time.Now().UnixNano())
}

// wholeOnes is wholeBlob for the first two layers: what was sent whole is not
// fetched any more.
func (s *soak) wholeOnes(f registrytest.Fault) registrytest.Fault {
	whole := wholeBlob(f)
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		for _, d := range s.layers[:2] {
			if strings.Contains(r.URL.Path, d.String()) {
				whole(w, r, serve)
				return
			}
		}
		serve(w, r)
	}
}

// reader reads random files and compares them, until it is told to stop.
func (s *soak) reader() {
	for !s.stop.Load() {
		n := rand.IntN(len(s.files))
		begun := time.Now()
		err := s.read(n)
		s.reads.Add(1)
		if err == nil {
			continue
		}
		s.failed.Add(1)
		// A fault that began and ended during the read counts, too.
		if trouble := time.Unix(0, s.trouble.Load()); !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EACCES) || begun.After(trouble.Add(soakGrace)) {
			s.t.Errorf("file %d: %v, begun %s after the last fault, in %s", n, err, begun.Sub(trouble), time.Since(begun))
		}
	}
}

// read reads a file past the page cache and compares it.
func (s *soak) read(n int) error {
	f, err := os.OpenFile(filepath.Join(s.dir, "f"+strconv.Itoa(n)), os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 128<<10)
	for rest := []byte(s.files[n]); ; {
		m, err := f.Read(buf)
		if m > len(rest) || !bytes.Equal(buf[:m], rest[:m]) {
			return errors.New("wrong bytes")
		}
		rest = rest[m:]
		switch {
		case err == io.EOF && len(rest) > 0:
			return fmt.Errorf("%d bytes are missing", len(rest))
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *soak) readAll(when string) {
	s.t.Helper()
	for n := range s.files {
		if err := s.read(n); err != nil {
			s.t.Errorf("%s: file %d: %v", when, n, err)
		}
	}
}

// A soakSize is what a process takes.
type soakSize struct {
	goroutines, files int
	memory            int64 // bytes in RAM
}

// size returns what the mount takes without connections.
func (s *soak) size() soakSize {
	s.t.Helper()
	s.reg.CloseConnections()
	pid := s.daemon(s.dir)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	size := soakSize{goroutines: s.stats(s.dir).Goroutines, files: len(files)}
	for line := range strings.Lines(readFile(s.t, fmt.Sprintf("/proc/%d/status", pid))) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kB, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			size.memory = kB << 10
		}
	}
	return size
}

// notGrown checks that the mount takes soon what it took before.
func (s *soak) notGrown(before soakSize) {
	s.t.Helper()
	// Whole blobs that the registry sent stay open, one a layer, and go-fuse
	// and the runtime keep a few goroutines and much memory for the next time.
	const goroutines, memory = 10, 64 << 20
	var now soakSize
	small := func() bool {
		now = s.size()
		return now.goroutines <= before.goroutines+goroutines && now.files <= before.files+soakLayers+2 && now.memory <= before.memory+memory
	}
	if !eventually(20*time.Second, small) {
		s.t.Errorf("it has grown: before %+v, now %+v", before, now)
	}
	s.t.Logf("before %+v, now %+v", before, now)
}
