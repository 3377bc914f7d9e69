//go:build linux

package uring

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func needRing(t *testing.T) {
	t.Helper()
	if err := Probe(); err != nil {
		t.Skip(err)
	}
}

// testRing makes a ring, and an eventfd to read through it.
func testRing(t *testing.T, entries, completions uint32) (r *ring, fd int) {
	t.Helper()
	needRing(t)
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := newRing(entries, completions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return r, fd
}

func TestRing(t *testing.T) {
	r, fd := testRing(t, 2, 16)
	counter := new([8]byte)
	// More than the submission queue takes at a time.
	const reads = 7
	for i := range reads {
		s, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		s.read(fd, unsafe.Pointer(counter), uint64(i))
	}
	if err := r.enter(0, 0); err != nil {
		t.Fatal(err)
	}
	if got := r.reap(nil); len(got) > 0 {
		t.Fatalf("%+v of an eventfd that nobody wrote to", got)
	}
	seen := map[uint64]bool{}
	for range reads {
		if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if err := r.enter(1, 0); err != nil {
			t.Fatal(err)
		}
		for _, c := range r.reap(nil) {
			if c.res != 8 || *counter == [8]byte{} {
				t.Errorf("%+v, want 8 bytes", c)
			}
			seen[c.userData] = true
		}
	}
	if len(seen) != reads {
		t.Errorf("%d completions, want %d", len(seen), reads)
	}
}

func TestRingTimeout(t *testing.T) {
	r, _ := testRing(t, 1, 2)
	if err := r.enter(1, time.Millisecond); !errors.Is(err, unix.ETIME) {
		t.Errorf("%v, want %v", err, unix.ETIME)
	}
}

func TestSetupError(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{unix.ENOSYS, ErrUnsupported},
		{unix.EINVAL, ErrUnsupported},
		{unix.EPERM, ErrForbidden},
		{unix.ENOMEM, unix.ENOMEM},
	} {
		if got := setupError(c.err); !errors.Is(got, c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

type noHandler struct{}

func (noHandler) Try(_, _, _ []byte) (int, bool) { return 0, false }
func (noHandler) Answer(_, _, _ []byte) int      { return 0 }

// An engine that is never used leaves nothing, and one that gets another file
// than a FUSE device says so.
func TestEngineWithoutDevice(t *testing.T) {
	needRing(t)
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	other, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before := files()
	for _, use := range []bool{false, true} {
		e, err := New(Config{Handler: noHandler{}, Payload: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if d := e.Depth(); d < minEntries {
			t.Errorf("%d entries a queue, want at least %d", d, minEntries)
		}
		if use {
			if err := e.Register(int(other.Fd())); err == nil {
				t.Error("registering at something that is no FUSE device worked")
			}
		}
		e.Close()
	}
	if after := files(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// What a large reply took is given back when there is nothing to do, except
// from entries that are being used.
func TestGiveBack(t *testing.T) {
	needRing(t)
	e, err := New(Config{Handler: noHandler{}, Payload: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	l := &loop{e: e, entries: e.loops[0].entries[:3]}
	for i, x := range l.entries {
		for j := range x.payload {
			x.payload[j] = 1
		}
		x.large = i > 0
	}
	l.large = 2
	l.entries[2].busy = true // whether it is being answered or has been
	l.giveBack()
	for i, want := range []byte{1, 0, 1} {
		x := l.entries[i]
		if last := x.payload[len(x.payload)-1]; last != want || x.payload[kept-1] != 1 || x.large != (i == 2) {
			t.Errorf("entry %d: its last byte is %d, want %d", i, last, want)
		}
	}
	if l.large != 1 {
		t.Errorf("%d large entries, want 1", l.large)
	}
}
