//go:build linux

package uring

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many commands are submitted at a time.
	batch = 64
	// idle is how long there must be no request before memory is given back.
	idle = time.Second
	// wakeData marks the completion of a read of the eventfd.
	wakeData = ^uint64(0)
	// inlineRequest is how long a request is whose copy needs no allocation:
	// a READ.
	inlineRequest = 80
)

// A step is what the thread of a loop is to do next.
type step int

const (
	setUp step = iota // make the ring
	register
	serve
)

// An entry is a place for a request.
type entry struct {
	loop    *loop
	queue   uint16
	index   uint64 // in the loop
	header  header
	payload []byte

	dead bool // the kernel has given it up
	busy bool // from a request to the reply that is handed to the kernel
	// large says that the payload may hold more than kept bytes of memory.
	large   bool
	commit  uint64        // commit_id of the request
	waiting atomic.Uint64 // unique number of the request that a goroutine answers
	request [inlineRequest]byte
}

// A loop is a thread with a ring, and the entries of one or more queues.
type loop struct {
	e       *Engine
	cpu     int
	queues  int
	entries []*entry
	device  int // descriptor
	steps   chan step
	results chan error // of steps but serve

	// These are the thread's own.
	ring   *ring
	live   int // entries that are not dead
	cqes   []cqe
	large  int    // entries that are large
	buf    []byte // of the request that the thread answers
	handed bool   // goroutines were started since the thread waited
	failed error

	wakeFD  int
	counter unsafe.Pointer // to 8 bytes, for what reading wakeFD gives
	stop    atomic.Bool
	quitted sync.Once

	// sleeping is set while the thread waits, or is about to.
	sleeping atomic.Bool
	mu       sync.Mutex
	done     []*entry // answered by goroutines
	taken    []*entry // the same slice, in turns
}

// run is the thread, which ends with it, since it is never unlocked: nothing
// else must run on a thread that is kept on one processor.
func (l *loop) run() {
	runtime.LockOSThread()
	for s := range l.steps {
		switch s {
		case setUp:
			l.results <- l.make()
		case register:
			l.results <- l.register()
		case serve:
			l.serve()
			return
		}
	}
}

func (l *loop) make() error {
	pin(l.cpu)
	var err error
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	l.ring, err = newRing(batch, uint32(2*(len(l.entries)+1)))
	return err
}

// register adds the entries. Each queue must get at least one.
func (l *loop) register() error {
	for i := range l.entries {
		// The last one is used first.
		x := l.entries[len(l.entries)-1-i]
		s, err := l.ring.next()
		if err != nil {
			return err
		}
		s.register(l.device, x.queue, unsafe.Pointer(&x.header[:vectorOffset+1][vectorOffset]), x.index)
	}
	if err := l.ring.enter(0, 0); err != nil {
		return err
	}
	l.cqes = l.ring.reap(l.cqes[:0])
	l.live = len(l.entries)
	rest := l.cqes[:0]
	err := errNoEntry
	for _, c := range l.cqes {
		if c.res >= 0 {
			rest = append(rest, c) // a request already
			continue
		}
		l.entries[c.userData].dead = true
		l.live--
		err = unix.Errno(-c.res)
	}
	l.cqes = rest
	alive := map[uint16]bool{}
	for _, x := range l.entries {
		alive[x.queue] = alive[x.queue] || !x.dead
	}
	for _, ok := range alive {
		if !ok {
			return err
		}
	}
	return nil
}

// serve takes requests until the kernel has given up all entries.
func (l *loop) serve() {
	l.watch()
	l.handle()
	for l.failed == nil && l.live > 0 && !l.stop.Load() {
		l.wait()
		l.cqes = l.ring.reap(l.cqes[:0])
		l.handle()
	}
	if l.failed != nil {
		l.e.fail(l.failed)
	}
	// Nobody has any use for answers from here on.
	l.sleeping.Store(false)
}

