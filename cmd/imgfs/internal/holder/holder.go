package holder

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	// Command is the first argument of a holder: it tells it from a server, which has the
	// FUSE device open, too.
	Command = "__hold"
	// Variable is the environment variable by which a successor knows that it is one.
	Variable = "IMGFS_SUCCEED"
	// ProcessName is the name of a holder for ps(1).
	ProcessName = "imgfs-hold"
	// maxMessage is how many bytes a message may have.
	maxMessage = 4096
)

// Descriptors of a successor. Held files follow, in the order of [Link.Hold].
const (
	deviceFD = 3
	stateFD  = 4
	socketFD = 5
	heldFD   = 6
)

// Replaced, in place of a signal, says that the holder has killed the last server, for an
// upgrade.
const Replaced = -2

// DefaultPatience is how long none may have served before a holder gives up.
const DefaultPatience = time.Minute

// ErrNone says that a mount has no holder.
var ErrNone = errors.New("nothing would restart its server")

// ErrServed says that another process serves the mount already.
var ErrServed = errors.New("another process serves this mount")

// A Config is what a holder needs to start successors.
type Config struct {
	// Args is the command line of a successor, without the program's name.
	Args []string
	// Env is the environment of a successor; nil is that of this process.
	Env []string
	// Patience is how long none may have served before the holder gives up; 0 is
	// DefaultPatience, and less is for ever.
	Patience time.Duration
	// Device and State are what a successor gets as descriptors 3 and 4. Start makes
	// copies.
	Device, State *os.File
	// Held are what successors get besides, before those of [Link.Hold]. Start makes copies;
	// of a successor they came.
	Held []*os.File
	// Device's number, with a dash: "0-39".
	Name string
	// Sockets is an absolute path of a directory in which only this user can make files:
	// the holder listens there. It is made if it is not there. With "" nobody can ask the
	// holder anything.
	Sockets string
	// Dir is the mountpoint, for messages.
	Dir string
	// Log takes the holder's messages, a line each; nil is nowhere. It was opened with
	// O_APPEND.
	Log *os.File
	// Terminate is called when somebody has told the holder to end (SIGTERM), who wants
	// the mount to be unmounted. nil sends SIGTERM to this process.
	Terminate func()
	// Warnf is told once when no holder can be started, and when there is one again. It
	// may be nil.
	Warnf func(format string, args ...any)

	exe   string // the program of the holder; "" is this one. For tests
	times times  // zero are the defaults. For tests
}

// times are how long things may take.
type times struct {
	window   time.Duration // deaths are counted over this time: a minute
	deaths   int           // this many in it end the holder: 10
	soon     time.Duration // a server that crashes after less counts as if it had not served: 1 s
	relaunch time.Duration // between attempts to start a holder: 0.5 s
}

// A Succeed is what a successor inherits.
type Succeed struct {
	// Standby says that another server serves: [Link.Ready], and [Link.AwaitGo] comes
	// before the successor's work.
	Standby bool
	// Died is the signal that ended the last server, 0 if it ended by itself, -1 if it is
	// not known, and [Replaced]. With Standby AwaitGo tells.
	Died int
	// Device and State are the files of Config. They are the caller's.
	Device, State *os.File
}

// A LinkState is what [Link.State] tells.
type LinkState struct {
	Holder int    // the holder's process; 0: there is none now
	Why    string // why there is none
}

// A Status is what a holder tells of itself and the server.
type Status struct {
	Holder, Server int       // processes; Server is 0 if there is none now
	State          string    // watch, start or standby
	Restarts       int       // servers that took over from one that had died
	Upgrades       int       // servers that took over by imgfs upgrade
	LastRestart    time.Time // zero: never
	Died           int       // how the last server ended, as in Succeed
	Reason         string    // why the last successor could not serve, or ""
}

// The states of a holder.
const (
	StateWatch   = "watch"   // a server serves
	StateStart   = "start"   // a server is being started
	StateStandby = "standby" // another program is being started, to be put in the server's place
	StateGone    = "gone"    // the mount has ended, and its server is about to
)

// A Gone is what a holder left that gave up.
type Gone struct {
	Time   time.Time
	Dir    string
	Reason string
}

// goneFile and socketFile are the names of a holder's files in Config.Sockets.
func goneFile(name string) string   { return name + ".gone" }
func socketFile(name string) string { return name + ".holder" }

// NameOf returns Config.Name of a device: "0-39" for "0:39".
func NameOf(device string) string { return nameOf(device) }

func nameOf(device string) string { return strings.ReplaceAll(device, ":", "-") }

// A RefusedError says why a holder does not do what it is asked for.
type RefusedError struct {
	Reason string
	// Failed says that the mount may have been disturbed: the new program had taken over,
	// and ended.
	Failed bool
}

func (e *RefusedError) Error() string { return e.Reason }

// A SilentError says that the holder of a mount does not answer.
type SilentError struct {
	PID     int
	Stopped bool // by SIGSTOP
	Err     error
}

func (e *SilentError) Error() string {
	if e.Stopped {
		return fmt.Sprintf("process %d, which would restart its server, is stopped", e.PID)
	}
	return fmt.Sprintf("process %d, which would restart its server: %v", e.PID, e.Err)
}

func (e *SilentError) Unwrap() error { return e.Err }
