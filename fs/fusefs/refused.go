//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errRefused: the kernel, or a filter before it, does not let this process mount.
var errRefused = errors.New("mounting is not allowed")

// isRefusal reports whether an error of mount(2) says that this process may not mount,
// whatever it is.
func isRefusal(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}

// A refusal is an error of mount(2) with the reason for it.
type refusal struct{ error }

// Is makes it errRefused, besides what it wraps.
func (r refusal) Is(target error) bool { return target == errRefused }

// Unwrap returns the reason.
func (r refusal) Unwrap() error { return r.error }

// whyRefused finds the reason why mount(2) has returned an error for which isRefusal
// is true.
func whyRefused(err error) error {
	switch {
	case !HasSysAdmin():
		return refusal{ErrCapability}
	case isFiltered():
		return refusal{fmt.Errorf("%w: %w", ErrFilter, err)}
	case errors.Is(err, unix.EACCES):
		return refusal{fmt.Errorf("%w: %w", ErrModule, err)}
	case InUserNamespace():
		return refusal{fmt.Errorf("%w: %w", ErrNamespace, err)}
	}
	return refusal{fmt.Errorf("%w: %w", ErrModule, err)}
}

// mayMount tries whether mount(2) is allowed on a place, without mounting: a mount of
// FUSE that names no device is an error, but one that comes behind all others.
func mayMount(ctx context.Context, at *place) error {
	err := askErr(ctx, func() error {
		return unix.Mount("imgfs", at.link(), fsType, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	})
	switch {
	case err == nil: // what no kernel does
		return unix.Unmount(at.path, unix.MNT_DETACH)
	case isRefusal(err):
		return whyRefused(err)
	case errors.Is(err, unix.ENODEV):
		return ErrNoModule
	case errors.Is(err, ErrNoAnswer), ctx.Err() != nil:
		return err
	}
	return nil // EINVAL, and what else depends on the options
}

// mayHelp looks for reasons why a fusermount3, which is found at a path, cannot mount
// though it is there.
func mayHelp(helper string) error {
	name := filepath.Base(helper)
	var st unix.Stat_t
	var in unix.Statfs_t
	if err := errors.Join(unix.Stat(helper, &st), unix.Statfs(helper, &in)); err != nil || !isProgram(helper) {
		return nil // it will say so itself; a script may have another do it, somewhere else
	}
	setuid := st.Mode&unix.S_ISUID != 0 && st.Uid == 0 || hasFileCapability(helper)
	user := os.Geteuid() != 0
	switch noNew, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); {
	case user && !setuid && InUserNamespace():
		return fmt.Errorf("%w: %s is not setuid root in it", ErrNamespace, name)
	case user && !setuid:
		return fmt.Errorf("%w: %s is not setuid root", ErrHelper, helper)
	case user && in.Flags&unix.ST_NOSUID != 0:
		return fmt.Errorf("%w: %s is on a file system that is mounted nosuid", ErrHelper, helper)
	case (user || !HasSysAdmin()) && err == nil && noNew == 1:
		return fmt.Errorf("%w: this process may get no new privileges, with which %s would mount", ErrNoNewPrivileges, name)
	}
	if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0); err == nil && set == 0 {
		return ErrBounding
	}
	if isFiltered() {
		// A filter comes before the kernel looks at arguments, and an address where
		// nothing is before it looks at rights.
		_, _, errno := unix.Syscall6(unix.SYS_MOUNT, 1, 1, 1, 0, 0, 0)
		if isRefusal(errno) {
			return fmt.Errorf("%w: %w", ErrFilter, errno)
		}
	}
	return nil
}

// isProgram reports whether a file is a program by itself, and no script.
func isProgram(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true // setuid programs need not be readable
	}
	defer f.Close()
	var begins [4]byte
	_, err = io.ReadFull(f, begins[:])
	return err == nil && string(begins[:]) == "\x7fELF"
}

// hasFileCapability reports whether a program has capabilities of its own.
func hasFileCapability(path string) bool {
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// isFiltered reports whether a seccomp filter looks at the system calls of this process.
func isFiltered() bool {
	text, err := os.ReadFile("/proc/self/status")
	return err == nil && bytes.Contains(text, []byte("\nSeccomp:\t2\n"))
}

// InUserNamespace reports whether this process is in a user namespace other than the
// first one.
func InUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
}
