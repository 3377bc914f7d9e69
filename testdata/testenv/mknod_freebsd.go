package testenv

import "golang.org/x/sys/unix"

// Mknod makes a device, or whatever else the mode says. Devices take root.
func Mknod(path string, mode, major, minor uint32) error {
	return unix.Mknod(path, mode, unix.Mkdev(major, minor))
}
