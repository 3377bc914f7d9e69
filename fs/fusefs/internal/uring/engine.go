//go:build linux

package uring

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// totalEntries is how many requests can be under way at a time, over all
	// queues; minEntries how many of one queue at least. Reads wait for the
	// network, and those from one processor must not use up its queue: then
	// no other request from there would be answered.
	totalEntries = 512
	minEntries   = 32

	// kept is how many bytes of a payload buffer stay when memory is given
	// back: into those the kernel may put a request at any time, which has
	// names or the argument of an ioctl there.
	kept = 32 << 10
)

// A Handler answers requests, from several goroutines at once. A request is as
// the device would have it. The reply's header of 16 bytes goes to header, what
// follows it to payload; how much of payload that is is returned. None of the
// three may be used afterwards.
type Handler interface {
	// Try answers a request that does not take long. If it does not return
	// true, Answer is called for the request.
	Try(request, header, payload []byte) (n int, ok bool)
	// Answer answers any request, in a goroutine of its own.
	Answer(request, header, payload []byte) (n int)
}

// Config says how to serve.
type Config struct {
	Handler Handler
	// Payload is the largest that the kernel may ask for, in bytes: the
	// greater of max_write and max_pages in bytes.
	Payload int
	// Failed is called at most once, from any goroutine, when a ring stops to
	// work though the connection has not ended.
	Failed func(error)
}

// An Engine takes requests from all queues of a connection.
type Engine struct {
	cfg     Config
	queues  int
	depth   int // entries of a queue
	loops   []*loop
	mapping []byte // headers, then payloads

	failed  sync.Once
	ended   sync.WaitGroup // loops
	workers sync.WaitGroup // goroutines that answer requests
}

// New makes all that is needed, so that little can fail when the kernel has
// been told that there will be queues. It fails where there is no io_uring, or
// no memory. The engine must be closed.
func New(cfg Config) (*Engine, error) {
	n, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	cfg.Payload = roundUp(max(cfg.Payload, minPayload))
	depth := max(minEntries, totalEntries/n)
	e := &Engine{cfg: cfg, queues: n, depth: depth}
	headers := roundUp(n * depth * headerStride)
	e.mapping, err = unix.Mmap(-1, 0, headers+n*depth*cfg.Payload, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory for requests: %w", err)
	}
	// A reply of a few bytes must not cost a page of 2 MiB.
	_ = unix.Madvise(e.mapping, unix.MADV_NOHUGEPAGE)
	e.makeLoops(e.mapping[:headers], e.mapping[headers:])
	if err := e.each(setUp); err != nil {
		e.Close()
		return nil, setupError(err)
	}
	return e, nil
}

func roundUp(n int) int {
	page := unix.Getpagesize()
	return (n + page - 1) / page * page
}

// makeLoops starts a thread for each processor that this process may use, and
// has them serve the queues of the others as well.
func (e *Engine) makeLoops(headers, payloads []byte) {
	cpus := usableCPUs(e.queues)
	of := make(map[int]*loop, len(cpus))
	for _, cpu := range cpus {
		l := &loop{e: e, cpu: cpu, steps: make(chan step), results: make(chan error, 1), wakeFD: -1}
		e.loops = append(e.loops, l)
		of[cpu] = l
	}
	for q := range e.queues {
		l := of[q]
		if l == nil {
			l = e.loops[q%len(e.loops)]
		}
		l.queues++
		for i := q * e.depth; i < (q+1)*e.depth; i++ {
			x := &entry{
				loop:    l,
				queue:   uint16(q),
				index:   uint64(len(l.entries)),
				header:  header(headers[i*headerStride:][:headerSize:headerStride]),
				payload: payloads[i*e.cfg.Payload:][:e.cfg.Payload:e.cfg.Payload],
			}
			x.header.setVector(x.payload)
			l.entries = append(l.entries, x)
		}
	}
	for _, l := range e.loops {
		// Unused space behind the vector of some entry.
		l.counter = unsafe.Pointer(&l.entries[0].header[:headerStride][counterOffset])
		e.ended.Go(l.run)
	}
}

// Depth returns how many requests of one processor can be under way at a time.
func (e *Engine) Depth() int { return e.depth }

// each has all loops take a step, and returns the first error.
func (e *Engine) each(s step) error {
	for _, l := range e.loops {
		l.steps <- s
	}
	var err error
	for _, l := range e.loops {
		if e := <-l.results; err == nil {
			err = e
		}
	}
	return err
}

// Register adds the entries of all queues to the connection of a descriptor of
// the FUSE device, which must stay open. INIT must have been answered. If it
// fails, requests come through the device.
func (e *Engine) Register(fd int) error {
	for _, l := range e.loops {
		l.device = fd
	}
	if err := e.each(register); err != nil {
		return fmt.Errorf("registering the queues: %w", err)
	}
	return nil
}

// Serve answers requests until the connection ends.
func (e *Engine) Serve() {
	for _, l := range e.loops {
		l.steps <- serve
	}
	e.ended.Wait()
	e.workers.Wait()
}

// Unanswered returns the unique numbers of the requests that goroutines of
// their own are answering now.
func (e *Engine) Unanswered() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, l := range e.loops {
			for _, x := range l.entries {
				if u := x.waiting.Load(); u != 0 && !yield(u) {
					return
				}
			}
		}
	}
}

// Stop has Serve return, at any time. The kernel takes away the queues then.
func (e *Engine) Stop() {
	for _, l := range e.loops {
		l.stop.Store(true)
		l.wake()
	}
}

// Close gives everything back. Serve must have returned, or not have been
// called.
func (e *Engine) Close() {
	for _, l := range e.loops {
		l.quit()
	}
	e.ended.Wait()
	e.workers.Wait()
	for _, l := range e.loops {
		l.close()
	}
	_ = unix.Munmap(e.mapping)
	e.mapping = nil
}

// fail reports that a loop cannot go on.
func (e *Engine) fail(err error) {
	e.failed.Do(func() { e.cfg.Failed(err) })
}

var errNoEntry = errors.New("a queue got no entry")
