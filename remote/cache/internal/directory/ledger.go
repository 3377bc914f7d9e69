package directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// docs/cache-format.md, "The budget".
const (
	LedgerName   = "space"
	ledgerMagic  = "imgfsspc"
	ledgerHeader = 64
	leaseSize    = 16
	maxLeases    = 1024

	// ledgerWait is how long the lock of the ledger is worth waiting for. Whoever
	// stores something has a reader behind them.
	ledgerWait = 2 * time.Second
)

// MaxTotal bounds numbers in the file: sums of them do not overflow.
const MaxTotal = 1 << 50

// ErrBusy: another process has the lock of the ledger for too long.
var ErrBusy = errors.New("the cache directory is busy")

// A spaceFile is the open file that says how much the directory takes, with
// the lease of its owner. It is not safe for concurrent use.
type ledger struct {
	dir   *beneath.Dir
	Wait  time.Duration // for the lock
	f     *os.File
	lease int // the owner's; -1 if there is none
	// alone: the file system has no locks. Then there are no leases, and
	// each process walks for itself.
	alone bool
	// temps returns what of the owner's lease files without a name take; nil
	// means nothing.
	temps func() int64
}

// A spaceRecord is what the file says.
type ledgerRecord struct {
	Used   int64 // no less than what du says and all leases
	walked int64 // what used was after the last walk
	Leases int64 // of the living, but for the owner of the spaceFile
	temps  int64 // of these, what files without a name take
	// known says that used and walked mean something.
	Known bool
}

// lock takes the lock of the ledger, and makes the file if there is none. It is
// ErrBusy if that takes too long.
func (s *ledger) lock() error {
	deadline := time.Now().Add(s.Wait)
	for {
		if s.f == nil {
			f, err := openOver(s.dir, LedgerName, os.O_RDWR)
			if err != nil {
				return err
			}
			s.f, s.lease = f, -1
		}
		if err := lockBytes(s.f, 0, ledgerHeader, deadline); err != nil && !s.without(err) {
			return err
		}
		if s.dir.Is(s.f, LedgerName) {
			return nil
		}
		s.Close() // the directory was cleared by hand
	}
}

// without reports whether err says that there are no locks, and notes it.
func (s *ledger) without(err error) bool {
	s.alone = s.alone || NoLocks(err) || errors.Is(err, unix.EINVAL)
	return s.alone
}

// unlock gives the lock of the ledger back.
func (s *ledger) unlock() {
	if s.f != nil {
		_ = setLock(s.f, unix.F_UNLCK, 0, ledgerHeader)
	}
}

// Close gives up everything.
func (s *ledger) Close() {
	if s.f != nil {
		s.f.Close()
	}
	s.f, s.lease = nil, -1
}

// Read returns what the file says. The lock of the ledger must be held.
func (s *ledger) Read(boot [16]byte) (ledgerRecord, error) {
	p := make([]byte, ledgerHeader+maxLeases*leaseSize)
	n, err := s.f.ReadAt(p, 0)
	if err != nil && err != io.EOF {
		return ledgerRecord{}, err
	}
	if n < ledgerHeader {
		// So that a walk finds the file as big as it will be.
		if _, err := s.f.WriteAt(make([]byte, ledgerHeader), 0); err != nil {
			return ledgerRecord{}, err
		}
	}
	r, leases := DecodeLedger(p[:n], boot)
	if s.alone {
		r.Known = false
		return r, nil
	}
	for i, lease := range leases {
		if lease.bytes > 0 && i != s.lease && leaseAlive(s.f, i) {
			r.Leases += lease.bytes
			r.temps += lease.temps
		}
	}
	return r, nil
}

// DecodeLedger returns what the bytes of the file say, and all leases.
func DecodeLedger(p []byte, boot [16]byte) (r ledgerRecord, leases []lease) {
	if len(p) < ledgerHeader {
		return ledgerRecord{}, nil
	}
	r.Used = int64(binary.LittleEndian.Uint64(p[32:]))
	r.walked = int64(binary.LittleEndian.Uint64(p[40:]))
	r.Known = bytes.Equal(p[:16], EncodeLedger(boot, 0, 0)[:16]) && bytes.Equal(p[16:32], boot[:]) &&
		r.Used >= 0 && r.Used < MaxTotal && r.walked >= 0 && r.walked <= r.Used
	for p = p[ledgerHeader:]; len(p) >= leaseSize; p = p[leaseSize:] {
		leases = append(leases, decodeLease(p))
	}
	return r, leases
}

func EncodeLedger(boot [16]byte, used, walked int64) []byte {
	p := make([]byte, ledgerHeader)
	copy(p, ledgerMagic)
	binary.LittleEndian.PutUint32(p[8:], version)
	copy(p[16:], boot[:])
	binary.LittleEndian.PutUint64(p[32:], uint64(used))
	binary.LittleEndian.PutUint64(p[40:], uint64(walked))
	return p
}

// write says how much is used, and then how big the owner's lease is: who is
// killed in between leaves a number that is too big. The lock of the ledger must be
// held.
func (s *ledger) write(boot [16]byte, used, walked, lease int64) error {
	if s.lease < 0 && lease > 0 && !s.alone {
		if err := s.takeLease(); err != nil {
			return err
		}
	}
	if _, err := s.f.WriteAt(EncodeLedger(boot, max(used, 0), min(max(walked, 0), max(used, 0))), 0); err != nil {
		return err
	}
	if s.lease < 0 {
		return nil
	}
	_, err := s.f.WriteAt(s.encodeLease(lease), ledgerHeader+leaseSize*int64(s.lease))
	return err
}

// takeLease finds a lease that nobody living has.
func (s *ledger) takeLease() error {
	for i := range maxLeases {
		err := setLock(s.f, unix.F_WRLCK, ledgerHeader+leaseSize*int64(i), leaseSize)
		if err == nil {
			s.lease = i
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
	}
	return ErrBusy
}

// setLock takes or gives back a lock on some bytes of an open file, without
// waiting.
func setLock(f *os.File, how int16, off, n int64) error {
	l := unix.Flock_t{Type: how, Whence: io.SeekStart, Start: off, Len: n}
	for {
		err := setRange(f, &l)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// lockBytes takes a lock, and waits for it until the deadline. It asks again
// and again, since a wait in the kernel has no end if the owner is stopped.
func lockBytes(f *os.File, off, n int64, deadline time.Time) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		err := setLock(f, unix.F_WRLCK, off, n)
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		if time.Now().After(deadline) {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

// KnownUse returns what the directory takes as far as its ledger says.
func KnownUse(dir *beneath.Dir) (int64, bool) {
	p := make([]byte, ledgerHeader)
	f, err := dir.Open(LedgerName)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if _, err := io.ReadFull(f, p); err != nil {
		return 0, false
	}
	r, _ := DecodeLedger(p, BootID())
	return r.Used, r.Known
}
