//go:build linux

package fusefs

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs/privilege"
	"golang.org/x/sys/unix"
)

const (
	// defaultUnused is how long nobody must have used what is mounted no longer
	// before the server gives up copies of the mount in other namespaces.
	defaultUnused = 10 * time.Second
	// hanging is how long a request may go on when the mount is gone.
	hanging = time.Second
	// settling is how long changes of the mount table are gathered: there may
	// be many of them, and each has it read.
	settling = 50 * time.Millisecond
	// patrol is how often a process is looked at for having left the namespace.
	// Its end wakes the watch at once.
	patrol = 30 * time.Second
)

// A watch notices when nobody can get at a mount any longer, though the kernel
// keeps it. It sleeps until the mount table changes.
type watch struct {
	s       *Server
	reads   func() int64
	table   int      // /proc/self/mountinfo, which can be polled
	ended   [2]int   // a pipe: the second end is closed when serving has ended
	company *company // nil: to be alone means nothing
	unused  time.Duration
	seesAll bool // whether all who may use the tree can be seen
}

// newWatch starts to watch a mount. Where there is nothing to watch it by, the
// mount is served until the kernel ends it.
func newWatch(s *Server, opts *Options) *watch {
	w := &watch{s: s, reads: opts.Reads, table: -1, ended: [2]int{-1, -1}, unused: opts.unusedFor, seesAll: !opts.Stacked && seesAll(opts)}
	if w.reads == nil {
		w.reads = func() int64 { return 0 }
	}
	if w.unused == 0 {
		w.unused = defaultUnused
	}
	var err error
	if w.table, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return w
	}
	if err := unix.Pipe2(w.ended[:], unix.O_CLOEXEC); err != nil {
		unix.Close(w.table)
		return w
	}
	if opts.EndAlone {
		w.company = newCompany(s.at.entry)
	}
	go w.run()
	return w
}

// seesAll reports whether this process sees in /proc what each process that may
// use its mount has open.
func seesAll(opts *Options) bool {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initial || !seesThreads() {
		return false
	}
	if os.Geteuid() != 0 && !opts.AllowOther {
		return true // nobody else may use it
	}
	return isPrivileged() && privilege.Has(unix.CAP_SYS_PTRACE)
}

// stop ends the watch, when serving has ended.
func (w *watch) stop() {
	if w.ended[1] >= 0 {
		unix.Close(w.ended[1])
	}
}

func (w *watch) run() {
	defer unix.Close(w.table)
	defer unix.Close(w.ended[0])
	defer w.company.close()
	for w.placed() {
		if w.company.gone() {
			w.orphan("nobody else is in this mount namespace")
			return
		}
		if !w.wait() {
			return
		}
	}
	close(w.s.displaced)
	w.unmounted()
}

// placed reports whether the file system is mounted anywhere in this namespace.
func (w *watch) placed() bool {
	table, err := mountTable()
	return err != nil || hasDevice(table, w.s.at.entry.device)
}

// wait waits for a change, and returns false when serving has ended.
func (w *watch) wait() bool {
	fds := []unix.PollFd{
		{Fd: int32(w.ended[0])}, // its other end's closing is an error
		{Fd: int32(w.table), Events: unix.POLLPRI},
		{Fd: -1, Events: unix.POLLIN},
	}
	limit := -1
	if w.company != nil {
		fds[2].Fd, limit = int32(w.company.witness), int(patrol/time.Millisecond)
	}
	if n, err := unix.Poll(fds, limit); err != nil && err != unix.EINTR || n > 0 && fds[0].Revents != 0 {
		return false
	}
	return w.sleep(settling)
}

// sleep waits for some time, and returns false when serving has ended.
func (w *watch) sleep(d time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(w.ended[0])}}
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
		if n > 0 || err != nil && err != unix.EINTR {
			return false
		}
	}
}

// unmounted serves on a mount that has no place in this namespace any more, to
// those who still use it. Usually the kernel tells of the end of the last of them.
func (w *watch) unmounted() {
	used, reads := time.Now(), w.reads()
	for pause := hanging / 2; w.sleep(pause); pause = min(2*pause, 5*time.Second, w.unused) {
		if w.s.raw.gone() {
			if w.sleep(hanging) {
				w.orphan("it is unmounted, and a request hangs")
			}
			return
		}
		if !w.seesAll {
			continue
		}
		busy, err := inUse(context.Background(), w.s.at.entry.device)
		now := w.reads()
		if busy || err != nil || now != reads {
			used, reads = time.Now(), now
		}
		if time.Since(used) >= w.unused {
			w.orphan("it is unmounted here, and nobody uses what other mount namespaces have of it")
			return
		}
	}
}

