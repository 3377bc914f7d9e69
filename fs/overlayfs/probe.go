//go:build linux

package overlayfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// choose returns how to mount on this Upper.
func (u *Upper) choose(o *Options) (Kind, namespace, error) {
	if o.Kind == Fuse {
		return Fuse, fuse, u.fitsFUSE()
	}
	kernel := trusted
	if fusefs.InUserNamespace() {
		kernel = user
	}
	err := mayMountKernel()
	if err == nil {
		err = u.fits(kernel)
	}
	if err == nil || o.Kind == Kernel {
		return Kernel, kernel, err
	}
	stacked := errors.Is(err, errStacked)
	if !stacked && !errors.Is(err, errNoKernel) {
		return Kernel, kernel, err
	}
	if lacking := u.fitsFUSE(); stacked && lacking != nil {
		return Kernel, kernel, err
	} else {
		return Fuse, fuse, lacking
	}
}

// mayMountKernel tries whether this process may mount an overlay of the kernel.
func mayMountKernel() error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	switch {
	case err == nil:
		unix.Close(fd)
		return nil
	case errors.Is(err, unix.ENOSYS) && fusefs.HasSysAdmin(): // before Linux 5.2, or a filter
		return nil
	}
	return fmt.Errorf("%w: %w", errNoKernel, err)
}

// fitsFUSE finds out whether fuse-overlayfs is there, and can use the Upper.
func (u *Upper) fitsFUSE() error {
	if _, err := exec.LookPath(fusefs.FUSEOverlay); err != nil {
		return hinted{errNoFUSE, hintGetFUSE}
	}
	if strings.ContainsRune(u.dir, ':') {
		return hinted{errColon, "name a directory without one"}
	}
	return u.fits(fuse)
}

// fits finds out whether the file system of an Upper has what an overlay needs. What was
// written in another way is refused.
func (u *Upper) fits(n namespace) error {
	if before := u.notes.Notes; before != "" && before != n {
		return hinted{fmt.Errorf("it was written by %s, whose deletions and replaced directories mean nothing to %s", before.describe(), n.describe()),
			"mount it as it was mounted before, or " + hintNew}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(u.lock.Fd()), &st); err != nil {
		return err
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC && n != fuse {
		return hinted{errStacked, "name a directory on another file system: in a container, on a volume (docker run -v) or a tmpfs"}
	}
	if err := u.hasXattrs(n); err != nil {
		return err
	}
	return u.hasTypes()
}

// hasXattrs tries to write an extended attribute as overlays do.
func (u *Upper) hasXattrs(n namespace) error {
	name := "user.overlay.imgfs"
	if n == trusted {
		name = "trusted.overlay.imgfs"
	}
	work := u.link(workName)
	err := unix.Setxattr(work, name, []byte("y"), 0)
	switch {
	case err == nil:
		return unix.Removexattr(work, name)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
		return hinted{fmt.Errorf("%w: %s.*", errNoXattrs, name[:strings.IndexByte(name, '.')]), hintDisk}
	}
	return &os.PathError{Op: "setxattr", Path: workName, Err: err}
}

// hasTypes finds out whether lists of directories have the types of what is in them. The
// list of the Upper itself has upper and work.
func (u *Upper) hasTypes() error {
	fd, err := unix.Open(u.link(""), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list := make([]byte, 4096)
	n, err := unix.Getdents(fd, list)
	if err != nil {
		return err
	}
	// See getdents64(2): the length is at 16, the type at 18.
	for list = list[:max(n, 0)]; len(list) > 18; {
		if list[18] == unix.DT_UNKNOWN {
			return hinted{errNoTypes, hintDisk + " (made with ftype=1)"}
		}
		length := int(binary.NativeEndian.Uint16(list[16:]))
		if length == 0 || length > len(list) {
			break
		}
		list = list[length:]
	}
	return nil
}
