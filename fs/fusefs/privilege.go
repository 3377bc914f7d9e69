//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities that a server needs, as a set: bit 0 is capability 0.
//
//   - SYS_ADMIN unmounts, and gives the kernel files to read by itself.
//   - SYS_PTRACE shows what processes of other users have open: who keeps the
//     mount busy, and whether anybody still uses it.
//   - DAC_READ_SEARCH reads layouts, archives and credentials of other users, which
//     root may have named.
const kept = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH

// DropPrivileges takes from this process, for good, the capabilities that
// serving does not need. If the server can unmount by itself, neither it nor a
// program that it starts gets new ones any more (no_new_privs): an ordinary user's
// server cannot, and has fusermount3 unmount, which is setuid. The error is
// [errors.ErrUnsupported] where the program was built with cgo, whose threads Go
// does not know.
func (s *Server) DropPrivileges() error {
	set := capabilities()
	for i, mask := range []uint32{kept, 0} {
		set[i].Permitted &= mask
		set[i].Effective = set[i].Permitted
		set[i].Inheritable = 0
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&set[0])), 0)
	if errno == 0 && s.at.helper == "" {
		_, _, errno = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	}
	switch {
	case errno == syscall.ENOTSUP:
		return fmt.Errorf("this program was built with cgo: %w", errors.ErrUnsupported)
	case errno != 0:
		return errno
	}
	return nil
}

// capabilities returns those of this process, none if it cannot be told.
func capabilities() (set [2]unix.CapUserData) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&head, &set[0]) != nil {
		return [2]unix.CapUserData{}
	}
	return set
}

// hasCapability reports whether this process has a capability in its user
// namespace.
func hasCapability(c int) bool {
	return capabilities()[c/32].Effective&(1<<(c%32)) != 0
}

// HasSysAdmin reports whether this process may mount, as far as its user
// namespace goes.
func HasSysAdmin() bool { return hasCapability(unix.CAP_SYS_ADMIN) }
