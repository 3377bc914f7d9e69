package holder

import (
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFiles is how many files may come with a message: SCM_MAX_FD of Linux.
const maxFiles = 253

// pair returns two sockets that are connected: each message is taken as a whole.
func pair() (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return fds[0], fds[1], err
}

// send sends a message: a word, and what goes with it.
func send(fd int, text string, files ...int) error {
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "")
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	return unix.Sendmsg(fd, []byte(text), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// errEnd says that there are no more messages.
var errEnd = errors.New("the other end is closed")

// receive takes a message. It does not wait: the error is EAGAIN if there is none.
func receive(fd int) (word, rest string, files []int, err error) {
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oob, flags, _, err := unix.Recvmsg(fd, text, rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", "", nil, err
	}
	if messages, err := unix.ParseSocketControlMessage(rights[:oob]); err == nil {
		for _, m := range messages {
			some, err := unix.ParseUnixRights(&m)
			if err == nil {
				files = append(files, some...)
			}
		}
	}
	if n == 0 {
		closeAll(files)
		return "", "", nil, errEnd
	}
	if flags&unix.MSG_TRUNC != 0 {
		closeAll(files)
		return "", "", nil, syscall.EMSGSIZE
	}
	word, rest, _ = strings.Cut(string(text[:n]), " ")
	return word, rest, files, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// dup copies a descriptor; programs that are started do not get the copy.
func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, heldFD) }

// setName sets the name of this process, which otherwise is that of a link in /proc.
func setName(name string) {
	fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(name))
	unix.Close(fd)
}
