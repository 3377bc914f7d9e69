//go:build linux

package fusefs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// A tree whose regular files have this many bytes on average, and one of
	// which has this many, gets passthrough where that is Auto.
	//
	// Measured on Linux 6.18 were files opened, read and closed, all of one
	// size, microseconds each without opens/with passthrough. Where the disk's
	// pages have the content, but not the mount's: 4 KiB 58/76, 64 KiB 84/79,
	// 256 KiB 186/109, 1 MiB 434/219, 4 MiB 1363/503. Where the mount's have
	// it: 5/33, 13/60, 37/76, 130/121, 393/270. So small files lose up to
	// seven times and large ones gain up to three; 1 MiB is where none lose.
	passthroughMean = 1 << 20
	passthroughFile = 16 << 20
)

// Why a mount has no passthrough. What depends on more than the mount is in
// an error made from it.
var (
	errTurnedOff   = errors.New("turned off")
	errPrivilege   = errors.New("it needs root, or CAP_SYS_ADMIN outside of any user namespace")
	errEarly       = errors.New("it was mounted before its image was open, and nobody asked for it")
	errEngine      = errors.New("it is for a container engine: with passthrough no overlayfs could be mounted on an overlayfs on it")
	errSmallFiles  = errors.New("most files of the tree are small, and opening them is faster without")
	errStackedAuto = errors.New("the cache directory is on overlayfs: with passthrough no overlayfs could be mounted on this tree")
)

// A passPlan says how a mount is to have passthrough.
type passPlan struct {
	why   error       // why not; nil: it is to have it
	probe BackingFile // to try it with
	depth int         // how many file systems may be stacked, as the kernel counts
	// unprobed says that why is what came in the way of the probe.
	unprobed bool
}

// planPassthrough decides before the kernel is asked whether a mount is to have
// passthrough. The caller closes the plan.
func planPassthrough(opts *Options, contents *treeFacts, b Backings) passPlan {
	switch {
	case opts.Passthrough == Off, opts.keepOpens:
		return passPlan{why: errTurnedOff}
	case opts.Passthrough == Auto && opts.Engine:
		return passPlan{why: errEngine}
	case opts.Passthrough == Auto && !contents.isLarge():
		return passPlan{why: errSmallFiles}
	case !isPrivileged():
		return passPlan{why: errPrivilege}
	}
	probe, err := b.BackingProbe()
	if err != nil {
		return passPlan{why: err, unprobed: true}
	}
	plan := passPlan{probe: probe, depth: 1}
	// A mount that passes reads through to an overlayfs is the last that the
	// kernel lets be stacked. A user who asked for it gets it.
	if isStacked(probe.Fd()) {
		plan.depth = 2
		if opts.Passthrough == Auto {
			plan.close()
			return passPlan{why: errStackedAuto}
		}
	}
	return plan
}

// planWithoutTree is planPassthrough for a mount whose tree is not known yet: it has
// passthrough only where that was asked for.
func planWithoutTree(opts *Options) passPlan {
	switch {
	case opts.Passthrough == Auto && opts.Engine:
		return passPlan{why: errEngine}
	case opts.Passthrough != On:
		return passPlan{why: errEarly}
	case !isPrivileged():
		return passPlan{why: errPrivilege}
	}
	return passPlan{depth: 2}
}

// isLarge reports whether there is more to be gained from reading a tree's
// files by passthrough than is lost by opening them.
func (s *treeFacts) isLarge() bool {
	return s.files > 0 && s.largest >= passthroughFile && s.blocks/s.files >= passthroughMean/blockSize
}

// try registers a file with the kernel, which is what it may refuse.
func (p *passPlan) try(c conn, can uint64) error {
	if p.why != nil {
		return p.why
	}
	if can&fuse.CAP_PASSTHROUGH == 0 {
		return lacks("passthrough, which came with 6.9")
	}
	id, err := c.register(p.probe.Fd())
	if err != nil {
		return registerError(err)
	}
	return c.unregister(id)
}

func (p *passPlan) close() {
	if p.probe != nil {
		p.probe.Close()
		p.probe = nil
	}
}

// refused returns an error if there is to be no mount without passthrough, and
// it cannot be had.
func (p *passPlan) refused(opts *Options) error {
	if opts.Passthrough != On || p.why == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrPassthrough, p.why)
}

// registerError says what it means that the kernel does not take a file.
func registerError(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return errPrivilege
	case errors.Is(err, unix.ELOOP):
		return errors.New("the cache directory is on too many stacked file systems, such as overlayfs")
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel does not take files of the cache directory's file system: %w", err)
	}
	return fmt.Errorf("the kernel does not take files of the cache directory: %w", err)
}

// lacks says that the kernel does not offer something.
func lacks(what string) error {
	return fmt.Errorf("the kernel (%s) has no %s", kernelRelease(), what)
}

// kernelRelease returns the kernel's version, such as "5.4.0-150-generic".
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// isStacked reports whether a file is on a file system that is itself on top
// of others, as the kernel counts them.
func isStacked(fd uintptr) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(fd), &st) != nil {
		return false
	}
	return st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.ECRYPTFS_SUPER_MAGIC
}

// isPrivileged reports whether this process has CAP_SYS_ADMIN over the machine
// and not only in a user namespace of its own.
func isPrivileged() bool { return HasSysAdmin() && !InUserNamespace() }
