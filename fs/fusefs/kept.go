//go:build linux

package fusefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

// maxNote is how long a note may be, in bytes.
const maxNote = 64 << 10

// A Kept is what outlives the server of a mount, so that another one can go on: the FUSE
// device and a memory, as files that others can hold. docs/recovery.md says what is in it.
// Its methods may be called by several goroutines at once, but it is for one process at a
// time; a standby may have it, too, until it calls [Prepared.Start].
type Kept struct {
	memory *journal.Memory

	mu     sync.Mutex
	device *os.File // nil before the mount
	state  keptState
}

// A keptState is the record of what the mount is.
type keptState struct {
	Mount  keptMount `json:"mount"`
	Helper string    `json:"helper,omitempty"` // that unmounts
	// Init is the kernel's first request, and Reply what it was answered.
	Init  []byte `json:"init"`
	Reply []byte `json:"reply"`
	// Early says that there was no tree when that was answered, and Shown that there is one.
	Early bool `json:"early,omitempty"`
	Shown bool `json:"shown"`
	// Planned says that INIT has announced passthrough, and Depth how many file systems may
	// be stacked with it. Passthrough says that opens are answered, for files to be passed
	// through; Why, why not.
	Planned     bool   `json:"planned"`
	Depth       int    `json:"depth"`
	Passthrough bool   `json:"passthrough"`
	Why         string `json:"why,omitempty"`
	// Identity is Options.Identity.
	Identity  string `json:"identity"`
	ReadAhead string `json:"readAhead,omitempty"` // why it is not raised
	// Refused are requests that servers died of.
	Refused []refusedRequest `json:"refused,omitempty"`
}

// A keptMount is a mountEntry in the record.
type keptMount struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	Device string `json:"device"`
	Part   string `json:"part"`
	Dir    string `json:"dir"`
	Type   string `json:"type"`
	Source string `json:"source"`
	Owner  string `json:"owner"`
	Shared bool   `json:"shared,omitempty"`
	Open   bool   `json:"open,omitempty"`
	Unique uint64 `json:"unique,omitempty"`
}

func keepMount(a attached) keptMount {
	m := a.entry
	return keptMount{m.id, m.parent, m.device, m.part, m.dir, m.fsType, m.source, m.owner, m.shared, m.open, a.unique}
}

func (k keptMount) entry() mountEntry {
	return mountEntry{id: k.ID, parent: k.Parent, device: k.Device, part: k.Part, dir: k.Dir, fsType: k.Type,
		source: k.Source, owner: k.Owner, shared: k.Shared, open: k.Open}
}

// NewKept returns one for a new mount, by Options.Kept of Mount or Attach.
func NewKept() (*Kept, error) {
	m, err := journal.New()
	if err != nil {
		return nil, fmt.Errorf("memory for recovery: %w", err)
	}
	return &Kept{memory: m}, nil
}

// OpenKept returns that of a mount that another server has served, by the files that its
// Files has returned. Unless there is an error the files are the Kept's. It wraps [ErrKept]
// if the state is of a version that this program does not know, or damaged.
func OpenKept(device, state *os.File) (*Kept, error) {
	m, err := journal.Open(state)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKept, err)
	}
	k := &Kept{memory: m, device: device}
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKept, err)
	}
	return k, nil
}

// read reads the record of the state.
func (k *Kept) read() error {
	text, err := k.memory.Read(journal.State)
	if err != nil {
		return err
	}
	if text == nil {
		return errors.New("no mount was made with it")
	}
	var s keptState
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if len(s.Init) < inHeader || len(s.Reply) < outHeader {
		return fmt.Errorf("%w: the state has no INIT", journal.ErrDamaged)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	return nil
}

// Files returns what the next server needs: the FUSE device, nil before the mount, and the
// state. They are the Kept's, and open as long as the mount is served. No copy of the device
// may be made non-blocking.
func (k *Kept) Files() (device, state *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.device, k.memory.File()
}

// Close gives up a Kept that no server has or is to have. The files are closed.
func (k *Kept) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.device.Close() // nil does no harm
	_ = k.memory.File().Close()
}

// Gone reports whether the connection to the kernel has ended, as after an unmount: nobody
// can be served any more.
func (k *Kept) Gone() bool {
	device, _ := k.Files()
	if device == nil {
		return false
	}
	gone := true // of a file that is closed
	if raw, err := device.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { gone = isBroken(int(fd)) })
	}
	return gone
}

// Dir returns the mountpoint, as it was when the mount was made; "" before.
func (k *Kept) Dir() string { return k.now().Mount.Dir }

// Device returns the number of the file system, as [MountPoint].Device; "" before the
// mount.
func (k *Kept) Device() string { return k.now().Mount.Device }

// now returns the state.
func (k *Kept) now() keptState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// SetNote keeps up to 64 KiB for the next server, in place of what was kept before: of a
// process that is killed meanwhile, one or the other. A longer note is an error.
func (k *Kept) SetNote(b []byte) error {
	if len(b) > maxNote {
		return fmt.Errorf("a note of %d bytes, of which there may be %d", len(b), maxNote)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.memory.Write(journal.Note, b)
}

// Note returns what SetNote has kept, nil if that was nothing or is damaged.
func (k *Kept) Note() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, _ := k.memory.Read(journal.Note) // what is damaged is none
	return b
}

// update changes the state.
func (k *Kept) update(change func(*keptState)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.state
	change(&next)
	text, err := json.Marshal(next)
	if err == nil {
		err = k.memory.Write(journal.State, text)
	}
	if err == nil {
		k.state = next
	}
	return err
}

// take takes the descriptor of the device of a new mount, or finds that it has it.
func (k *Kept) take(fd int) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.device == nil {
		k.device = os.NewFile(uintptr(fd), "/dev/fuse")
		return k.device, nil
	}
	if int(k.device.Fd()) != fd {
		return os.NewFile(uintptr(fd), "/dev/fuse"), errors.New("Options.Kept is that of another mount")
	}
	return k.device, nil
}

// keepInit keeps what INIT was, and what it was answered.
func (k *Kept) keepInit(request, reply []byte) error {
	return k.update(func(s *keptState) { s.Init, s.Reply = slices.Clone(request), reply })
}

// isBroken reports whether the connection of a descriptor of the FUSE device
// has ended.
func isBroken(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0
}
