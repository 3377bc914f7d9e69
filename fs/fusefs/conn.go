//go:build linux

package fusefs

import (
	"errors"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A conn is the connection of one mount to the kernel, from which requests
// come. INIT has been answered when there is one.
type conn interface {
	// serve answers requests until the mount is gone, and gives up the
	// device.
	serve()
	// register makes an open file one that reads may be passed through to.
	// The identifier is this connection's.
	register(fd uintptr) (id int32, err error)
	// unregister takes that back. Files that are open go on.
	unregister(id int32) error
}

// connect answers INIT on a descriptor of the FUSE device, which is the
// connection's from here on, also if there is an error.
func connect(fd int, raw *rawFS, opts *Options) (conn, error) {
	c, why := newURingConn(raw, opts)
	if why == nil {
		if err := c.connect(fd); err != nil {
			return nil, err
		}
		return c, nil
	}
	if opts.IOUring == On {
		return nil, errors.Join(noURing(why), unix.Close(fd))
	}
	raw.gone = func() bool { return isBroken(fd) }
	// The name says that the descriptor is mounted already.
	srv, err := fuse.NewServer(raw, "/dev/fd/"+strconv.Itoa(fd), serverOptions(raw, opts))
	if err != nil {
		return nil, err
	}
	return deviceConn{srv, why}, nil
}

// isBroken reports whether the connection of a descriptor of the FUSE device
// has ended.
func isBroken(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0
}

// A deviceConn reads requests from the FUSE device.
type deviceConn struct {
	srv *fuse.Server
	why error // not through io_uring
}

func (c deviceConn) serve() { c.srv.Serve() }

func (c deviceConn) register(fd uintptr) (int32, error) {
	id, errno := c.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		return 0, errno
	}
	return id, nil
}

func (c deviceConn) unregister(id int32) error {
	if errno := c.srv.UnregisterBackingFd(id); errno != 0 {
		return errno
	}
	return nil
}

func (c deviceConn) fastPaths() []FastPath { return []FastPath{fastPath(uringPath, c.why)} }
