//go:build linux

package fusefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

// A deviceConn reads requests from the FUSE device: several threads block in readv(2) on
// the one descriptor. The goroutine that has read a request answers it; if it was the last
// that reads, it starts another one first. That is as go-fuse does it, whose own loop reads
// to memory that ends with the process.
type deviceConn struct {
	answerer
	device device
	fd     int   // its descriptor, until serve has ended
	why    error // not through io_uring

	memory  *journal.Memory
	journal *journal.Journal
	rest    []byte // where what is longer than a page goes, which nobody reads

	mu      sync.Mutex
	reading int            // goroutines that read
	loops   sync.WaitGroup // goroutines of the connection
	done    chan struct{}  // closed when it has ended
	end     func()         // closes it

	again   replays
	refused atomic.Pointer[map[refusedRequest]bool] // nil: none
}

// maxReading is how many goroutines read at a time, but one.
var maxReading = min(max(runtime.GOMAXPROCS(0), 2), 16)

// restResident is how much of rest is in memory from the beginning.
const restResident = 16 << 10

// newDeviceConn returns a connection on a descriptor of the device, which is its own from
// here on, also if there is an error. a.ps is nil if INIT has not come yet.
func newDeviceConn(fd int, a answerer, why error) (*deviceConn, error) {
	c := &deviceConn{answerer: a, fd: fd, why: why, done: make(chan struct{})}
	c.end = sync.OnceFunc(func() { close(c.done) })
	if c.ps == nil {
		c.ps = fuse.NewProtocolServer(answering(a.raw, a.held), serverOptions(a.raw, a.opts))
	}
	a.raw.gone = func() bool { return c.ended() || isBroken(fd) }
	var err error
	if a.opts.keeps() {
		c.memory = a.opts.Kept.memory
		c.device.File, err = a.opts.Kept.take(fd)
	} else {
		c.device.File = os.NewFile(uintptr(fd), "/dev/fuse")
		c.memory, err = journal.Anonymous()
	}
	if err == nil {
		c.rest, err = unix.Mmap(-1, 0, deviceBuffer, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	}
	if err != nil {
		c.device.Close()
		return nil, err
	}
	for i := 0; i < restResident; i += 4096 {
		c.rest[i] = 1
	}
	c.journal = journal.NewJournal(c.memory)
	return c, nil
}

// connect answers INIT. It closes the descriptor when it fails.
func (c *deviceConn) connect() error {
	p := c.journal.Take()
	defer c.journal.Give(p)
	n, errno := c.read(p)
	if errno != 0 {
		c.device.Close()
		return fmt.Errorf("waiting for INIT: %w", errno)
	}
	request := p.Request()[:n]
	can, err := initFlags(request)
	if err == nil {
		c.raw.negotiated(can)
		var reply []byte
		if reply, err = c.respond(request); err == nil && c.opts.keeps() {
			err = c.opts.Kept.keepInit(request, reply)
		}
	}
	p.Done()
	if err != nil {
		c.device.Close()
	}
	return err
}

func (c *deviceConn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// read reads a request to a page, and returns how much of it is there.
func (c *deviceConn) read(p journal.Page) (int, unix.Errno) {
	to := [2]unix.Iovec{{Base: p.Buffer()}, {Base: &c.rest[0]}}
	to[0].SetLen(journal.RequestSize)
	to[1].SetLen(len(c.rest))
	n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(c.fd), uintptr(unsafe.Pointer(&to)), uintptr(len(to)))
	switch {
	case errno != 0:
		return 0, errno
	case n < inHeader:
		return 0, unix.EINVAL
	}
	return min(int(n), journal.RequestSize), 0
}

func (c *deviceConn) serve() {
	c.loops.Go(c.loop)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.loops.Wait()
	}()
	select {
	case <-c.done:
	case <-ended:
	}
	c.end()
	c.finish(ended)
	c.device.Close()
	_ = unix.Munmap(c.rest)
	if !c.opts.keeps() {
		c.memory.Close()
	}
}

