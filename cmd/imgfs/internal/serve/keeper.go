package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache"
	"golang.org/x/sys/unix"
)

// A Recovery has a mount outlive the process that serves it: another process, the holder,
// has what the kernel needs open, and starts a successor when the server has died
// (docs/recovery.md).
type Recovery struct {
	// Args is the command line of successors, without the program. Its last word is the
	// image; the directory is added.
	Args []string
	// Words are the arguments of the first server as they were given.
	Words []string
	// Patience is how long the mount is kept while no successor can serve it.
	Patience time.Duration
	// Shows says which options change what is seen in the mount: an image is shown by
	// successors with the same ones alone.
	Shows string
	// Authfile, if not nil, is what a file for credentials said that can be read once.
	Authfile *os.File
	// Store, if not nil, is what keeps the files of the mount, in place of a holder.
	Store *Store
}

// Names of held files, besides those of an image: see note.Held.
const (
	heldDir      = "dir"      // the directory that was made, which is locked
	heldView     = "view"     // the directory that was made for the writable view
	heldUpper    = "upper"    // the directory that takes what is written, which is locked
	heldAuthfile = "authfile" // Recovery.Authfile
	heldImage    = "image:"   // and the name of an image.Held
)

// A note is what the successors of a server need to know besides their command line. As
// JSON it lies in the state that outlives a server.
type note struct {
	// Ready says that the user was told of the mount. One that nobody was told of ends.
	Ready bool   `json:"ready"`
	Image string `json:"image"` // its name, as messages have it
	// Opened says that the image was open, and that what successors open it by is held.
	Opened bool      `json:"opened,omitempty"`
	Since  time.Time `json:"since"`
	Made   string    `json:"made,omitempty"` // the directory, if it was made for this mount
	View   *viewNote `json:"view,omitempty"` // nil: there is no writable view
	// Held are names of the held files, in their order; "" is one that is not used any more.
	Held      []string      `json:"held,omitempty"`
	Prefetch  PrefetchState `json:"prefetch"`
	Published bool          `json:"published,omitempty"` // nothing is left to publish

	Restarts    int       `json:"restarts,omitempty"`
	LastRestart time.Time `json:"lastRestart,omitzero"`
	LastWhy     string    `json:"lastWhy,omitempty"`

	// Under a service manager: Recovery.Args and Words, and when servers were started in the
	// last time.
	Args   []string    `json:"args,omitempty"`
	Words  []string    `json:"words,omitempty"`
	Starts []time.Time `json:"starts,omitempty"`
}

// A keeper is this process's part of what has a mount outlive it. Its methods may be called
// by several goroutines at a time, and do nothing if it is nil or off.
type keeper struct {
	why   string // it is off; "" if it is not
	kept  *fusefs.Kept
	lacks error // why it is off though it is wanted, until the user is told

	mu   sync.Mutex
	with custodian // nil: there is none yet, or none any more
	note note
}

// A custodian keeps the open files of a mount while no server does, and has another server
// started: a holder, or a service manager. It is safe for concurrent use.
type custodian interface {
	// Hold keeps more files.
	Hold(files ...*os.File) error
	// Held returns copies of the files of all calls of Hold, of this process and those
	// before.
	Held() ([]*os.File, error)
	// Serving says that this process serves the mount now.
	Serving() error
	// Done says that there is no mount any more.
	Done()
}

var _ custodian = (*holder.Link)(nil)

// newKeeper returns the keeper of a mount that has yet to be made.
func newKeeper(m *Mount) *keeper {
	k := &keeper{note: note{Image: m.name(), Since: time.Now().UTC().Truncate(time.Second), Prefetch: PrefetchState{State: "off"}}}
	switch {
	case m.Recovery == nil:
		k.why = m.NoRecovery
	case m.Options.IOUring == fusefs.On:
		k.why = "io_uring takes the requests, and those of a dead process are lost there"
	default:
		var err error
		if k.kept, err = fusefs.NewKept(); err != nil {
			k.why, k.lacks = cli.Describe(err), err
		}
	}
	if m.Made != nil {
		k.note.Made = m.Made.Dir
	}
	return k
}

