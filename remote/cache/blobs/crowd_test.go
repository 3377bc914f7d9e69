package blobs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	crowdImages = 20
	crowdBudget = 24 << 20
	crowdSize   = 3 // processes
)

// A crowdImage is one of the images that the processes of a crowd use.
type crowdImage struct {
	meta.Image
	blobs  []plainBlob
	chunks []Chunks
	index  int // bytes
}

// crowdImagesOf makes the images, the same in each process: three times as
// many bytes as the budget.
func crowdImagesOf() []crowdImage {
	r := rand.New(rand.NewPCG(1, 2))
	images := make([]crowdImage, crowdImages)
	for i := range images {
		img := &images[i]
		img.Name = "example.com/crowd:" + strconv.Itoa(i)
		img.Manifest = digest.FromString(img.Name)
		img.Platform = "linux/amd64"
		img.index = 1000 + r.IntN(200_000)
		for l := range 1 + r.IntN(4) {
			src := plainBlob{&cachetest.FakeBlob{Data: cachetest.RandomBytes(1000+r.IntN(3<<20), uint64(1000+10*i+l))}}
			img.blobs = append(img.blobs, src)
			img.chunks = append(img.chunks, chunksOf(src.Data, usualChunk))
			img.Layers = append(img.Layers, meta.ImageLayer{Digest: src.Digest(), Size: src.Size(), DiffID: src.Digest()})
		}
	}
	return images
}

// crowd uses images through a cache with a budget as imgfs does, until its
// input ends or it is killed. It says what went wrong.
func crowd(dir string) {
	fail := func(format string, args ...any) {
		fmt.Printf("wrong: "+format+"\n", args...)
		os.Exit(1)
	}
	images := crowdImagesOf()
	over := make(chan struct{})
	go func() {
		var p [1]byte
		os.Stdin.Read(p[:])
		close(over)
	}()
	fmt.Println("ready")
	for {
		c, err := openTest(dir, &testOptions{Budget: crowdBudget, Warnf: fail})
		if err != nil {
			fail("%v", err)
		}
		c.Idle = 0 // so that contents come and go
		for range 5 {
			if err := useImage(c, &images[rand.IntN(len(images))]); err != nil {
				fail("%v", err)
			}
			select {
			case <-over:
				c.Close()
				return
			default:
			}
		}
		c.Close()
	}
}

