//go:build linux

package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of io_uring_setup(2) and io_uring_enter(2).
const (
	setupCQSize       = 1 << 3
	setupSubmitAll    = 1 << 7
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	setupNoSQArray    = 1 << 16

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	featSingleMmap = 1 << 0

	offsetRings = 0
	offsetSQEs  = 0x10000000

	cqeSize = 16
)

// setupFlags: one thread alone uses a ring, so the kernel need not interrupt
// it to run task work. All are older than FUSE over io_uring.
const setupFlags = setupCQSize | setupSubmitAll | setupSQE128 | setupSingleIssuer | setupDeferTaskrun | setupNoSQArray

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32

	_  [3]uint32
	sq struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		userAddr                                                    uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		userAddr                                                    uint64
	}
}

// enterArg is struct io_uring_getevents_arg, and the time that it points to.
type enterArg struct {
	sigmask         uint64
	sigmaskSize, _  uint32
	timespec        uint64
	seconds, nanosc int64
}

// A cqe is an entry of a completion queue.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// A ring is an io_uring, of the thread that made it.
type ring struct {
	fd          int
	rings, sqes []byte // mapped

	sqHead, sqTail, cqHead, cqTail *uint32 // shared with the kernel
	sqMask, cqMask                 uint32
	cqes                           unsafe.Pointer

	tail uint32 // of the submission queue, ahead of *sqTail by what is not yet submitted
	arg  *enterArg
}

// newRing makes a ring with room for submitting so many entries at a time, and
// for so many completions.
func newRing(entries, completions uint32) (*ring, error) {
	p := ringParams{flags: setupFlags, cqEntries: completions}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &ring{fd: int(fd), arg: new(enterArg)}
	if p.features&featSingleMmap == 0 {
		r.close()
		return nil, unix.EINVAL
	}
	if err := r.mmap(&p); err != nil {
		r.close()
		return nil, fmt.Errorf("mapping an io_uring: %w", err)
	}
	return r, nil
}

func (r *ring) mmap(p *ringParams) (err error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := int(p.cq.cqes + p.cqEntries*cqeSize)
	if r.rings, err = unix.Mmap(r.fd, offsetRings, size, prot, flags); err != nil {
		return err
	}
	if r.sqes, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*sqeSize, prot, flags); err != nil {
		return err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqMask = at(p.sq.head), at(p.sq.tail), *at(p.sq.ringMask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.ringMask)
	r.cqes = unsafe.Pointer(&r.rings[p.cq.cqes])
	return nil
}

// close gives the ring up. The kernel cancels what is under way.
func (r *ring) close() {
	for _, m := range [][]byte{r.rings, r.sqes} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(r.fd)
}

// next returns the next free entry of the submission queue. It submits the
// others if there is none.
func (r *ring) next() (*sqe, error) {
	for r.tail-atomic.LoadUint32(r.sqHead) > r.sqMask {
		if err := r.enter(0, 0); err != nil {
			return nil, err
		}
	}
	s := (*sqe)(unsafe.Pointer(&r.sqes[(r.tail&r.sqMask)*sqeSize]))
	r.tail++
	return s, nil
}

// enter submits all entries, and waits for so many completions, if timeout is
// not 0 no longer than that. It may return earlier, when a signal came.
func (r *ring) enter(wait int, timeout time.Duration) error {
	atomic.StoreUint32(r.sqTail, r.tail)
	submit := r.tail - atomic.LoadUint32(r.sqHead)
	var flags uintptr = enterGetEvents
	var arg unsafe.Pointer
	var size uintptr
	if timeout != 0 {
		flags |= enterExtArg
		r.arg.seconds, r.arg.nanosc = int64(timeout/time.Second), int64(timeout%time.Second)
		r.arg.timespec = uint64(uintptr(unsafe.Pointer(&r.arg.seconds)))
		arg, size = unsafe.Pointer(r.arg), unsafe.Offsetof(r.arg.seconds)
	}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), flags, uintptr(arg), size)
	if errno == 0 || errno == unix.EINTR {
		return nil
	}
	return errno
}

// reap appends the completions that are there to buf.
func (r *ring) reap(buf []cqe) []cqe {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; head != tail; head++ {
		buf = append(buf, *(*cqe)(unsafe.Add(r.cqes, uintptr(head&r.cqMask)*cqeSize)))
	}
	atomic.StoreUint32(r.cqHead, head)
	return buf
}

// Why there is no io_uring.
var (
	// ErrUnsupported is for kernels without it, or without what came before
	// FUSE over io_uring. Filters of system calls can look the same.
	ErrUnsupported = errors.New("the kernel's io_uring is too old, or there is none")
	// ErrForbidden is for processes that may not use it.
	ErrForbidden = errors.New("io_uring is not permitted")
)

// Probe reports whether this process can make rings as they are needed here.
func Probe() error {
	r, err := newRing(1, 2)
	if err != nil {
		return setupError(err)
	}
	r.close()
	return nil
}

// setupError says what it means that a ring cannot be made.
func setupError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return fmt.Errorf("io_uring_setup: %w", err)
}
