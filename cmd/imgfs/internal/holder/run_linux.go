package holder

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs/privilege"
	"golang.org/x/sys/unix"
)

// stateVariable hands a holder what it is to hold, and what a holder knows to the one that
// it becomes.
const stateVariable = "IMGFS_HOLD"

// heapLimit is when a holder collects garbage; else it never does.
const heapLimit = 8 << 20

// A keeper is a holder's process. One goroutine has it.
type keeper struct {
	name, dir, sockets string
	patience           time.Duration
	times              times
	args, env          []string // of a successor; env without our variables

	device, state, log int
	held               []int
	program            int            // what successors are made of; -1: this program
	candidate          int            // what standby is made of; -1: none
	ignored            []os.Signal    // a successor ignores them, as the first server did
	signals            int            // an eventfd
	heard              chan os.Signal // what signals writes into it

	server  *server // nil: none lives
	standby *server // nil: no upgrade is under way
	swap    bool    // the server was killed to make room for standby

	startAt   time.Time   // when the next successor is started; zero: not now
	noneSince time.Time   // nobody serves since then; zero: somebody does
	failures  int         // successors in a row that did not serve, or not for long
	failed    []time.Time // when
	died      int         // how the last server ended
	reason    string      // why the last successor could not serve
	restarts  int
	upgrades  int
	last      time.Time // the last restart
	terminate bool      // somebody has told us to end

	asking  *client // who wants the upgrade; nil: gone
	files   []span
	door    door
	clients []*client
	code    int // the exit code; -1: go on
}

// Is reports whether a command line is a holder's.
func Is(args []string) bool { return len(args) > 1 && args[1] == Command }

// run is the holder's process. It returns the exit code.
func run() int {
	runtime.GOMAXPROCS(1)
	// A server that has yet to drop its own rights may have started this. If it cannot be,
	// as with cgo, the holder keeps what it has, as a server does. Who may not unmount has
	// fusermount3 do it, which is setuid.
	_ = privilege.Drop(privilege.Has(unix.CAP_SYS_ADMIN))
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	h, err := newKeeper(os.Args[2:], os.Getenv(stateVariable))
	if err != nil {
		return 1 // who starts it sees the end of its socket
	}
	h.listenToSignals()
	makeThreads()
	h.listen()
	setName(ProcessName)                     // a signal would have ended it before
	_ = os.Remove(h.place(goneFile(h.name))) // of a mount that had this number before
	h.findFiles()
	debug.FreeOSMemory()
	if h.idle() {
		h.forgetFiles()
	}
	for h.code < 0 {
		h.step()
	}
	h.closeDoor()
	return h.code
}

// newKeeper reads a holder's arguments,
//
//	NAME KEY=VALUE... -- ARGS
//
// and its state.
func newKeeper(args []string, state string) (*keeper, error) {
	h := &keeper{log: -1, program: -1, candidate: -1, died: -1, code: -1, door: door{fd: -1}, patience: DefaultPatience,
		times: times{window: time.Minute, deaths: 10, soon: time.Second}}
	end := slices.Index(args, "--")
	if end < 1 {
		return nil, unix.EINVAL
	}
	h.name, h.args = args[0], args[end+1:]
	var err error
	for _, arg := range args[1:end] {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "dir":
			h.dir = value
		case "sockets":
			h.sockets = value
		case "patience":
			h.patience, err = time.ParseDuration(value)
		case "window":
			h.times.window, err = time.ParseDuration(value)
		case "soon":
			h.times.soon, err = time.ParseDuration(value)
		case "deaths":
			h.times.deaths, err = strconv.Atoi(value)
		}
		if err != nil {
			return nil, err
		}
	}
	h.env = withoutOurs(os.Environ())
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT} {
		if signal.Ignored(sig) {
			h.ignored = append(h.ignored, sig)
		}
	}
	return h, h.readState(state)
}

// withoutOurs returns an environment without our variables: those that somebody else has set
// would come before ours.
func withoutOurs(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return strings.HasPrefix(v, stateVariable+"=") || strings.HasPrefix(v, Variable+"=")
	})
}

// readState reads what writeState wrote. Programs that are started do not get the
// descriptors in it.
func (h *keeper) readState(state string) error {
	s := &server{sock: -1, fd: -1}
	h.device, h.state = -1, -1
	for _, field := range strings.Fields(state) {
		key, value, _ := strings.Cut(field, "=")
		if key == "held" {
			for _, one := range strings.Split(value, ",") {
				if fd, err := strconv.Atoi(one); err == nil {
					h.held = append(h.held, fd)
				}
			}
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		switch key {
		case "device":
			h.device = n
		case "state":
			h.state = n
		case "log":
			h.log = n
		case "socket":
			s.sock = n
		case "process":
			s.fd = n
		case "pid":
			s.pid = n
		case "serving":
			s.serving = time.Now()
		case "restarts":
			h.restarts = n
		case "upgrades":
			h.upgrades = n
		case "last":
			h.last = time.Unix(int64(n), 0)
		case "died":
			h.died = n
		case "hup", "int":
			h.ignored = append(h.ignored, map[string]os.Signal{"hup": unix.SIGHUP, "int": unix.SIGINT}[key])
		}
	}
	if h.device < 0 || h.state < 0 || s.fd < 0 || s.sock < 0 {
		return unix.EINVAL
	}
	for _, fd := range h.descriptors(s) {
		unix.CloseOnExec(fd)
	}
	h.server = s
	if s.serving.IsZero() {
		h.noneSince = time.Now()
	}
	return nil
}

// descriptors are those that a holder must have.
func (h *keeper) descriptors(s *server) []int {
	fds := append([]int{h.device, h.state, s.fd, s.sock}, h.held...)
	if h.log >= 0 {
		fds = append(fds, h.log)
	}
	return slices.DeleteFunc(fds, func(fd int) bool { return fd < 0 })
}

// writeState writes what the holder knows of a server that serves.
func (h *keeper) writeState(s *server) string {
	var b strings.Builder
	fmt.Fprintf(&b, "device=%d state=%d log=%d socket=%d process=%d pid=%d restarts=%d upgrades=%d died=%d",
		h.device, h.state, h.log, s.sock, s.fd, s.pid, h.restarts, h.upgrades, h.died)
	if !s.serving.IsZero() {
		b.WriteString(" serving=1")
	}
	if !h.last.IsZero() {
		fmt.Fprintf(&b, " last=%d", h.last.Unix())
	}
	for _, sig := range h.ignored {
		b.WriteString(map[os.Signal]string{unix.SIGHUP: " hup=1", unix.SIGINT: " int=1"}[sig])
	}
	for i, fd := range h.held {
		b.WriteString(map[bool]string{true: " held=", false: ","}[i == 0])
		b.WriteString(strconv.Itoa(fd))
	}
	return b.String()
}

// renew makes this process a holder of another program. If that cannot be executed it
// goes on as it was, and makes successors of that program.
func (h *keeper) renew(program int) {
	if h.program >= 0 {
		unix.Close(h.program)
	}
	h.program = program
	fds := h.descriptors(h.server)
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	again := h.asInherited()
	env := append(slices.Clone(h.env), stateVariable+"="+h.writeState(h.server))
	_ = syscall.Exec(procFD(program), os.Args, env)
	again()
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}

// procFD is a path that leads to what a descriptor of this process is of.
func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
