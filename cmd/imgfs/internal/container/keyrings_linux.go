package container

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Keyrings belong to users and sessions, not to namespaces: a container of root could read
// what root keeps there. The seccomp profile keeps the container from them; bwrap has none,
// and gets a filter of that alone.

// keyringCalls are the system calls add_key, request_key and keyctl, by the architectures of
// the programs that call them.
var keyringCalls = []struct{ arch, first uint32 }{
	{unix.AUDIT_ARCH_X86_64, 248},
	{unix.AUDIT_ARCH_I386, 286},
	{unix.AUDIT_ARCH_AARCH64, 217},
	{unix.AUDIT_ARCH_ARM, 309},
	{unix.AUDIT_ARCH_RISCV64, 217},
}

// keyringFilter returns a filter in which these calls give EPERM, in the form that bwrap
// reads: instructions of the kernel's BPF (docs.kernel.org/userspace-api/seccomp_filter.html).
func keyringFilter() []unix.SockFilter {
	const (
		number, arch = 0, 4       // in struct seccomp_data
		x32          = 0x40000000 // in numbers of x86_64
		last         = 2          // the third of the calls
		load         = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal        = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast      = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		above        = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		and          = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		give         = unix.BPF_RET | unix.BPF_K
		allow        = 0x7fff0000 // SECCOMP_RET_ALLOW
		refuse       = 0x00050000 // SECCOMP_RET_ERRNO
	)
	var all []unix.SockFilter
	for _, c := range keyringCalls {
		all = append(all,
			unix.SockFilter{Code: load, K: arch},
			unix.SockFilter{Code: equal, Jf: 6, K: c.arch}, // to the next
			unix.SockFilter{Code: load, K: number},
			unix.SockFilter{Code: and, K: ^uint32(x32)},
			unix.SockFilter{Code: atLeast, Jf: 2, K: c.first},
			unix.SockFilter{Code: above, Jt: 1, K: c.first + last},
			unix.SockFilter{Code: give, K: refuse | uint32(unix.EPERM)},
			unix.SockFilter{Code: give, K: allow},
		)
	}
	return append(all, unix.SockFilter{Code: give, K: allow})
}

// keyringPipe returns a pipe from which bwrap reads the filter.
func keyringPipe() (*os.File, error) {
	var text bytes.Buffer
	if err := binary.Write(&text, binary.NativeEndian, keyringFilter()); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if _, err := w.Write(text.Bytes()); err != nil { // less than a pipe holds
		r.Close()
		return nil, err
	}
	return r, nil
}
