package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// Reasons why a directory cannot be mounted on or unmounted. They are wrapped
// in an *[Error].
var (
	ErrNoDir           = errors.New("mountpoint does not exist")
	ErrNotDir          = errors.New("mountpoint is not a directory")
	ErrMounted         = errors.New("already a mount point")
	ErrDead            = errors.New("the file system mounted there is dead: transport endpoint is not connected")
	ErrPermission      = errors.New("no permission")
	ErrCapability      = errors.New("this root may not mount: it has no CAP_SYS_ADMIN")
	ErrBounding        = errors.New("nobody here may mount: CAP_SYS_ADMIN is not in the bounding set")
	ErrNamespace       = errors.New("this user namespace may not mount here")
	ErrFilter          = errors.New("a seccomp filter does not let this process mount")
	ErrModule          = errors.New("mounting is refused, though this process has CAP_SYS_ADMIN: by a security module, such as AppArmor or SELinux")
	ErrNoNewPrivileges = errors.New("no_new_privs is set")
	ErrHelper          = errors.New("fusermount3 cannot mount")
	ErrNoModule        = errors.New("the kernel has no FUSE")
	ErrNoDevice        = errors.New("/dev/fuse is missing")
	ErrDevice          = errors.New("/dev/fuse cannot be opened")
	ErrNoHelper        = errors.New("fusermount3 is not installed")
	ErrAllowOther      = errors.New("allow_other is not allowed by /etc/fuse.conf")
	ErrNeedsRoot       = errors.New("suid and dev need root")
	ErrNotMounted      = errors.New("not an imgfs mount")
	ErrBusy            = errors.New("in use")
	ErrReplaced        = errors.New("another directory, or a symlink, has taken its place meanwhile")
	ErrNoAnswer        = errors.New("it does not answer")
	ErrNoControl       = errors.New("the server of the mount has no such attribute")
	ErrHidden          = errors.New("something else is mounted over it")
	ErrForeign         = errors.New("another user's mount")
	ErrSystem          = errors.New("only on Linux images can be mounted")

	// ErrKept is for what another server has left.
	ErrKept = errors.New("what the last server left cannot be used")
	// ErrChanged is for a server that would not go on as the last one did.
	ErrChanged = errors.New("it would not be the same mount")

	// ErrPassthrough is for mounts where it is On.
	ErrPassthrough = errors.New("no passthrough")
)

// An Error is a failure to mount on or to unmount a directory.
type Error struct {
	Op  string // "mount" or "unmount"
	Dir string // as the caller gave it
	Err error
	// Hint is what the user may do about it, one line, or "".
	Hint string
}

// Error returns the operation, the directory and the reason; not the hint.
func (e *Error) Error() string { return e.Op + " " + e.Dir + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// A hinted error brings a hint of its own.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// mountError wraps err, if it is not nil, and adds the hint that goes with it.
func mountError(op, dir string, err error) error {
	if err == nil {
		return nil
	}
	if m, barred := BarredBy(dir); barred && errors.Is(err, fs.ErrPermission) {
		err = hinted{fmt.Errorf("%w: it is in the mount %s, into which only %s may look", ErrForeign, printable.Name(m.Dir), m.Owner), HintBarred}
	}
	var h hinted
	if !errors.As(err, &h) && (op == "mount" || !errors.Is(err, ErrNoDir)) {
		h.hint = hint(op, dir, err)
	}
	return &Error{Op: op, Dir: dir, Err: err, Hint: h.hint}
}

// containerHint is what a container needs to mount.
const containerHint = "a container needs --cap-add SYS_ADMIN and --device /dev/fuse: docker run --cap-add SYS_ADMIN --device /dev/fuse ..."

// howToMake says how a directory that there is not comes to be: with a command if this
// user can make it.
func howToMake(dir string) string {
	above, command := filepath.Dir(dir), "mkdir "
	for above != filepath.Dir(above) {
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		above, command = filepath.Dir(above), "mkdir -p "
	}
	if err := unix.Access(above, unix.W_OK|unix.X_OK); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		return hintOwnDir
	}
	return command + printable.Word(dir)
}

// hintOwnDir is for directories of somebody else.
const hintOwnDir = "choose a directory of your own"

func hint(op, dir string, err error) string {
	switch {
	case errors.Is(err, ErrNoDir) && op == "mount":
		return howToMake(dir)
	case errors.Is(err, ErrPermission) && op == "mount":
		return hintOwnDir
	case errors.Is(err, ErrCapability):
		return containerHint
	case errors.Is(err, ErrBounding):
		return containerHint
	case errors.Is(err, ErrNamespace):
		return "a user namespace mounts in a mount namespace of its own: unshare --user --map-root-user --mount"
	case errors.Is(err, ErrFilter):
		return containerHint + "; a unit needs SystemCallFilter=@mount"
	case errors.Is(err, ErrModule):
		return "a container needs --security-opt apparmor=unconfined (or label=disable), besides --cap-add SYS_ADMIN and --device /dev/fuse"
	case errors.Is(err, ErrNoNewPrivileges):
		return "leave out --security-opt no-new-privileges of a container, or NoNewPrivileges= of a unit; root needs no fusermount3"
	case errors.Is(err, ErrHelper):
		return "apt-get install --reinstall fuse3, as root, makes it setuid again; root needs no fusermount3"
	case errors.Is(err, ErrNoModule):
		return "modprobe fuse, as root, outside of any container"
	case errors.Is(err, ErrNoDevice):
		return "modprobe fuse, as root; a container needs --device /dev/fuse: docker run --device /dev/fuse --cap-add SYS_ADMIN ..."
	case errors.Is(err, ErrDevice):
		return "chmod 0666 /dev/fuse, as root; a container needs --device /dev/fuse: docker run --device /dev/fuse --cap-add SYS_ADMIN ..."
	case errors.Is(err, ErrNoHelper):
		return "install the package fuse3: apt-get install fuse3 (or dnf, apk, pacman), as root"
	case errors.Is(err, ErrAllowOther):
		return "add the line user_allow_other to /etc/fuse.conf, as root"
	case errors.Is(err, ErrPassthrough):
		return "without --passthrough=on the daemon reads, which is slower for large files alone"
	case errors.Is(err, ErrForeign):
		return "only that user and root can unmount it"
	case errors.Is(err, ErrNoAnswer):
		return HintNoAnswer(dir)
	case errors.Is(err, ErrBusy):
		return "end what uses it, or unmount it lazily: imgfs umount -l " + printable.Word(dir)
	}
	return ""
}
