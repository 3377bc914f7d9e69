//go:build linux

package fusefs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A fastConn is a conn that has ways of its own to be fast.
type fastConn interface {
	fastPaths() []FastPath
}

// fastPaths returns those of a mount, whose readahead could be raised or not.
func fastPaths(r *rawFS, c conn, readAhead error) []FastPath {
	paths := []FastPath{
		fastPath("no-open", r.whyOpen()),
		fastPath("no-opendir", r.whyOpendir()),
		fastPath("readdirplus", r.need(fuse.CAP_READDIRPLUS, "READDIRPLUS")),
		fastPath("large-reads", r.need(fuse.CAP_MAX_PAGES, "requests of more than 128 KiB")),
		fastPath("readahead", readAhead),
		fastPath("symlink-cache", r.need(fuse.CAP_CACHE_SYMLINKS, "cache of symlinks")),
		fastPath("passthrough", r.plan.why),
	}
	if f, ok := c.(fastConn); ok {
		return append(paths, f.fastPaths()...)
	}
	return append(paths, fastPath("io-uring", errors.New("not used")))
}

// fastPath returns a fast path that is active if there is no reason why not.
func fastPath(name string, why error) FastPath {
	if why != nil {
		return FastPath{Name: name, Why: why.Error()}
	}
	return FastPath{Name: name, Active: true}
}

// need returns an error if the kernel lacks a capability.
func (r *rawFS) need(capability uint64, what string) error {
	if r.can&capability == 0 {
		return lacks(what)
	}
	return nil
}

func (r *rawFS) whyOpen() error {
	switch {
	case r.pass != nil:
		return errors.New("passthrough is decided at each open")
	case r.keepOpens:
		return errTurnedOff
	}
	return r.need(fuse.CAP_NO_OPEN_SUPPORT, "opens without a request")
}

func (r *rawFS) whyOpendir() error {
	if r.keepOpens {
		return errTurnedOff
	}
	return r.need(fuse.CAP_NO_OPENDIR_SUPPORT, "opens of directories without a request")
}
