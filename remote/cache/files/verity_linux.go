package files

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takesVerity reports whether a file could have fs-verity, and has not.
func takesVerity(f *os.File) bool {
	var arg struct {
		unix.FsverityDigest
		_ [64]byte
	}
	arg.Size = 64
	return ioctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)) == unix.ENODATA
}

// enableVerity gives a file fs-verity. Nobody may have it open to write.
func enableVerity(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: verityBlock}
	return ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		if errno != unix.EINTR {
			if errno == 0 {
				return nil
			}
			return errno
		}
	}
}
