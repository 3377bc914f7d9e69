//go:build linux

package fusefs

import (
	"errors"

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

// errRecovers: see the doc of internal/uring on what is lost with a server.
var errRecovers = errors.New("it goes without recovery, and the mount is to have that")

// connect answers INIT on a descriptor of the FUSE device, which is the
// connection's from here on, also if there is an error.
//
// held, if not nil, is what requests go to in place of raw.
func connect(fd int, raw *rawFS, held *gate, opts *Options) (conn, error) {
	c, why := (*uringConn)(nil), errRecovers
	if opts.IOUring == Off {
		why = errTurnedOff
	}
	if !opts.keeps() {
		c, why = newURingConn(raw, held, opts)
	}
	if why == nil {
		if err := c.connect(fd); err != nil {
			return nil, err
		}
		return c, nil
	}
	if opts.IOUring == On {
		return nil, errors.Join(noURing(why), unix.Close(fd))
	}
	d, err := newDeviceConn(fd, answerer{raw: raw, held: held, opts: opts}, why)
	if err == nil {
		err = d.connect()
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// keeps reports whether a mount has what another server can go on with.
func (o *Options) keeps() bool { return o.Kept != nil && o.IOUring != On }

// answering is what answers requests.
func answering(raw *rawFS, held *gate) fuse.RawFileSystem {
	if held != nil {
		return held
	}
	return raw
}
