package directory

import (
	"encoding/binary"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A lease is one of the ledger: docs/cache-format.md, "The budget".
type lease struct {
	bytes int64
	temps int64 // of these, what files without a name take
}

// decodeLease returns a lease, with 0 for what cannot be.
func decodeLease(p []byte) lease {
	l := lease{int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint64(p[8:]))}
	if l.bytes < 0 || l.bytes >= MaxTotal {
		l.bytes = 0
	}
	if l.temps < 0 || l.temps > l.bytes {
		l.temps = 0
	}
	return l
}

// encodeLease returns the owner's lease of some bytes.
func (s *ledger) encodeLease(bytes int64) []byte {
	p := make([]byte, leaseSize)
	binary.LittleEndian.PutUint64(p, uint64(bytes))
	if s.temps != nil {
		binary.LittleEndian.PutUint64(p[8:], uint64(min(s.temps(), bytes)))
	}
	return p
}

// leaseAlive reports whether somebody has lease i, but by f itself.
func leaseAlive(f *os.File, i int) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: ledgerHeader + leaseSize*int64(i), Len: leaseSize}
	err := getRange(f, &l)
	return err != nil || l.Type != unix.F_UNLCK
}

// Temporary returns how many bytes files without a name take that running
// processes have in the directory, which Usage does not see: as far as their
// leases say it, which is give or take 4 MiB a process, and nothing of processes
// without a budget.
func (c *Dir) Temporary() int64 {
	f, err := c.files.Open(LedgerName)
	if err != nil {
		return 0
	}
	defer f.Close()
	p := make([]byte, ledgerHeader+maxLeases*leaseSize)
	n, err := f.ReadAt(p, 0)
	if err != nil && err != io.EOF {
		return 0
	}
	r, leases := DecodeLedger(p[:n], c.Room.Boot)
	if !r.Known {
		return 0
	}
	sum := int64(0)
	for i, l := range leases {
		if l.temps > 0 && leaseAlive(f, i) {
			sum += l.temps
		}
	}
	return sum
}