// wait submits what there is to submit and waits for a completion.
func (l *loop) wait() {
	if l.handed {
		// The runtime leaves a thread that waits in the kernel its share of
		// the processors for up to 10 ms. New goroutines must not wait that
		// long for theirs.
		l.handed = false
		runtime.Gosched()
	}
	l.sleeping.Store(true)
	n, timeout := 1, time.Duration(0)
	if l.isDone() || l.stop.Load() {
		n = 0
	} else if l.large > 0 {
		timeout = idle
	}
	err := l.ring.enter(n, timeout)
	l.sleeping.Store(false)
	switch {
	case errors.Is(err, unix.ETIME):
		l.giveBack()
	case err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY):
		l.failed = err
	}
}

// handle looks at all completions, and at what goroutines have answered.
func (l *loop) handle() {
	for _, c := range l.cqes {
		if c.userData == wakeData {
			l.watch()
			continue
		}
		x := l.entries[c.userData]
		if c.res < 0 {
			l.bury(x, unix.Errno(-c.res))
			continue
		}
		l.receive(x)
	}
	l.mu.Lock()
	l.done, l.taken = l.taken[:0], l.done
	l.mu.Unlock()
	for _, x := range l.taken {
		l.reply(x)
	}
}

// bury takes note that the kernel has given up an entry.
func (l *loop) bury(x *entry, err error) {
	if x.dead {
		return
	}
	x.dead = true
	l.live--
	switch err {
	case unix.ENOTCONN, unix.ECONNABORTED, unix.ECANCELED:
	default:
		l.failed = err
	}
}

// receive answers a request, or has a goroutine do it.
func (l *loop) receive(x *entry) {
	x.commit, x.busy = x.header.commitID(), true
	// A copy, as the reply goes to the same place.
	l.buf = x.header.request(l.buf[:0], x.payload)
	if len(l.buf) == 0 {
		x.header.fail(unix.EIO)
		x.header.setReply(0)
		l.reply(x)
		return
	}
	head := x.header[:outHeaderSize:outHeaderSize]
	if n, ok := l.e.cfg.Handler.Try(l.buf, head, x.payload); ok {
		x.header.setReply(n)
		l.reply(x)
		return
	}
	request := append(x.request[:0], l.buf...)
	l.handed = true
	x.waiting.Store(x.header.unique())
	l.e.workers.Go(func() {
		x.header.setReply(l.e.cfg.Handler.Answer(request, head, x.payload))
		x.waiting.Store(0)
		l.finished(x)
	})
}

// reply hands a reply to the kernel with what is submitted next.
func (l *loop) reply(x *entry) {
	// Something that failed may have got far.
	if !x.large && (x.header.reply() > kept || x.header.failed()) {
		x.large = true
		l.large++
	}
	s, err := l.ring.next()
	if err != nil {
		l.failed = err
		return
	}
	s.commit(l.device, x.queue, x.commit, x.index)
	x.busy = false
}

// finished is reply for other goroutines.
func (l *loop) finished(x *entry) {
	l.mu.Lock()
	l.done = append(l.done, x)
	l.mu.Unlock()
	if l.sleeping.CompareAndSwap(true, false) {
		l.wake()
	}
}

func (l *loop) isDone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done) > 0
}

// wake ends the thread's wait.
func (l *loop) wake() {
	if l.wakeFD >= 0 {
		one := [8]byte{1}
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(l.wakeFD, one[:])
	}
}

// watch has the next wake complete a command.
func (l *loop) watch() {
	s, err := l.ring.next()
	if err != nil {
		l.failed = err
		return
	}
	s.read(l.wakeFD, unsafe.Pointer(l.counter), wakeData)
}

// giveBack returns the memory of large replies, of entries that wait for a
// request. A reply that the thread has not handed on yet must stay.
func (l *loop) giveBack() {
	for _, x := range l.entries {
		if x.large && !x.busy {
			_ = unix.Madvise(x.payload[kept:], unix.MADV_DONTNEED)
			x.large = false
			l.large--
		}
	}
}

// quit ends the thread if it does not serve.
func (l *loop) quit() { l.quitted.Do(func() { close(l.steps) }) }

// close gives back what the thread had, which has ended.
func (l *loop) close() {
	if l.ring != nil {
		l.ring.close()
	}
	if l.wakeFD >= 0 {
		_ = unix.Close(l.wakeFD)
	}
}
