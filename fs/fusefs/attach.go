package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxRead is the largest read the kernel may send, in bytes.
const maxRead = 1 << 20

// attach mounts and returns a descriptor of the FUSE device that serves the
// mount. go-fuse could do it too, but it lets fusermount3 write its complaints
// to our standard error instead of into an error.
// The target comes back with the way that was taken.
func attach(t target, opts *Options) (int, target, error) {
	if t.helper != "" {
		fd, err := attachHelper(t, opts)
		return fd, t, err
	}
	fd, err := attachDirect(t.dir, opts)
	if !errors.Is(err, ErrCapability) || t.second == "" {
		return fd, t, err
	}
	t.helper = t.second
	if fd, second := attachHelper(t, opts); second == nil {
		return fd, t, nil
	}
	return -1, t, err
}

// attachDirect uses mount(2), with the options that fusermount3 would give.
func attachDirect(dir string, opts *Options) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	flags := uintptr(unix.MS_RDONLY)
	if !opts.Suid {
		flags |= unix.MS_NOSUID
	}
	if !opts.Dev {
		flags |= unix.MS_NODEV
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRead)
	if opts.AllowOther {
		data += ",allow_other"
	}
	if err := unix.Mount(opts.name(), dir, fsType, flags, data); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			err = ErrCapability
		}
		return -1, err
	}
	return fd, nil
}

// attachHelper lets fusermount3 mount: it sends the descriptor over a socket
// whose number it finds in its environment.
func attachHelper(t target, opts *Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3's end")
	defer unix.Close(pair[0])
	defer theirs.Close() // twice does no harm

	words := []string{"ro", "default_permissions", "subtype=" + fsSubtype,
		"fsname=" + escapeOption(opts.name()), fmt.Sprintf("max_read=%d", maxRead)}
	for word, on := range map[string]bool{"allow_other": opts.AllowOther, "suid": opts.Suid, "dev": opts.Dev} {
		if on {
			words = append(words, word)
		}
	}
	cmd := exec.Command(t.helper, "-o", strings.Join(words, ","), "--", t.dir)
	cmd.Env = []string{"_FUSE_COMMFD=3"}
	cmd.ExtraFiles = []*os.File{theirs}
	said, err := runHelper(cmd)
	if err != nil {
		return -1, err
	}
	if said != "" {
		opts.logf("%s", said)
	}
	theirs.Close() // so that receiving ends if nothing was sent
	fd, err := receiveFD(pair[0])
	if err != nil {
		return -1, errors.Join(fmt.Errorf("%s sent no descriptor: %w", filepath.Base(t.helper), err), detach(t))
	}
	return fd, nil
}

// escapeOption protects a value within mount options from fusermount3's
// parser.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// runHelper runs fusermount3 and returns what it wrote to standard error,
// which is in the error if it failed.
func runHelper(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	said := strings.TrimSpace(stderr.String())
	if err == nil {
		return said, nil
	}
	if said == "" {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	for _, words := range []string{"no write access", "not owned by user", "Permission denied", "Operation not permitted"} {
		if strings.Contains(said, words) {
			return "", fmt.Errorf("%w: %s", ErrPermission, said)
		}
	}
	return "", errors.New(said)
}

// receiveFD reads a descriptor that the other end of a socket has sent.
func receiveFD(socket int) (int, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no descriptor in the message")
}

// detach takes a mount away even if it is in use.
func detach(t target) error {
	if t.helper == "" {
		return unix.Unmount(t.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	_, err := runHelper(exec.Command(t.helper, "-u", "-z", "--", t.dir))
	return err
}