// useImage is what a mount does: blobs are recorded the first time, layers at
// a time, their indexes written, and some of them read.
func useImage(c *testCache, img *crowdImage) error {
	c.NoteImage(img.Image)
	var wg sync.WaitGroup
	errs := make(chan error, 2*len(img.blobs))
	for l, src := range img.blobs {
		wg.Go(func() {
			errs <- firstReading(c, img, l)
		})
		wg.Go(func() {
			b, err := c.Blob(src, img.chunks[l])
			if err != nil {
				errs <- err
				return
			}
			for range 10 {
				if err := randomRead(b, src); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	c.KeepMeta(img.blobs[0].Digest(), img.blobs[0].Data[:1000])
	for _, src := range img.blobs {
		if err := useContent(c, src.Data[:min(len(src.Data), 1<<20)]); err != nil {
			return err
		}
	}
	return nil
}

func firstReading(c *testCache, img *crowdImage, l int) error {
	src := img.blobs[l]
	name := c.Name(directory.Indexes, src.Digest())
	release, err := c.Claim(context.Background(), src.Digest())
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Stat(c.at(name)); err == nil {
		return nil
	}
	r, err := c.Record(src)
	if err != nil {
		return err
	}
	defer r.Abort()
	for p := src.Data; len(p) > 0; {
		n := min(len(p), 32<<10)
		r.Write(p[:n])
		p = p[n:]
	}
	if c.MakeRoom(int64(img.index)) {
		if err := directory.WriteFile(c.Files(), name, make([]byte, img.index)); err != nil {
			return err
		}
	}
	return r.Commit(img.chunks[l])
}

// A member is a process of a crowd.
type member struct {
	*exec.Cmd
	in  *os.File
	out *bytes.Buffer
}

func startMember(t *testing.T, dir string) member {
	t.Helper()
	cmd := child(t, "crowd", dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return member{cmd, w, &out}
}

// end ends a process, by force or by asking it to.
func (m member) end(t *testing.T, kill bool) {
	t.Helper()
	if kill {
		m.Process.Kill()
	}
	m.in.Close()
	err := m.Wait()
	if out := strings.TrimPrefix(m.out.String(), "ready\n"); out != "" || err != nil && !kill {
		t.Errorf("process: %v: %s", err, out)
	}
}

// members are the processes that use a directory. They change and are stopped
// with mu held.
type members struct {
	mu  sync.Mutex
	all []member
}

// pause stops all processes until resume is called: who adds up a directory
// while chunks move from one file to another counts some twice.
func (c *members) pause() (resume func()) {
	c.mu.Lock()
	for _, m := range c.all {
		m.Process.Signal(unix.SIGSTOP)
	}
	for _, m := range c.all {
		for !m.stopped() {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return func() {
		for _, m := range c.all {
			m.Process.Signal(unix.SIGCONT)
		}
		c.mu.Unlock()
	}
}

// stopped reports whether no thread of the process runs.
func (m member) stopped() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.Process.Pid))
	if err != nil {
		return true
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// proc(5): the state comes behind the name, which is in parentheses.
		state := stat[bytes.LastIndexByte(stat, ')')+2]
		if state != 'T' && state != 'Z' && state != 'X' {
			return false
		}
	}
	return true
}

// sample sums up what a directory takes, over and over until done is closed.
// It keeps the most it found, and returns how often it looked.
func (c *members) sample(dir string, most *atomic.Int64, done <-chan struct{}) (times int) {
	for {
		select {
		case <-done:
			return times
		default:
		}
		resume := c.pause()
		inodes := map[uint64]int64{}
		filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil {
				inodes[st.Ino] = st.Blocks * 512
			}
			return nil
		})
		resume()
		total := int64(0)
		for _, n := range inodes {
			total += n
		}
		most.Store(max(most.Load(), total))
		times++
		time.Sleep(5 * time.Millisecond) // leave something to the others
	}
}

// Several processes use more images than fit, and are killed now and then: the
// directory never takes more than the budget and a chunk for each process.
func TestBudgetOfCrowd(t *testing.T) {
	testenv.Slow(t)
	dir := filepath.Join(t.TempDir(), "cache")
	openCache(t, dir, nil)
	done := make(chan struct{})
	var highest atomic.Int64
	var times int
	var wg sync.WaitGroup
	c := &members{all: make([]member, crowdSize)}
	for i := range c.all {
		c.all[i] = startMember(t, dir)
	}
	wg.Go(func() { times = c.sample(dir, &highest, done) })
	// On a busy machine they take a while to begin.
	for wait := 0; highest.Load() < crowdBudget*8/10 && wait < 60_000; wait += 10 {
		time.Sleep(10 * time.Millisecond)
	}
	kills := 20
	if testing.Short() {
		kills = 5
	}
	for range kills {
		time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		i := rand.IntN(crowdSize)
		c.mu.Lock()
		c.all[i].end(t, true)
		c.all[i] = startMember(t, dir)
		c.mu.Unlock()
	}
	close(done)
	wg.Wait()
	for _, m := range c.all {
		m.end(t, false)
	}
	most := highest.Load()
	t.Logf("of %d samples the highest was %.1f%% of the budget", times, 100*float64(most)/crowdBudget)
	if limit := int64(crowdBudget + crowdSize*usualChunk); most > limit {
		t.Errorf("the directory took %d, want at most %d", most, limit)
	}
	if most < crowdBudget*8/10 {
		t.Errorf("the directory never took more than %d: the budget of %d is not used", most, int64(crowdBudget))
	}
	checkSpace(t, dir)
}

// checkSpace checks that, with nobody left, the next one to write finds what
// is true.
func checkSpace(t *testing.T, dir string) {
	t.Helper()
	c := openCache(t, dir, &testOptions{Budget: 1 << 40})
	if err := c.Room.Locked(func() error {
		rec, err := c.Room.Ledger.Read(c.Room.Boot)
		if err != nil {
			return err
		}
		// Directories that grow, and blob files before their first chunk, are
		// found by the next walk.
		if total := cachetest.Du(t, dir); rec.Known && rec.Used+1<<16 < total {
			t.Errorf("space says that %d are used, du %d", rec.Used, total)
		}
		if rec.Leases != 0 {
			t.Errorf("%d leased by the dead", rec.Leases)
		}
		_, err = c.Room.Recount()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if used, ok := directory.KnownUse(cachetest.FilesAt(t, dir)); !ok || used != cachetest.Du(t, dir) {
		t.Errorf("space says %d, %v, after a walk; du %d", used, ok, cachetest.Du(t, dir))
	}
}
