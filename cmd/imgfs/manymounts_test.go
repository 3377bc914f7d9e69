//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	// mountsEnv says how many mounts TestManyMounts has.
	mountsEnv   = "IMGFS_MOUNTS"
	mountsShort = 10
	// ownSize is the size of each of the files that only one image has.
	ownSize = 100_000
	// ownFiles is how many of these it has.
	ownFiles = 3
)

// A manyMount is one of many, which is read all the time.
type manyMount struct {
	dir   string
	image int
	reads atomic.Int64
}

// manyContent is what a file of an image has.
func manyContent(image, file int) []byte {
	b := make([]byte, ownSize)
	_, _ = rand.NewChaCha8([32]byte{byte(image), byte(file)}).Read(b) // it never fails
	return b
}

// TestManyMounts has many mounts at once, half of them of one image, all with one cache that
// is too small for them. Servers and holders are killed while all are read. Every byte is
// right, and nothing is left.
func TestManyMounts(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	n := mountsShort
	if text := os.Getenv(mountsEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("the variable %s: %v", mountsEnv, err)
		}
	}
	s, reg := newSandbox(t), registrytest.New(t, nil)
	if err := os.Mkdir(s.runtime(), 0o700); err != nil {
		t.Fatal(err)
	}
	mounts, times := s.mountMany(reg, n)
	slices.Sort(times)
	t.Logf("figure: %d mounts: %d ms each, at most %d ms", n, times[n/2].Milliseconds(), times[n-1].Milliseconds())
	s.weigh(mounts, "mounted")
	ctx, stop := make(chan struct{}), sync.WaitGroup{}
	for _, m := range mounts {
		stop.Go(func() {
			for {
				select {
				case <-ctx:
					return
				case <-time.After(time.Duration(rand.Int64N(int64(n) * int64(20*time.Millisecond)))):
				}
				s.readMany(m)
			}
		})
	}
	servers, holders := 0, 0
	for range 2 * n {
		m := &survival{sandbox: s, dir: mounts[rand.IntN(n)].dir}
		server, holder := m.server(), m.holder() // both at once would be the end of it
		if rand.IntN(2) == 0 {
			s.kill(server)
			servers++
		} else {
			s.kill(holder)
			holders++
		}
	}
	before := make([]int64, n)
	for i, m := range mounts {
		before[i] = m.reads.Load()
	}
	for i, m := range mounts {
		if !eventually(time.Minute, func() bool { return m.reads.Load() > before[i] || t.Failed() }) {
			t.Fatalf("%s is not read any more\n%s", m.dir, s.logOf())
		}
	}
	close(ctx)
	stop.Wait()
	t.Logf("%d servers and %d holders were killed", servers, holders)
	s.weigh(mounts, "read, after kills")
	args := []string{"umount"}
	for _, m := range mounts {
		args = append(args, m.dir)
	}
	begun := time.Now()
	s.ok(args...)
	s.waitGone(s.dir)
	t.Logf("all unmounted in %v", time.Since(begun))
	if left := mountsBelow(s.dir); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	if locks := locksBelow(t, s.cache); len(locks) > 0 {
		t.Errorf("still locked: %q", locks)
	}
	s.nothingLeft()
}

// mountMany mounts n times. times is how long each took.
func (s *sandbox) mountMany(reg *registrytest.Server, n int) (mounts []*manyMount, times []time.Duration) {
	s.t.Helper()
	names := make([]string, n/2+1) // 0 is that of the other half
	for i := range names {
		layout := filepath.Join(s.t.TempDir(), "layout")
		_, err := labimage.Write(layout, small, func(a *labimage.Archive) error {
			var errs []error
			for f := range ownFiles {
				errs = append(errs, a.File(fmt.Sprint("noise", f), string(manyContent(i, f))))
			}
			return errors.Join(errs...)
		})
		if err == nil {
			err = reg.PushLayout(layout, fmt.Sprint("many/", i))
		}
		if err != nil {
			s.t.Fatal(err)
		}
		names[i] = fmt.Sprintf("%s/many/%d:%s", reg.Host(), i, labimage.Tag)
	}
	budget := fmt.Sprint("--cache-size=", len(names)*ownFiles*ownSize/2)
	for i := range n {
		m := &manyMount{image: max(0, i-n/2+1)}
		begun := time.Now()
		m.dir = s.mount(names[m.image], budget)
		times = append(times, time.Since(begun))
		mounts = append(mounts, m)
	}
	return mounts, times
}

// readMany reads a mount whole, past what the kernel keeps of it.
func (s *sandbox) readMany(m *manyMount) {
	for f := range ownFiles {
		file, err := os.Open(filepath.Join(m.dir, fmt.Sprint("noise", f)))
		if err != nil {
			s.t.Error(err)
			return
		}
		_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
		text, err := io.ReadAll(file)
		file.Close()
		if err != nil || !bytes.Equal(text, manyContent(m.image, f)) {
			s.t.Errorf("%s: %d bytes, %v, or others than there should be", file.Name(), len(text), err)
			return
		}
	}
	m.reads.Add(1)
}

// weigh prints what the processes of many mounts take, and checks that there are two of each.
func (s *sandbox) weigh(mounts []*manyMount, when string) {
	s.t.Helper()
	var all loadSample
	var private [2][]int64 // of servers, of holders
	threads := 0
	for _, m := range mounts {
		of := &survival{sandbox: s, dir: m.dir}
		for i, pid := range []int{of.server(), of.holder()} {
			all.processes++
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			all.files += len(fds)
			threads += len(tasks)
			all.pss += smaps(pid, "Pss")
			all.rss += smaps(pid, "Rss")
			private[i] = append(private[i], smaps(pid, "Private_Clean")+smaps(pid, "Private_Dirty"))
		}
	}
	for i := range private {
		slices.Sort(private[i])
	}
	n := int64(len(mounts))
	if all.processes != 2*len(mounts) || len(processes(s.dir)) != 2*len(mounts) {
		s.t.Errorf("%s: %d processes for %d mounts, want two each:\n%s", when, len(processes(s.dir)), n, strings.Join(processesKnowing(s.dir), "\n"))
	}
	s.t.Logf("figure: %s: %d MB in all (PSS), private %.1f MB a server and %.1f a holder, %d descriptors and %d threads a mount",
		when, all.pss/1e6, float64(private[0][n/2])/1e6, float64(private[1][n/2])/1e6, int64(all.files)/n, int64(threads)/n)
}
