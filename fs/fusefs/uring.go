//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/uring"
)

const (
	// uringPath is the name of the fast path.
	uringPath = "io-uring"
	// uringParameter is the module's parameter that lets connections use it.
	uringParameter = "/sys/module/fuse/parameters/enable_uring"
)

// uringPayload is the size of the buffers for requests. Tests make the kernel
// refuse them.
var uringPayload = maxRead

// whyNoURing returns why a mount cannot take its requests through io_uring, as
// far as that can be told before there is a connection. The kernel must not be
// told that it will if it then does not: requests would wait for ever.
func whyNoURing(opts *Options) error {
	if opts.IOUring == Off || opts.disabled&fuse.CAP_OVER_IO_URING != 0 {
		return errTurnedOff
	}
	if err := parameterError(os.ReadFile(uringParameter)); err != nil {
		return err
	}
	if err := uring.Probe(); err != nil {
		// Without the file only a filter of system calls can be the reason.
		disabled, _ := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
		return forbidden(err, string(disabled))
	}
	return nil
}

// parameterError returns what it means that the module's parameter was read so.
func parameterError(enabled []byte, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return lacks("FUSE over io_uring, which came with 6.14")
	case err == nil && !strings.HasPrefix(string(enabled), "Y"):
		return errors.New("the module parameter enable_uring of fuse is N")
	}
	return err
}

// forbidden adds to the error of a probe what the administrator has decided.
func forbidden(err error, disabled string) error {
	disabled = strings.TrimSpace(disabled)
	if errors.Is(err, uring.ErrForbidden) && disabled != "" && disabled != "0" {
		return fmt.Errorf("io_uring is disabled (kernel.io_uring_disabled is %s)", disabled)
	}
	return err
}

// noURing is the error of a mount that must take requests through io_uring and
// cannot.
func noURing(why error) error { return fmt.Errorf("no FUSE over io_uring: %w", why) }

// A uringConn takes requests through io_uring, and those that the kernel does
// not send there from the FUSE device. If the kernel did not take the queues,
// all come from the device.
type uringConn struct {
	answerer
	device device
	engine *uring.Engine // nil if why is set
	why    error

	done     chan struct{}  // closed when the connection has ended
	others   sync.WaitGroup // goroutines for requests from the device
	waiting  sync.Map       // of the unique numbers of those
	retrying atomic.Int32   // how many of them try again to interrupt
}

// newURingConn makes all that can be made before there is a connection. It
// fails if requests cannot come through io_uring, as far as that can be known
// by then.
func newURingConn(raw *rawFS, held *gate, opts *Options) (*uringConn, error) {
	if err := whyNoURing(opts); err != nil {
		return nil, err
	}
	c := &uringConn{answerer: answerer{raw: raw, held: held, opts: opts}, done: make(chan struct{})}
	var err error
	if c.engine, err = uring.New(uring.Config{Handler: c, Payload: uringPayload, Failed: c.failed}); err != nil {
		return nil, err
	}
	o := serverOptions(raw, opts)
	o.ExtraCapabilities |= fuse.CAP_OVER_IO_URING
	// Reads ahead must leave entries of a queue for all else.
	o.MaxBackground = min(o.MaxBackground, c.engine.Depth()*3/4)
	c.ps = fuse.NewProtocolServer(answering(raw, held), o)
	return c, nil
}

// connect answers INIT and registers the queues. It closes the connection, and
// the descriptor, when it fails.
func (c *uringConn) connect(fd int) error {
	// So that reading can be ended by closing it.
	if err := unix.SetNonblock(fd, true); err != nil {
		c.close()
		return errors.Join(err, unix.Close(fd))
	}
	c.device = device{os.NewFile(uintptr(fd), "/dev/fuse")}
	can, err := c.init()
	if err == nil {
		c.raw.negotiated(can)
		c.raw.gone = c.ended
		err = c.registerQueues(can)
	}
	if err != nil {
		c.close()
	}
	return err
}

// ended reports whether the connection has.
func (c *uringConn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// init answers INIT and returns the kernel's capabilities.
func (c *uringConn) init() (can uint64, err error) {
	buf := make([]byte, deviceBuffer)
	n, err := c.read(buf)
	if err != nil {
		return 0, fmt.Errorf("waiting for INIT: %w", err)
	}
	if can, err = initFlags(buf[:n]); err != nil {
		return 0, err
	}
	return can, c.respond(buf[:n])
}

// registerQueues has the kernel send requests through io_uring. If it does not,
// they come through the device, which is an error only where that was not
// wanted.
func (c *uringConn) registerQueues(can uint64) error {
	c.why = lacks("FUSE over io_uring for this mount")
	if can&fuse.CAP_OVER_IO_URING != 0 {
		c.why = c.device.control(func(fd uintptr) error { return c.engine.Register(int(fd)) })
	}
	if c.why == nil {
		return nil
	}
	if c.opts.IOUring == On {
		return noURing(c.why)
	}
	c.engine.Close()
	c.engine = nil
	return nil
}

// close gives back all that the connection has.
func (c *uringConn) close() {
	if c.engine != nil {
		c.engine.Close()
	}
	_ = c.device.Close() // nil does no harm
}

// failed ends the connection. The device stays open until the rings are no
// longer used, as they know it by its number.
func (c *uringConn) failed(err error) {
	c.opts.logf("io_uring: %v", err)
	c.engine.Stop()
	_ = c.device.SetReadDeadline(time.Unix(1, 0))
}

func (c *uringConn) register(fd uintptr) (int32, error) { return c.device.register(fd) }
func (c *uringConn) unregister(id int32) error          { return c.device.unregister(id) }

func (c *uringConn) fastPaths() []FastPath { return []FastPath{fastPath(uringPath, c.why)} }
