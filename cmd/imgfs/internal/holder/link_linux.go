package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Link is a server's end of what connects it with its holder. When the holder dies it
// starts another. Its methods may be called by several goroutines at a time.
type Link struct {
	cfg    Config // of copies: Device, State and Log are descriptors below
	device int
	state  int
	log    int
	locked int // open as long as this process

	holding sync.Mutex // above mu: one at a time gives files

	mu      sync.Mutex
	sock    *os.File // nil: there is no holder
	pid     int      // of the holder; 0: not known
	why     string   // why there is none
	serving bool
	standby bool
	alone   bool // a standby has lost its holder, and watch has ended
	done    bool
	held    []int

	answers chan string   // to hold
	goes    chan int      // how the other server ended
	ended   chan struct{} // closed when the holder that sock leads to has died
	lost    chan struct{} // closed when a standby has lost its holder, see alone
	over    chan struct{} // closed by Done
}

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

// watch hears what holders say, and starts another when one has died.
func (l *Link) watch() {
	pause := time.Duration(0)
	for {
		l.mu.Lock()
		sock, ended := l.sock, l.ended
		l.mu.Unlock()
		begun := time.Now()
		if sock != nil {
			l.listen(sock)
			close(ended)
		}
		l.mu.Lock()
		if sock != nil {
			sock.Close()
		}
		l.sock, l.pid = nil, 0
		alone := l.standby
		l.alone = alone
		l.mu.Unlock()
		if alone {
			close(l.lost)
			return
		}
		if time.Since(begun) > steadyAfter {
			pause = 0
		}
		select {
		case <-l.over:
			return
		case <-time.After(pause):
		}
		if !l.again() {
			return
		}
		pause = min(max(2*pause, firstPause), l.relaunch())
	}
}

// steadyAfter is how long a holder must have lived for the next one to be started at
// once.
const steadyAfter = 2 * time.Second

// relaunch is the longest pause between attempts to start a holder.
func (l *Link) relaunch() time.Duration {
	if d := l.cfg.times.relaunch; d > 0 {
		return d
	}
	return time.Second / 2
}

// again starts another holder. It returns false if none is wanted any more.
func (l *Link) again() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	if l.cfg.Name == "" { // a successor has yet to read it, and a holder listens by it
		return true
	}
	err := l.launch()
	switch before := l.why; {
	case err == nil:
		l.why = ""
		if before != "" {
			l.warnf("the server would be restarted again")
		}
	default:
		l.why = "no holder could be started: " + err.Error()
		if before == "" {
			l.warnf("%s; the mount would not outlive its server; it is tried again", l.why)
		}
	}
	return true
}

func (l *Link) warnf(format string, args ...any) {
	if l.cfg.Warnf != nil {
		l.cfg.Warnf(format, args...)
	}
}

// listen hears what a holder says until that ends.
func (l *Link) listen(sock *os.File) {
	text := make([]byte, maxMessage)
	for {
		n, err := sock.Read(text)
		if err != nil || n == 0 {
			return
		}
		word, rest, _ := strings.Cut(string(text[:n]), " ")
		switch word {
		case "held", "unheld":
			select {
			case l.answers <- word:
			default: // nobody waits any more
			}
		case "go":
			died, err := strconv.Atoi(rest)
			if err != nil {
				died = -1
			}
			l.goes <- died // there is one
		case "terminate":
			if l.cfg.Terminate != nil {
				l.cfg.Terminate()
			} else {
				_ = unix.Kill(os.Getpid(), unix.SIGTERM) // ourselves
			}
		}
	}
}

// say says something to the holder, if there is one: the next one is told by how it is
// started.
func (l *Link) say(text string, files ...int) error {
	if l.sock == nil {
		return ErrNone
	}
	c, err := l.sock.SyscallConn()
	if err != nil {
		return err
	}
	failed := c.Write(func(fd uintptr) bool {
		err = send(int(fd), text, files...)
		return err != unix.EAGAIN
	})
	return errors.Join(failed, err)
}

// holdLimit is how long a holder may take to take files.
const holdLimit = 5 * time.Second

// Hold gives files to the holder, for successors: after those that it has. The caller may
// close its own. The error says that the holder cannot have all of them.
func (l *Link) Hold(files ...*os.File) error {
	l.holding.Lock()
	defer l.holding.Unlock()
	for batch := range slices.Chunk(files, maxFiles) {
		fds, err := dupFiles(batch)
		if err == nil {
			err = l.hold(fds)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hold gives files to the holder, and returns when it has them. l.holding is held.
func (l *Link) hold(fds []int) error {
	select {
	case <-l.answers: // to somebody who did not wait
	default:
	}
	l.mu.Lock()
	l.held = append(l.held, fds...)
	dead, ended := l.say(fmt.Sprintf("hold %d", len(fds)), fds...) != nil, l.ended
	l.mu.Unlock()
	if dead {
		return nil // the next one is started with them
	}
	var err error
	select {
	case answer := <-l.answers:
		if answer == "held" {
			return nil
		}
		err = fmt.Errorf("the holder cannot have %d more files open", len(fds))
	case <-time.After(holdLimit):
		err = errors.New("the holder does not answer")
	case <-ended: // as above
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = l.held[:len(l.held)-len(fds)]
	closeAll(fds)
	return err
}

// Held returns copies of the files that successors get, in their order: of a successor,
// those that came. They are the caller's.
func (l *Link) Held() ([]*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []*os.File
	for _, held := range l.held {
		fd, err := dup(held)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), "held"))
	}
	return files, nil
}

// SetName sets Config.Name, which a successor knows when it has read the state.
func (l *Link) SetName(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Name = name
}

// Serving says that this process serves.
func (l *Link) Serving() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving = true
	_ = l.say("serving") // else the next holder is told
	return nil
}

// Ready says that a standby could take over at once.
func (l *Link) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.say("ready")
}

// AwaitGo waits until the server that a standby is to follow has been ended. died is as in
// Succeed. The error says that nothing comes of it: this process is to end.
func (l *Link) AwaitGo(ctx context.Context) (died int, err error) {
	died = -1
	select {
	case died = <-l.goes:
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	case <-l.lost: // whether the other server is dead, too, its lock tells
		select {
		case died = <-l.goes:
		default:
		}
	}
	if err := l.lock(lockLimit); err != nil {
		return -1, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.standby = false
	if l.alone {
		go l.watch()
	}
	return died, nil
}

// Refuse says why a successor cannot serve, before it ends.
func (l *Link) Refuse(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.say("refuse " + why.Error()) // else nobody is told
}

// endLimit is how long a holder may take to end.
const endLimit = 5 * time.Second

// Done says that the mount is gone: the holder ends. Done waits for that, and removes what
// a holder leaves that is killed.
func (l *Link) Done() {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return
	}
	l.done = true
	close(l.over)
	_ = l.say("done") // or it is dead
	there, ended, standby, c := l.sock != nil, l.ended, l.standby, l.cfg
	l.mu.Unlock()
	if there && !standby { // a standby is not who ends it
		select {
		case <-ended:
		case <-time.After(endLimit):
		}
	}
	Forget(c.Sockets, c.Name, os.Geteuid())
}

// State tells of the holder.
func (l *Link) State() LinkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LinkState{Holder: l.pid, Why: l.why}
}