// on reports whether the mount outlives this process, or will.
func (k *keeper) on() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why == ""
}

// off turns it off.
func (k *keeper) off(why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why == "" {
		k.why = why
	}
}

// A heldFile is a file that successors get, and what it is in note.Held.
type heldFile struct {
	name string
	file *os.File
}

// start starts the holder of a mount, which has what is open of it. It does not wait until
// the holder is up: whoever waits for the mount would, too.
func (k *keeper) start(m *Mount) error {
	var held []heldFile
	if m.Made != nil {
		held = append(held, heldFile{heldDir, m.Made.lock})
	}
	view, ofView, err := m.heldView()
	if err != nil {
		return err
	}
	held = append(held, ofView...)
	if auth := m.Recovery.Authfile; auth != nil {
		held = append(held, heldFile{heldAuthfile, auth})
	}
	if m.Image != nil {
		files, err := m.Image.Held()
		if err != nil {
			return err
		}
		defer image.CloseHeld(files)
		for _, f := range files {
			held = append(held, heldFile{heldImage + f.Name, f.File})
		}
	}
	var files []*os.File
	err = k.change(func(n *note) { // there may be a successor as soon as there is a custodian
		for _, f := range held {
			n.Held, files = append(n.Held, f.name), append(files, f.file)
		}
		n.View = view
		if m.Image != nil {
			n.Image, n.Opened = m.Image.Name(), true
		}
	})
	if err != nil {
		return err
	}
	with, err := k.custodian(m, files)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.with = with
	return nil
}

// custodian begins to keep what is open of a mount: the device, the state, and files.
func (k *keeper) custodian(m *Mount, files []*os.File) (custodian, error) {
	if s := m.Recovery.Store; s != nil {
		if err := s.Keep(k.kept); err != nil {
			return nil, err
		}
		if err := errors.Join(s.Hold(files...), k.change(func(n *note) { n.Args, n.Words = m.Recovery.Args, m.Recovery.Words })); err != nil {
			s.Done()
			return nil, err
		}
		return s, nil
	}
	cfg := m.Recovery.config(m.dir(), m.Cache)
	cfg.Name, cfg.Warnf, cfg.Held = k.kept.Device(), m.Env.Warnf, files
	cfg.Device, cfg.State = k.kept.Files()
	return holder.Start(cfg)
}

// config is what a holder needs to know of the mount on a directory, but for its files.
func (r *Recovery) config(dir string, disk *cache.Cache) holder.Config {
	cfg := holder.Config{Args: append(slices.Clone(r.Args), dir), Env: successorEnv(), Patience: r.Patience, Sockets: socketDir(), Dir: dir,
		Terminate: sync.OnceFunc(func() { _ = unix.Kill(os.Getpid(), unix.SIGTERM) })} // a second one would cut off its users
	if disk == nil {
		return cfg
	}
	if log, err := disk.OpenLog(maxLog); err == nil {
		defer log.Close()
		cfg.Log, _ = log.File() // without it there is no last line
	}
	return cfg
}

// successorEnv is the environment of successors: a service manager waits for none of them.
func successorEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
}

// keep has the mount outlive this process from now on, as far as it is known by now what
// successors need. If that cannot be, the mount goes without.
func (m *Mount) keep() {
	k := m.keeper
	err := k.lacks
	switch {
	case err != nil:
		k.lacks = nil
	case !k.on():
		return
	case k.custodianNow() == nil:
		err = k.start(m)
	case m.Image != nil:
		err = k.opened(m.Image)
	}
	if err != nil {
		k.off(cli.Describe(err))
		k.done()
		m.Env.Warnf("the mount ends with the process that serves it: %s", cli.Describe(err))
	}
}

