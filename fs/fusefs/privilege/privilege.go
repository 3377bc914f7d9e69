//go:build linux

// Package privilege takes from a process of imgfs the rights that it does not need. It
// knows nothing of FUSE, so that the holder of a mount can be small.
package privilege

import (
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

// Drop takes from this process, for good, the capabilities that serving does not need,
// and with noNew also what programs that it starts could gain (no_new_privs). The error
// is ENOTSUP where the program was built with cgo, whose threads Go does not know: then
// the process has what it had.
func Drop(noNew bool) error {
	set := capabilities()
	for i, mask := range []uint32{kept, 0} {
		set[i].Permitted &= mask
		set[i].Effective = set[i].Permitted
		set[i].Inheritable = 0
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&set[0])), 0)
	if errno == 0 && noNew {
		_, _, errno = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// Has reports whether this process has a capability in its user namespace.
func Has(capability int) bool {
	return capabilities()[capability/32].Effective&(1<<(capability%32)) != 0
}

// capabilities returns those of this process, none if it cannot be told.
func capabilities() (set [2]unix.CapUserData) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&head, &set[0]) != nil {
		return [2]unix.CapUserData{}
	}
	return set
}
