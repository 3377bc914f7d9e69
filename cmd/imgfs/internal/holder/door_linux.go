package holder

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxClients is how many may be connected at a time.
	maxClients = 8
	// clientLimit is how long a client may take to say what it wants.
	clientLimit = 5 * time.Second
	// shortageLimit is how long nobody is let in after the descriptors were used up.
	shortageLimit = time.Second
	// maxSocketPath is how long the path of a socket may be: sun_path of Linux has a
	// zero at its end.
	maxSocketPath = 107
)

// A door is where clients come in: a socket, and which file that is.
type door struct {
	fd       int       // -1: none
	shut     time.Time // when it is looked at again; zero: always
	dev, ino uint64
}

// A client is somebody who asks something.
type client struct {
	fd    int
	until time.Time // when it must have said what
	waits bool      // it has, and waits for the answer
}

// place is the path of a file of this holder, "" if it has none.
func (h *keeper) place(name string) string {
	if h.sockets == "" {
		return ""
	}
	return filepath.Join(h.sockets, name)
}

// openSockets opens the directory of the socket, and makes it if it is not there: at the
// end of a session it goes. Others must not be able to change it.
func (h *keeper) openSockets() (int, error) {
	if h.sockets == "" {
		return -1, unix.ENOENT
	}
	_ = unix.Mkdir(h.sockets, 0o700) // or it is there, or the next call says so
	return openSockets(h.sockets, os.Geteuid())
}

// listen begins to listen, or does so anew. Without a socket nobody can ask anything, and
// the mount is held all the same.
func (h *keeper) listen() {
	dir, err := h.openSockets()
	if err != nil {
		return
	}
	defer unix.Close(dir)
	name := socketFile(h.name)
	var st unix.Stat_t
	if h.door.fd >= 0 {
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && h.door.is(&st) {
			return
		}
		unix.Close(h.door.fd)
		h.door.fd = -1
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	_ = unix.Unlinkat(dir, name, 0) // of a holder that was killed
	umask := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: socketPath(h.sockets, dir, name)})
	unix.Umask(umask)
	if err == nil {
		err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Listen(fd, 2*maxClients)
	}
	if err != nil {
		unix.Close(fd)
		return
	}
	h.door = door{fd: fd, dev: uint64(st.Dev), ino: st.Ino}
}

// socketPath is the path of a socket: through the directory's descriptor where it would
// be too long.
func socketPath(dir string, fd int, name string) string {
	if path := filepath.Join(dir, name); len(path) <= maxSocketPath {
		return path
	}
	return procFD(fd) + "/" + name
}

func (d *door) is(st *unix.Stat_t) bool { return uint64(st.Dev) == d.dev && st.Ino == d.ino }

// closeDoor removes the socket, if it is still this holder's.
func (h *keeper) closeDoor() {
	if h.door.fd < 0 {
		return
	}
	path := h.place(socketFile(h.name))
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && h.door.is(&st) {
		_ = unix.Unlink(path)
	}
}

// writeGone leaves word of why the mount is dead.
func (h *keeper) writeGone(text string) {
	dir, err := h.openSockets()
	if err != nil {
		return
	}
	defer unix.Close(dir)
	name := goneFile(h.name)
	_ = unix.Unlinkat(dir, name, 0)
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(text))
	unix.Close(fd)
}

// accept lets a client in that is this user, or root.
func (h *keeper) accept() {
	fd, _, err := unix.Accept4(h.door.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		if isShortage(err) { // who knocks goes on knocking
			h.door.shut = time.Now().Add(shortageLimit)
		}
		return
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		unix.Close(fd)
		return
	}
	h.clients = append(h.clients, &client{fd: fd, until: time.Now().Add(clientLimit)})
}

// drop closes the connection to a client.
func (h *keeper) drop(c *client) {
	i := slices.Index(h.clients, c)
	if i < 0 {
		return
	}
	h.clients = slices.Delete(h.clients, i, i+1)
	unix.Close(c.fd)
	if c == h.asking {
		h.cancelUpgrade()
	}
}

// reply gives a client its answer.
func (h *keeper) reply(c *client, text string) {
	_ = send(c.fd, text) // or it is gone
	h.drop(c)
}

// hearClient does what a client asks for.
func (h *keeper) hearClient(c *client) {
	if !slices.Contains(h.clients, c) {
		return
	}
	word, _, files, err := receive(c.fd)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return
	case err != nil || c.waits:
		closeAll(files)
		h.drop(c)
		return
	}
	if word == "upgrade" && len(files) == 1 {
		h.upgrade(c, files[0])
		return
	}
	closeAll(files)
	switch word {
	case "status":
		h.reply(c, h.status())
	case "end":
		h.end(c)
	default:
		h.reply(c, "refused it is not known what that is: "+word)
	}
}

// end ends this holder, if no server serves.
func (h *keeper) end(c *client) {
	if h.noneSince.IsZero() {
		h.reply(c, "refused a server serves the mount")
		return
	}
	for _, s := range []*server{h.server, h.standby} {
		if s != nil {
			h.kill(s)
		}
	}
	h.reply(c, "done")
	h.code = 0
}

// status is the answer to status: words with what they stand for, and the reason as the
// last one, to the end.
func (h *keeper) status() string {
	var b strings.Builder
	state, pid := StateWatch, 0
	if h.server != nil {
		pid = h.server.pid
	}
	switch {
	case isGone(h.device):
		state = StateGone
	case h.standby != nil:
		state = StateStandby
	case !h.noneSince.IsZero():
		state = StateStart
	}
	fmt.Fprintf(&b, "status holder=%d server=%d state=%s restarts=%d upgrades=%d died=%d", os.Getpid(), pid, state, h.restarts, h.upgrades, h.died)
	if !h.last.IsZero() {
		fmt.Fprintf(&b, " last=%d", h.last.Unix())
	}
	fmt.Fprintf(&b, " reason=%s", h.reason)
	return b.String()
}
