package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// A Store is the file descriptor store of the service manager that has started this
// process (systemd.service(5), FileDescriptorStoreMax=). What is in it outlives the process,
// and the service manager gives it to the next one that it starts for the unit: it does what
// a holder does. It is safe for concurrent use.
type Store struct {
	unit unitName
	// device and state are those of the last server, nil if there was none.
	device, state *os.File

	mu   sync.Mutex
	came []*os.File // what the servers before have held
	held int        // how many files are held
	sent int        // how many files the store must have
}

var _ custodian = (*Store)(nil)

// Names of files in the store. The held ones have a number behind it.
const (
	storedDevice = "imgfs-device"
	storedState  = "imgfs-state"
	storedHeld   = "imgfs-held-"
)

// OpenStore takes what the service manager has kept. The error says why it keeps nothing.
func OpenStore(ctx context.Context) (*Store, error) {
	if !Managed() {
		return nil, errors.New("it is in the foreground, and no service manager starts it again")
	}
	unit, err := ownUnit()
	if err != nil {
		return nil, err
	}
	s := &Store{unit: unit}
	if s.take(activation.Files(true)) {
		return s, nil
	}
	if room, err := s.room(ctx); err != nil {
		return nil, err
	} else if room == 0 {
		return nil, fmt.Errorf("%s has no FileDescriptorStoreMax=", unit.name)
	}
	return s, nil
}

// take takes files that the service manager has kept, and reports whether there were any.
func (s *Store) take(files []*os.File) bool {
	held := make(map[int]*os.File)
	for _, f := range files {
		number, isHeld := strings.CutPrefix(f.Name(), storedHeld)
		n, err := strconv.Atoi(number)
		switch {
		case f.Name() == storedDevice:
			s.device = f
		case f.Name() == storedState:
			s.state = f
		case isHeld && err == nil:
			held[n] = f
		default:
			f.Close() // the user's own, for which imgfs has no use
			continue
		}
		s.sent++
	}
	for s.held = 0; held[s.held] != nil; s.held++ {
		s.came = append(s.came, held[s.held])
	}
	return s.sent > 0
}

// room returns how many files the store may have.
func (s *Store) room(ctx context.Context) (int, error) {
	const set = "FileDescriptorStoreMax"
	text := os.Getenv("FDSTORE") // systemd 254
	if text == "" {
		shown, err := s.unit.show(ctx, set)
		if err != nil {
			return 0, fmt.Errorf("the service manager does not say whether it keeps descriptors: %w", err)
		}
		text = shown[set]
	}
	return strconv.Atoi(text)
}

// Came reports whether the last server has left a mount.
func (s *Store) Came() bool { return s.device != nil && s.state != nil }

// Keep keeps the device and the state of a mount that this process has made.
func (s *Store) Keep(k *fusefs.Kept) error {
	device, state := k.Files()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send([]string{storedDevice, storedState}, []*os.File{device, state})
}

// Hold keeps more files.
func (s *Store) Hold(files ...*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, len(files))
	for i := range files {
		names[i] = storedHeld + strconv.Itoa(s.held+i)
	}
	if err := s.send(names, files); err != nil {
		return err
	}
	s.held += len(files)
	return nil
}

// Held returns the files that the servers before have held. They are the caller's.
func (s *Store) Held() ([]*os.File, error) { return s.came, nil }

// Serving does nothing: the service manager is told when the mount is ready.
func (s *Store) Serving() error { return nil }

// Done empties the store.
func (s *Store) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{storedDevice, storedState}
	for i := range s.held {
		names = append(names, storedHeld+strconv.Itoa(i))
	}
	for _, name := range names {
		notify("FDSTOREREMOVE=1", "FDNAME="+name)
	}
	s.held, s.sent = 0, 0
}

// send puts files into the store, and sees whether they are there: the service manager
// says nothing when it keeps none. The caller has mu.
func (s *Store) send(names []string, files []*os.File) error {
	for i, f := range files {
		if err := sendFile(f, "FDSTORE=1", "FDPOLL=0", "FDNAME="+names[i]); err != nil {
			return fmt.Errorf("the service manager takes no descriptor: %w", err)
		}
	}
	s.sent += len(files)
	const count = "NFileDescriptorStore"
	shown, err := s.unit.show(context.Background(), count)
	if err != nil {
		return nil // it has room for some, and nobody tells more
	}
	if n, err := strconv.Atoi(shown[count]); err == nil && n < s.sent {
		return fmt.Errorf("%s keeps %d of %d descriptors: FileDescriptorStoreMax= is too low", s.unit.name, n, s.sent)
	}
	return nil
}

// sendFile sends the service manager a message with a file, as sd_pid_notify_with_fds(3).
func sendFile(f *os.File, states ...string) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(sock)
	unix.CloseOnExec(sock)
	raw, err := f.SyscallConn() // Fd would make the file blocking, for all who have it
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
		err = os.NewSyscallError("sendmsg", unix.Sendmsg(sock, []byte(strings.Join(states, "\n")), unix.UnixRights(int(fd)), to, 0))
	})
	return errors.Join(failed, err)
}
