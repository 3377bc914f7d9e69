package holder

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities of servers, as fs/fusefs has them.
const kept = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH

// dropPrivileges takes from this process, and from those that it starts, what servers do
// not need: one that has yet to drop its own may have started it. If that cannot be, as
// with cgo, the holder keeps what it has, as a server does.
func dropPrivileges() {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	if unix.Capget(&head, &set[0]) != nil {
		return
	}
	for i, mask := range []uint32{kept, 0} {
		set[i].Permitted &= mask
		set[i].Effective = set[i].Permitted
		set[i].Inheritable = 0
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&set[0])), 0)
	if errno == 0 && set[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 { // else it is fusermount3 that unmounts, which is setuid
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	}
}