// finish waits for all requests that are under way, which nobody waits for any more.
func (c *deviceConn) finish(ended <-chan struct{}) {
	for {
		for _, id := range c.journal.UnderWay() {
			c.interrupt(id)
		}
		// A request may not have got as far as to be interrupted.
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// loop reads requests and answers them, as long as not too many do.
func (c *deviceConn) loop() {
	p := c.journal.Take()
	defer func() { c.journal.Give(p) }()
	for c.begin() {
		n, errno := c.read(p)
		request := p.Request()[:n:n]
		c.ends(errno == 0 && opcode(request) != opForget && opcode(request) != opBatchForget)
		switch errno {
		case 0:
		case unix.ENOENT, unix.EINTR, unix.EAGAIN: // it was interrupted before it was read
			continue
		case unix.ENODEV:
			c.end()
			return
		default:
			c.opts.logf("reading from the FUSE device: %v", errno)
			return
		}
		c.answer(p, request)
		p.Done()
		if p.Extra() {
			c.journal.Give(p)
			p = c.journal.Take()
		}
		p.Reset()
	}
}

// begin says that the caller is about to read. It returns false if there are enough who do.
func (c *deviceConn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading > maxReading {
		return false
	}
	c.reading++
	return true
}

// ends says that the caller has read. If nobody else reads, another goroutine is to, unless
// the request takes no time.
func (c *deviceConn) ends(takesTime bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading--
	if takesTime && c.reading == 0 {
		c.loops.Go(c.loop)
	}
}

// answer answers the request in a page.
func (c *deviceConn) answer(p journal.Page, request []byte) {
	switch opcode(request) {
	case opForget, opBatchForget: // nothing is remembered
	case opInterrupt:
		if len(request) >= inHeader+8 {
			c.passOn(request)
		}
	default:
		p.Begin()
		_, _ = c.respond(request) // it has logged it
	}
}

// passOn interrupts a request. If that has not come as far, the kernel is to say it again.
func (c *deviceConn) passOn(request []byte) {
	id := binary.NativeEndian.Uint64(request[inHeader:])
	if c.again.interrupted(id) || c.interrupt(id) {
		return
	}
	var later [outHeader]byte
	putReply(later[:], unique(request), unix.EAGAIN, 0)
	_ = c.write(later[:])
}

// respond answers a request, and returns a copy of the reply to INIT. Errors are logged but
// for those of callers who are gone.
func (c *deviceConn) respond(request []byte) ([]byte, error) {
	b := takeReply(room(request))
	defer b.give()
	n, ok := 0, false
	switch {
	case c.isRefused(request):
		putReply(b.head(), unique(request), unix.EIO, 0)
		ok = true
	case opcode(request) == opRead && (c.held == nil || c.held.open.Load()):
		n, ok = c.tryRead(request, b.head(), b.payload())
	}
	if !ok {
		n = c.Answer(request, b.head(), b.payload())
	}
	reply := b.reply(n)
	err := c.write(reply)
	switch op := opcode(request); {
	case op == opInit:
		return append([]byte{}, reply...), err
	case op == opOpen && errors.Is(err, unix.ENOENT) && c.raw.pass != nil:
		c.raw.pass.undo(reply)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !c.raw.gone() {
		c.opts.logf("answering a request of the kernel: %v", err)
	}
	return nil, err
}

// write writes a reply.
func (c *deviceConn) write(reply []byte) error {
	for {
		_, err := unix.Write(c.fd, reply)
		if err != unix.EINTR {
			return err
		}
	}
}

func (c *deviceConn) register(fd uintptr) (int32, error) { return c.device.register(fd) }
func (c *deviceConn) unregister(id int32) error          { return c.device.unregister(id) }

func (c *deviceConn) fastPaths() []FastPath { return []FastPath{fastPath(uringPath, c.why)} }
