package holder

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// openSockets opens a directory of sockets, if it belongs to a user, or to root, and others
// can change nothing in it. It may be a stranger's: nothing in it is trusted.
func openSockets(sockets string, owner int) (int, error) {
	fd, err := unix.Open(sockets, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != 0 && int(st.Uid) != owner || st.Mode&0o022 != 0 {
		unix.Close(fd)
		return -1, unix.EPERM
	}
	return fd, nil
}

// ReadGone returns what the holder of a device ("0:39") left in a directory of sockets
// when it gave up; ok is false if there is nothing, or nothing that owner, who has mounted
// it, could have left.
func ReadGone(sockets, device string, owner int) (gone Gone, ok bool) {
	dir, err := openSockets(sockets, owner)
	if err != nil {
		return gone, false
	}
	defer unix.Close(dir)
	// What is no file may wait for somebody when it is opened, or never end.
	fd, err := unix.Openat(dir, goneFile(nameOf(device)), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone, false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 && int(st.Uid) != owner {
		return gone, false
	}
	text := make([]byte, maxMessage)
	n, err := unix.Pread(fd, text, 0)
	if err != nil {
		return gone, false
	}
	line, _, _ := strings.Cut(string(text[:n]), "\n")
	var when string
	if n, err := fmt.Sscanf(line, "%s %q %q", &when, &gone.Dir, &gone.Reason); n != 3 || err != nil {
		return gone, false
	}
	gone.Time, err = time.Parse(time.RFC3339, when)
	return gone, err == nil
}

// Forget removes what holders of a device ("0:39") that is not mounted any more, or now by
// somebody else, have left in a directory of sockets: what [ReadGone] reads, and the socket
// of one that was killed. A socket that somebody listens on stays. owner is who had mounted
// it: what is in a directory of others stays.
func Forget(sockets, device string, owner int) {
	if sockets == "" || device == "" {
		return
	}
	dir, err := openSockets(sockets, owner)
	if err != nil {
		return // there is none
	}
	defer unix.Close(dir)
	_ = unix.Unlinkat(dir, goneFile(nameOf(device)), 0) // else there is none
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	name := socketFile(nameOf(device))
	if unix.Connect(fd, &unix.SockaddrUnix{Name: procFD(dir) + "/" + name}) == unix.ECONNREFUSED {
		_ = unix.Unlinkat(dir, name, 0) // it does no harm
	}
}
