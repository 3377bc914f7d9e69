//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A stressReading is a process that reads in all ways at random.
type stressReading struct {
	plan *stressPlan
	rnd  *rand.Rand
	done map[string]int // how often, by the way
}

// stressWays are the ways of reading a file.
var stressWays = []struct {
	name string
	read func(r *stressReading, f *stressFile, name string) error
}{
	{"whole", (*stressReading).whole},
	{"pread", (*stressReading).pread},
	{"mmap", (*stressReading).mmap},
	{"open", (*stressReading).openOften},
	{"sendfile", (*stressReading).sendfile},
	{"copy", (*stressReading).copyRange},
	{"direct", (*stressReading).direct},
	{"list", (*stressReading).list},
}

// run reads until the time is over. Every way comes at least once.
func (r *stressReading) run() error {
	for i, end := 0, time.Now().Add(r.plan.Length); i < len(stressWays) || time.Now().Before(end); i++ {
		f := &r.plan.Files[r.rnd.IntN(len(r.plan.Files))]
		if r.rnd.IntN(20) == 0 {
			f = &r.plan.Files[len(r.plan.Files)-1] // the biggest
		}
		w := &stressWays[r.rnd.IntN(len(stressWays))]
		if i < len(stressWays) {
			w = &stressWays[i]
		}
		if err := w.read(r, f, filepath.Join(r.plan.Dir, f.Name)); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		r.done[w.name]++
	}
	return nil
}

// open opens a file, and half of the times has the kernel forget its pages.
func (r *stressReading) open(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err == nil && r.rnd.IntN(2) == 0 {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return f, err
}

// place returns a random place in a file, and a length that may go beyond
// its end, in two of three cases of whole blocks.
func (r *stressReading) place(f *stressFile, longest int64) (off, n int64) {
	off, n = r.rnd.Int64N(f.Size+1), 1+r.rnd.Int64N(longest)
	if r.rnd.IntN(3) > 0 {
		off, n = off/stressBlock*stressBlock, (n+stressBlock-1)/stressBlock*stressBlock
	}
	return off, n
}

// checkRead compares what a read gave, which may be less only at the end.
func (f *stressFile) checkRead(p []byte, off, asked int64) error {
	if want := min(asked, f.Size-off); int64(len(p)) != want {
		return fmt.Errorf("%s: %d bytes from %d on, want %d", f.Name, len(p), off, want)
	}
	return f.check(p, off)
}

// whole reads from the beginning to the end, and takes the SHA-256.
func (r *stressReading) whole(f *stressFile, name string) error {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, 1+r.rnd.IntN(1<<20))
	h, off := sha256.New(), int64(0)
	for {
		n, err := file.Read(buf)
		if err := f.check(buf[:n], off); err != nil {
			return err
		}
		h.Write(buf[:n])
		off += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); off != f.Size || got != f.SHA256 {
		return fmt.Errorf("%s: %d bytes with SHA-256 %s, want %d with %s", f.Name, off, got, f.Size, f.SHA256)
	}
	return nil
}

// pread reads random places.
func (r *stressReading) pread(f *stressFile, name string) error {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	buf := make([]byte, 256<<10)
	for range 1 + r.rnd.IntN(50) {
		off, n := r.place(f, int64(len(buf)))
		got, err := file.ReadAt(buf[:n], off)
		if err != nil && err != io.EOF {
			return err
		}
		if err := f.checkRead(buf[:got], off, n); err != nil {
			return err
		}
	}
	return nil
}

// mmap looks at random places of a mapping. What is beyond the end is zero.
func (r *stressReading) mmap(f *stressFile, name string) (err error) {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	if f.Size == 0 {
		return file.Close()
	}
	protection := unix.PROT_READ
	if r.rnd.IntN(2) == 0 {
		protection |= unix.PROT_EXEC // as programs and libraries are
	}
	m, err := unix.Mmap(int(file.Fd()), 0, int(f.Size), protection, unix.MAP_PRIVATE)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("mmap %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	if r.rnd.IntN(2) == 0 {
		if err := unix.Madvise(m, unix.MADV_RANDOM); err != nil {
			return err
		}
	}
	for range 1 + r.rnd.IntN(50) {
		off, n := r.place(f, 32<<10)
		n = min(n, f.Size-off)
		if err := f.check(m[off:off+n], off); err != nil {
			return err
		}
	}
	rest := unsafe.Slice(&m[0], (len(m)+stressBlock-1)/stressBlock*stressBlock)[len(m):]
	for i, b := range rest {
		if b != 0 {
			return fmt.Errorf("%s: %d bytes beyond its end is %#x, want 0", f.Name, i, b)
		}
	}
	return nil
}