func (w *watch) orphan(why string) {
	w.s.logf("%s: ending: %s", w.s.at.entry.dir, why)
	close(w.s.orphaned)
}

// A company is the other processes of the mount namespace of this process.
// The namespace of process 1 is never empty, so nothing is watched there.
type company struct {
	namespace string // as the links in /proc have it
	program   string // that this process runs, likewise
	mount     string // the start of a line of the mount table, which all in the namespace have
	witness   int    // a descriptor of one of them, which polls as readable when that ends; or -1
	pid       string // of the witness
}

// newCompany returns the processes to watch. It is nil if there is no point: others
// may have got the mount from this namespace, or /proc does not show who is in it.
func newCompany(m mountEntry) *company {
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || m.shared || !seesThreads() {
		return nil
	}
	probe := pidFD(strconv.Itoa(os.Getpid()))
	if probe < 0 {
		return nil // before Linux 5.3
	}
	unix.Close(probe)
	program, _ := os.Readlink("/proc/self/exe")
	c := &company{namespace: ns, program: program, mount: m.id + " " + m.parent + " ", witness: -1}
	if in, known := c.has("/proc/1"); in || !known || c.pinned() {
		return nil
	}
	return c
}

// has reports whether a process is in the namespace, if that can be told.
func (c *company) has(proc string) (in, known bool) {
	if ns, err := os.Readlink(proc + "/ns/mnt"); err == nil {
		return ns == c.namespace, true
	}
	// The links of another user's processes cannot be read, but their mounts.
	text, err := os.ReadFile(proc + "/mountinfo")
	return strings.HasPrefix(string(text), c.mount) || strings.Contains(string(text), "\n"+c.mount), err == nil
}

// pinned reports whether the namespace is mounted somewhere, so that it lasts
// though nobody is in it.
func (c *company) pinned() bool {
	text, err := os.ReadFile("/proc/1/mountinfo")
	return err != nil || strings.Contains(string(text), " "+c.namespace+" ")
}

// gone reports whether nobody else is in the namespace.
func (c *company) gone() bool {
	if c == nil || c.present() {
		return false
	}
	c.find()
	if c.witness < 0 && !c.pinned() {
		// Somebody may just have been on the way from one process to the next.
		time.Sleep(4 * settling)
		c.find()
		return c.witness < 0
	}
	return false
}

// present reports whether the witness is still there.
func (c *company) present() bool {
	if c.witness < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(c.witness), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		return false
	}
	return c.counts("/proc/" + c.pid)
}

// find looks for a witness.
func (c *company) find() {
	c.close()
	self, _ := os.Readlink("/proc/self")
	for _, proc := range processes() {
		pid := strings.TrimPrefix(proc, "/proc/")
		if pid == self || !c.counts(proc) {
			continue
		}
		if c.witness = pidFD(pid); c.witness >= 0 {
			c.pid = pid
			return
		}
	}
}

// counts reports whether a process is in the namespace, or can let others in,
// and is not itself a server like this one, that waits for its last user.
func (c *company) counts(proc string) bool {
	in, _ := c.has(proc)
	serves := false
	for _, link := range linksOf(proc)[3:] {
		switch to, _ := os.Readlink(proc + "/" + link); {
		case to == c.namespace:
			in = true
		case strings.HasSuffix(to, "/fuse"):
			serves = true
		}
	}
	if !serves {
		return in
	}
	if !in || keeps(proc) {
		return false
	}
	theirs, err := os.Readlink(proc + "/exe")
	return err != nil || programName(theirs) != programName(c.program) && programName(theirs) != FUSEOverlay
}

// programName is the name of a program, of which one version may have taken the place of
// another, by the link in /proc.
func programName(exe string) string {
	return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
}

func (c *company) close() {
	if c != nil && c.witness >= 0 {
		unix.Close(c.witness)
		c.witness = -1
	}
}
