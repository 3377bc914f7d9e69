package holder

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts the holder of a mount that this process serves. What privileges this
// process has now a successor has, too. It returns when the holder's program is executed,
// and does not wait until that is up: what is said meanwhile waits in the socket. The error
// says that there is no holder, and that none will be tried.
func Start(cfg Config) (*Link, error) {
	l, err := newLink(cfg)
	if err != nil {
		return nil, err
	}
	l.serving = true
	if l.held, err = dupFiles(cfg.Held); err == nil {
		err = l.lock(0)
	}
	if err != nil {
		l.closeAll()
		return nil, err
	}
	Forget(cfg.Sockets, cfg.Name, os.Geteuid())
	if err := l.launch(); err != nil {
		l.closeAll()
		return nil, err
	}
	go l.watch()
	return l, nil
}

// Inherit is for a successor: what its holder gave it. Device and State of the
// configuration are not used. A successor that is not to wait for another server may serve
// when it returns.
func Inherit(cfg Config) (*Link, Succeed, error) {
	s, held, err := parseSucceed(os.Getenv(Variable))
	if err != nil {
		return nil, s, err
	}
	_ = os.Unsetenv(Variable) // it is not for programs that this process starts
	setName("imgfs")
	for fd := deviceFD; fd < heldFD+held; fd++ {
		unix.CloseOnExec(fd)
	}
	s.Device, s.State = os.NewFile(deviceFD, "/dev/fuse"), os.NewFile(stateFD, "state")
	cfg.Device, cfg.State = s.Device, s.State
	l, err := newLink(cfg)
	if err != nil {
		return nil, s, err
	}
	for fd := heldFD; fd < heldFD+held; fd++ {
		l.held = append(l.held, fd)
	}
	l.standby = s.Standby
	if err := unix.SetNonblock(socketFD, true); err != nil {
		return nil, s, err
	}
	l.sock, l.pid, l.ended = os.NewFile(socketFD, "holder"), os.Getppid(), make(chan struct{})
	if !s.Standby {
		if err := l.lock(lockLimit); err != nil {
			_ = l.say("done") // that server has a holder of its own
			return nil, s, err
		}
	}
	go l.watch()
	return l, s, nil
}

// parseSucceed parses what succeedEnv has made.
func parseSucceed(text string) (s Succeed, held int, err error) {
	var standby int
	if _, err := fmt.Sscanf(text, "standby=%d died=%d held=%d", &standby, &s.Died, &held); err != nil || held < 0 {
		return s, 0, fmt.Errorf("%s: %q is not what a holder says", Variable, text)
	}
	s.Standby = standby != 0
	return s, held, nil
}

// lockLimit is how long a server that is ending may keep its lock.
const lockLimit = 5 * time.Second

// lock makes this process the one that serves, as long as it lives. The error says that
// another one does.
func (l *Link) lock(limit time.Duration) error {
	fd, err := unix.Open(procFD(l.state), unix.O_RDONLY|unix.O_CLOEXEC, 0) // an open file of its own
	if err != nil {
		return nil // the lock is for deaths in the wrong moment
	}
	for end := time.Now().Add(limit); unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK; time.Sleep(10 * time.Millisecond) {
		if !time.Now().Before(end) {
			unix.Close(fd)
			return ErrServed
		}
	}
	l.locked = fd
	return nil
}

// newLink returns a link to no holder yet.
func newLink(cfg Config) (*Link, error) {
	l := &Link{cfg: cfg, device: -1, state: -1, log: -1, answers: make(chan string, 1), goes: make(chan int, 1), lost: make(chan struct{}), over: make(chan struct{})}
	if cfg.Env == nil {
		l.cfg.Env = os.Environ()
	}
	l.cfg.Env = withoutOurs(l.cfg.Env)
	var err error
	for _, f := range []struct {
		from *os.File
		to   *int
	}{{cfg.Device, &l.device}, {cfg.State, &l.state}, {cfg.Log, &l.log}} {
		if f.from != nil && err == nil {
			*f.to, err = dupFile(f.from)
		}
	}
	if err == nil && (l.device < 0 || l.state < 0) {
		err = unix.EINVAL
	}
	if err != nil {
		l.closeAll()
		return nil, err
	}
	return l, nil
}

// dupFile copies the descriptor of a file, whose mode stays as it is: Fd would make it
// blocking.
func dupFile(f *os.File) (fd int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := c.Control(func(from uintptr) { fd, err = dup(int(from)) })
	return fd, errors.Join(failed, err)
}

// dupFiles copies the descriptors of files: all of them, or none.
func dupFiles(files []*os.File) (fds []int, err error) {
	for _, f := range files {
		fd, err := dupFile(f)
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func (l *Link) closeAll() {
	closeAll(slices.DeleteFunc(append([]int{l.device, l.state, l.log}, l.held...), func(fd int) bool { return fd < 0 }))
}

// launch starts a holder. l.mu is held, or nobody else knows l.
func (l *Link) launch() error {
	process, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err) // Linux 5.3
	}
	defer unix.Close(process)
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(ours)
		return err
	}
	h := &keeper{device: deviceFD, state: stateFD, log: -1}
	s := &server{sock: socketFD, fd: heldFD, pid: os.Getpid()}
	h.died = -1
	files := []uintptr{0, 1, 2, uintptr(l.device), uintptr(l.state), uintptr(theirs), uintptr(process)}
	if l.serving {
		s.serving = time.Now()
	}
	if l.log >= 0 {
		h.log = len(files)
		files = append(files, uintptr(l.log))
	}
	for _, fd := range l.held {
		h.held = append(h.held, len(files))
		files = append(files, uintptr(fd))
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(ours)
		return err
	}
	defer unix.Close(null)
	files[0], files[1], files[2] = uintptr(null), uintptr(null), uintptr(null)
	exe := l.cfg.exe
	if exe == "" {
		exe = "/proc/self/exe"
	}
	env := append(slices.Clone(l.cfg.Env), stateVariable+"="+h.writeState(s))
	pid, err := syscall.ForkExec(exe, l.args(), &syscall.ProcAttr{Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		unix.Close(ours)
		return err
	}
	l.sock, l.pid, l.ended = os.NewFile(uintptr(ours), "holder"), pid, make(chan struct{})
	go func() { // or it stays in the table of processes
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	return nil
}

// forEver is a hundred years.
const forEver = 100 * 365 * 24 * time.Hour

// args is the command line of the holder.
func (l *Link) args() []string {
	c := &l.cfg
	args := []string{os.Args[0], Command, nameOf(c.Name), "dir=" + c.Dir, "sockets=" + c.Sockets}
	patience := c.Patience
	if patience < 0 {
		patience = forEver
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"patience", patience}, {"window", c.times.window}, {"soon", c.times.soon}} {
		if d.value > 0 {
			args = append(args, d.key+"="+d.value.String())
		}
	}
	if n := c.times.deaths; n > 0 {
		args = append(args, "deaths="+strconv.Itoa(n))
	}
	return append(append(args, "--"), c.Args...)
}