// openOften opens and closes.
func (r *stressReading) openOften(f *stressFile, name string) error {
	for range 1 + r.rnd.IntN(100) {
		file, err := r.open(name)
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		if info.Size() != f.Size {
			return fmt.Errorf("%s: it has %d bytes, want %d", f.Name, info.Size(), f.Size)
		}
	}
	return nil
}

// again repeats a system call that a signal of the Go runtime ended, as
// os.File does.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// sendfile sends a part of a file to a pipe.
func (r *stressReading) sendfile(f *stressFile, name string) error {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	off, n := r.place(f, 4<<20)
	want := min(n, f.Size-off)
	sent := make(chan error, 1)
	go func() {
		var err error
		for at := off; err == nil && at < off+want; {
			var m int
			m, err = again(func() (int, error) { return unix.Sendfile(int(in.Fd()), int(file.Fd()), &at, int(off+want-at)) })
			if m == 0 && err == nil {
				err = io.ErrUnexpectedEOF
			}
		}
		sent <- errors.Join(err, in.Close())
	}()
	got, err := io.ReadAll(out)
	if err := errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return f.checkRead(got, off, n)
}

// copyRange copies a part of a file to one on disk, within the kernel if it
// does that.
func (r *stressReading) copyRange(f *stressFile, name string) error {
	file, err := r.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	to, err := os.CreateTemp(r.plan.Tmp, "copy-")
	if err != nil {
		return err
	}
	defer os.Remove(to.Name())
	defer to.Close()
	off, n := r.place(f, 4<<20)
	want, at, begin := min(n, f.Size-off), off, int64(0)
	for at < off+want {
		m, err := again(func() (int, error) {
			return unix.CopyFileRange(int(file.Fd()), &at, int(to.Fd()), &begin, int(off+want-at), 0)
		})
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			m, err = again(func() (int, error) { return unix.Sendfile(int(to.Fd()), int(file.Fd()), &at, int(off+want-at)) })
		}
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("%s: copying from %d on: %w", f.Name, at, err)
		}
	}
	got, err := os.ReadFile(to.Name())
	if err != nil {
		return err
	}
	return f.checkRead(got, off, n)
}

// direct reads random blocks past the page cache, where that can be done.
func (r *stressReading) direct(f *stressFile, name string) (err error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	defer unix.Close(fd)
	// Memory of the kernel's own is aligned to pages.
	buf, err := unix.Mmap(-1, 0, 256<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Munmap(buf)) }()
	for range 1 + r.rnd.IntN(20) {
		off := r.rnd.Int64N(f.Size+1) / stressBlock * stressBlock
		n := stressBlock * (1 + r.rnd.Int64N(int64(len(buf)/stressBlock)))
		got, err := unix.Pread(fd, buf[:n], off) // a signal of the Go runtime does not end it
		if err != nil {
			return fmt.Errorf("%s: from %d on: %w", f.Name, off, err)
		}
		if err := f.checkRead(buf[:got], off, n); err != nil {
			return err
		}
	}
	return nil
}

// list lists the directory of a file.
func (r *stressReading) list(f *stressFile, name string) error {
	sizes := map[string]int64{}
	for i := range r.plan.Files {
		if x := &r.plan.Files[i]; path.Dir(x.Name) == path.Dir(f.Name) {
			sizes[path.Base(x.Name)] = x.Size
		}
	}
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return err
	}
	if len(entries) != len(sizes) {
		return fmt.Errorf("%s: %d entries, want %d", filepath.Dir(name), len(entries), len(sizes))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if size, ok := sizes[e.Name()]; !ok || size != info.Size() {
			return fmt.Errorf("%s: %s has %d bytes, want %d", filepath.Dir(name), e.Name(), info.Size(), size)
		}
	}
	return nil
}