// opened notes which image is shown, and holds what a successor opens it by, in place of
// what was held of it before.
func (k *keeper) opened(img *image.Image) error {
	held, err := img.Held()
	if err != nil {
		return err
	}
	defer image.CloseHeld(held)
	names, files := make([]string, len(held)), make([]*os.File, len(held))
	for i, h := range held {
		names[i], files[i] = heldImage+h.Name, h.File
	}
	if err := k.give(files...); err != nil {
		return err
	}
	return k.change(func(n *note) {
		for i, name := range n.Held {
			if strings.HasPrefix(name, heldImage) {
				n.Held[i] = ""
			}
		}
		n.Held, n.Image, n.Opened = append(n.Held, names...), img.Name(), true
	})
}

// holdAnew holds other files when an image is read by another index, until ctx ends.
func (m *Mount) holdAnew(ctx context.Context) {
	for m.keeper.on() {
		changed := m.Image.Reheld()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if err := m.keeper.opened(m.Image); err != nil {
			m.Env.Warnf("what the next server needs of the image is not held: %s", cli.Describe(err))
		}
	}
}

// give gives files to the holder, if there is one.
func (k *keeper) give(files ...*os.File) error {
	k.mu.Lock()
	with := k.with
	k.mu.Unlock()
	if with == nil || len(files) == 0 {
		return nil
	}
	return with.Hold(files...)
}

// noted returns what successors are told.
func (k *keeper) noted() note {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.note
}

// change changes what successors are told.
func (k *keeper) change(f func(*note)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.note)
	if k.why != "" {
		return nil
	}
	text, err := json.Marshal(k.note)
	if err != nil {
		return err
	}
	return k.kept.SetNote(text)
}

// done ends the holder: the mount is gone. Twice does no harm.
func (k *keeper) done() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.with != nil {
		k.with.Done()
		k.with = nil
	}
}

// A RecoveryState says whether a mount outlives the process that serves it.
type RecoveryState struct {
	State string `json:"state"`         // "on" or "off"
	Why   string `json:"why,omitempty"` // it is off
	// Holder is the process that starts another server when this one has died; 0: there
	// is none at the moment.
	Holder int `json:"holder,omitempty"`
	// HolderStopped says that it is stopped, by SIGSTOP or a debugger, and would start none.
	HolderStopped bool `json:"holderStopped,omitempty"`
	// Unit is the unit whose service manager does that, in place of a holder.
	Unit string `json:"unit,omitempty"`
	// Restarts is how many servers there were before this one, LastRestart when it took
	// over, and LastWhy what became of the one before.
	Restarts    int       `json:"restarts"`
	LastRestart time.Time `json:"lastRestart,omitzero"`
	LastWhy     string    `json:"lastWhy,omitempty"`
	// Refused are files that get EIO, as requests for them have killed servers.
	Refused      []string         `json:"refused,omitempty"`
	RefusedBytes []show.NameBytes `json:"refusedBytes,omitempty"` // see show.Marshal
}

// state is what stats say.
func (k *keeper) state() RecoveryState {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := RecoveryState{State: "on", Why: k.why, Restarts: k.note.Restarts, LastRestart: k.note.LastRestart, LastWhy: k.note.LastWhy}
	if k.why != "" {
		s.State = "off"
	}
	switch with := k.with.(type) {
	case *holder.Link:
		s.Holder = with.State().Holder
		s.HolderStopped = Stopped(s.Holder)
	case *Store:
		s.Unit = with.unit.name
	}
	return s
}

// What the holder says is understood: these are equal.
const _ = uint(holder.Replaced-fusefs.Replaced) + uint(fusefs.Replaced-holder.Replaced)

// diedText says how a server ended, by the signal that ended it: 0 is none, and -1 not
// known.
func diedText(signal int) string {
	switch signal {
	case -1:
		return "the process before is gone"
	case 0:
		return "the process before ended by itself"
	case holder.Replaced:
		return "the process before was replaced"
	}
	return "the process before was ended by " + cmp.Or(unix.SignalName(unix.Signal(signal)), fmt.Sprint("signal ", signal))
}
