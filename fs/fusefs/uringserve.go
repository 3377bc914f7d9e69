//go:build linux

package fusefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// interruptTries is how often, and ever later, an interrupt is tried: it may
// overtake its request, which comes another way. It may also come too late,
// and then it never succeeds.
const interruptTries = 8

// Try answers what needs neither the network nor much of the disk.
func (c *uringConn) Try(request, header, payload []byte) (n int, ok bool) {
	if c.held != nil && !c.held.open.Load() {
		return 0, false // it has to wait
	}
	switch opcode(request) {
	case opRead:
		return c.tryRead(request, header, payload)
	case opOpen:
		if c.raw.pass != nil {
			return 0, false
		}
	case opIoctl: // it may be about the mount
		return 0, false
	case opGetxattr:
		// All others are in memory.
		const name = inHeader + 8
		if len(request) > name && (bytes.HasPrefix(request[name:], []byte(ownPrefix)) || bytes.HasPrefix(request[name:], []byte(controlPrefix))) {
			return 0, false
		}
	}
	return c.Answer(request, header, payload), true
}

func (c *uringConn) serve() {
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c.engine != nil {
			c.engine.Serve()
		}
	}()
	c.readDevice()
	close(c.done)
	c.finish(served)
	c.close()
	c.raw.OnUnmount()
}

// readDevice answers what comes through the device, until the mount is gone.
func (c *uringConn) readDevice() {
	buf := make([]byte, deviceBuffer)
	for {
		n, err := c.read(buf)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR):
			continue // it was interrupted before it was read
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED), errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			c.opts.logf("reading from the FUSE device: %v", err)
			c.stop()
			return
		case n >= inHeader:
			c.take(buf[:n])
		}
	}
}

// read reads a request from the device.
func (c *uringConn) read(buf []byte) (int, error) {
	n, err := c.device.Read(buf)
	var errno unix.Errno
	if err == nil || errors.As(err, &errno) || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	// At the end of the connection the device polls as broken, and the runtime
	// does not read it to find out why.
	err = c.device.control(func(fd uintptr) error {
		n, err = unix.Read(int(fd), buf)
		return err
	})
	return max(n, 0), err
}

// stop ends what comes through io_uring.
func (c *uringConn) stop() {
	if c.engine != nil {
		c.engine.Stop()
	}
}

// take answers a request from the device.
func (c *uringConn) take(request []byte) {
	switch opcode(request) {
	case opForget, opBatchForget:
		_, _ = c.ps.HandleRequest([][]byte{request}, nil)
	case opInterrupt:
		if len(request) >= inHeader+8 {
			c.interruptSoon(binary.NativeEndian.Uint64(request[inHeader:]))
		}
	default:
		request, id := slices.Clone(request), unique(request)
		c.waiting.Store(id, nil)
		c.others.Go(func() {
			defer c.waiting.Delete(id)
			// It fails for what was interrupted, and at the end.
			_ = c.respond(request)
		})
	}
}

// respond answers a request through the device.
func (c *uringConn) respond(request []byte) error {
	id := unique(request)
	out := make([]byte, deviceBuffer)
	n, _ := c.ps.HandleRequest([][]byte{request}, [][]byte{out})
	if n < outHeader {
		putReply(out, id, unix.EIO, 0)
		n = outHeader
	}
	_, err := c.device.Write(out[:n])
	return err
}

// interruptSoon interrupts a request, also if it is not there yet. To ask the
// kernel to send the interrupt again, as go-fuse does, helps for requests from
// the device only.
func (c *uringConn) interruptSoon(id uint64) {
	if c.interrupt(id) || c.retrying.Load() >= maxBackground {
		return
	}
	c.retrying.Add(1)
	c.others.Go(func() {
		defer c.retrying.Add(-1)
		for try := range interruptTries {
			select {
			case <-c.done:
				return
			case <-time.After(time.Millisecond << try):
			}
			if c.interrupt(id) {
				return
			}
		}
	})
}

// finish waits for all requests that are under way, which nobody waits for any
// more.
func (c *uringConn) finish(served <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-served
		c.others.Wait()
	}()
	for {
		c.waiting.Range(func(id, _ any) bool { c.interrupt(id.(uint64)); return true })
		if c.engine != nil {
			for id := range c.engine.Unanswered() {
				c.interrupt(id)
			}
		}
		// A request may not have got as far as to be interrupted.
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
