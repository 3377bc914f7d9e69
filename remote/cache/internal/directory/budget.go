package directory

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
)

const (
	MaxDefaultBudget = 10 << 30

	MaxBatch = 4 << 20   // of room that is leased at a time
	maxSlack = 256 << 20 // of room that is made at a time

	// loanTime is how long what MakeRoom gave may take to be written.
	loanTime = 10 * time.Second
	// FullTime is how long a full directory is left alone by those who come
	// often.
	FullTime = time.Second
)

// ErrFull: the disk, or the budget, does not take what should be stored.
var ErrFull = errors.New("no room on disk")

// errNoRoom: the budget is used up, and nothing more may be removed.
var errNoRoom = errors.New("the cache is full")

// DefaultBudget is for Options.Budget where the user says nothing: 10 GiB, or a
// tenth of what the disk has free besides what the directory takes already, if
// that is less.
const DefaultBudget = -1

// BudgetFor returns what DefaultBudget means for a directory.
func BudgetFor(d *beneath.Dir) int64 {
	free, err := d.Free()
	if err != nil {
		return MaxDefaultBudget
	}
	used, known := KnownUse(d)
	if !known {
		inv, _ := Walk(d)
		used = inv.Total
	}
	return min(MaxDefaultBudget, (min(free, math.MaxInt64/2)+used)/10)
}

// Budget returns how many bytes the directory may take, 0 for any.
func (c *Dir) Budget() int64 { return c.Room.limit }

// RoomFor returns an error, which wraps ErrFull, if the budget has no room for a
// blob that takes n bytes, or the disk none for the missing bytes of it.
func (c *Dir) RoomFor(n, missing int64) error {
	if limit := c.Room.limit; limit > 0 && FileRoom(n) > limit-c.Room.Temporary() {
		return NoRoomFor(n)
	}
	if free, err := c.files.Free(); err == nil && free <= missing {
		return fmt.Errorf("%w for a blob of %d bytes that is sent whole: %w", ErrFull, n, unix.ENOSPC)
	}
	return nil
}

// NoRoomFor is why the budget does not take a blob of n bytes.
func NoRoomFor(n int64) error {
	return &fullError{fmt.Sprintf("the cache has no room for a blob of %d bytes that is sent whole", n)}
}

// MakeRoom counts n more bytes as used, for a file that somebody else is about
// to write below the directory, and removes what was used least recently if
// the budget needs it. It reports whether the bytes may be written; they
// should be within ten seconds.
func (c *Dir) MakeRoom(n int64) bool {
	if n < 0 || n > MaxTotal || c.saysReadOnly() {
		return false
	}
	n = FileRoom(n)
	if !c.Room.take(n, Rule{Indexes: true}) {
		return false
	}
	c.Room.lend(n)
	return true
}

// Blocks rounds up to what n bytes take on disk.
func Blocks(n int64) int64 {
	return (n + blobfile.BlockSize - 1) / blobfile.BlockSize * blobfile.BlockSize
}

// FileRoom is what n bytes of a file take at most, with a block for what the
// file system adds: the file's map, or its directory.
func FileRoom(n int64) int64 { return Blocks(n) + blobfile.BlockSize }

// Put stores n bytes of chunks by calling write, if budget and disk take them
// by the rule, and reports whether they did. write is called once more if the
// disk was full.
func (c *Dir) Put(n int64, r Rule, write func() error) bool {
	if !c.MayKeep() {
		return false
	}
	stored, err := c.Within(FileRoom(n), r, write)
	if err != nil {
		c.DiskFailed(err)
	}
	return stored
}

// KeepFile is WriteFile, if budget and disk take it.
func (c *Dir) KeepFile(name string, data []byte) {
	if !c.MayWrite() {
		return
	}
	_, err := c.Within(FileRoom(int64(len(data))), Rule{Indexes: true}, func() error { return WriteFile(c.files, name, data) })
	if err != nil {
		c.DiskFailed(err)
	}
}

// Within writes what takes at most n bytes on disk, if the budget has room for
// it or can get it by the rule. On a full disk it makes some room and tries
// once more. It reports whether the write was done; the error is the disk's.
func (c *Dir) Within(n int64, r Rule, write func() error) (bool, error) {
	if !c.Room.take(n, r) {
		return false, nil
	}
	defer c.Room.done(n)
	if c.unmarked.Load() && writeVersion(c.files) == nil {
		c.unmarked.Store(false)
	}
	err := write()
	if IsFull(err) && c.Room.freeSome(r) {
		err = write()
	}
	return err == nil, err
}

// IsFull reports whether err says that the disk, or the user's share of it, is
// full.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// A Budget keeps what one Cache writes within its bounds: docs/cache-format.md,
// "The budget". It is safe for concurrent use.
type Budget struct {
	c     *Dir
	limit int64 // 0: none
	Boot  [16]byte

	mu    sync.Mutex
	left  int64 // of the lease
	held  int64 // taken off it, and being written, or in files without a name
	temps int64 // of held, what is in files without a name
	alone int64 // in such files elsewhere, which no other process counts
	loans []loan
	group recordingGroup

	// refill is held while the lease is extended, which others wait for.
	refill sync.Mutex
	Ledger ledger // guarded by refill
}

// A loan is room that somebody else may be filling.
type loan struct {
	n     int64
	until time.Time
}

func newBudget(c *Dir, limit int64) *Budget {
	b := &Budget{c: c, limit: max(limit, 0), Boot: BootID()}
	b.Ledger = ledger{dir: c.files, Wait: ledgerWait, lease: -1, temps: b.Temporary}
	return b
}

// take takes n bytes off the lease, and extends it if need be. done must be
// called when they have been written.
func (b *Budget) take(n int64, r Rule) bool {
	if b.limit == 0 || b.fromLease(n) {
		return true
	}
	b.refill.Lock()
	defer b.refill.Unlock()
	if b.fromLease(n) {
		return true
	}
	// What is left is put aside, so that nobody takes it meanwhile.
	b.mu.Lock()
	if r.Often && b.c.NoRoom.Within(FullTime) {
		b.mu.Unlock()
		return false
	}
	have := b.left
	b.left = 0
	b.held += have
	b.mu.Unlock()

	need := n - have
	grant, err := b.extend(need, r)
	if IsFull(err) && b.freeSomeLocked(r) {
		grant, err = b.extend(need, r)
	}
	b.mu.Lock()
	if err == nil {
		b.held += need
		b.left += grant - need
	} else {
		b.held -= have
		b.left += have
		if r.Often {
			b.c.NoRoom.Refuse()
		}
	}
	b.mu.Unlock()
	if err != nil && !errors.Is(err, errNoRoom) && !errors.Is(err, ErrBusy) {
		b.c.DiskFailed(err)
	}
	return err == nil
}

func (b *Budget) fromLease(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < n {
		return false
	}
	b.left -= n
	b.held += n
	return true
}

// done says that n bytes that were taken are on disk, or never will be.
func (b *Budget) done(n int64) {
	if b.limit > 0 {
		b.mu.Lock()
		b.held -= n
		b.mu.Unlock()
	}
}

// lend says that n bytes that were taken will be on disk soon.
func (b *Budget) lend(n int64) {
	if b.limit > 0 {
		b.mu.Lock()
		b.held -= n
		b.loans = append(b.loans, loan{n, time.Now().Add(loanTime)})
		b.mu.Unlock()
	}
}

// Outstanding returns how much may still be written on account of what was
// leased.
func (b *Budget) Outstanding() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.left + b.held
	now := time.Now()
	b.loans = slices.DeleteFunc(b.loans, func(l loan) bool { return now.After(l.until) })
	for _, l := range b.loans {
		n += l.n
	}
	return n
}

// extend leases at least need bytes more, and returns how many. The caller has
// refill.
func (b *Budget) extend(need int64, r Rule) (int64, error) {
	if need > b.limit {
		return 0, errNoRoom
	}
	mine := b.Outstanding()
	if err := b.Ledger.lock(); err != nil {
		return 0, err
	}
	defer b.Ledger.unlock()
	rec, err := b.Ledger.Read(b.Boot)
	if err != nil {
		return 0, err
	}
	// What files without a name take is no room that waits to be written.
	waiting := rec.Leases - rec.temps + mine - b.Temporary()
	grant := max(need, min(MaxBatch, b.limit/64, b.limit/8-waiting))
	if rec.Known && rec.Used+grant <= b.limit && rec.Used-rec.walked <= b.limit/16 {
		return grant, b.Ledger.write(b.Boot, rec.Used+grant, rec.walked, mine+grant)
	}
	inv, err := Walk(b.c.files)
	if err != nil {
		return 0, err
	}
	used := inv.Total + rec.Leases + mine
	if used+grant > b.limit {
		slack := min(b.limit/20, maxSlack)
		e := Eviction{Inv: inv, BlobsOf: b.c.blobsOf, Rule: r, Want: used + grant + slack - b.limit, Must: used - b.limit}
		used -= e.Run()
	}
	if used+grant > b.limit {
		grant = need
	}
	if used+grant > b.limit {
		b.c.warnOthers(inv.others, used+grant-b.limit)
		if err := b.Ledger.write(b.Boot, used, used, mine); err != nil {
			return 0, err
		}
		return 0, errNoRoom
	}
	return grant, b.Ledger.write(b.Boot, used+grant, used+grant, mine+grant)
}

// freeSome removes a part of what the directory holds, whatever the budget:
// the disk is full.
func (b *Budget) freeSome(r Rule) bool {
	b.refill.Lock()
	defer b.refill.Unlock()
	return b.freeSomeLocked(r)
}

func (b *Budget) freeSomeLocked(r Rule) bool {
	if b.Ledger.lock() != nil {
		return false
	}
	defer b.Ledger.unlock()
	inv, err := Walk(b.c.files)
	if err != nil {
		return false
	}
	e := Eviction{Inv: inv, BlobsOf: b.c.blobsOf, Rule: r, Want: min(inv.Total/10, 64<<20)}
	return e.Run() > 0
}

// close gives back what is left of the lease.
func (b *Budget) close() {
	b.refill.Lock()
	defer b.refill.Unlock()
	defer b.Ledger.Close()
	b.Ledger.Wait = giveBackWait
	if b.Ledger.lease < 0 || b.Ledger.lock() != nil || b.Ledger.lease < 0 {
		return
	}
	defer b.Ledger.unlock()
	b.mu.Lock()
	left := b.left
	b.left = 0
	b.mu.Unlock()
	if rec, err := b.Ledger.Read(b.Boot); err == nil && rec.Known {
		// If it fails the next walk finds it.
		_ = b.Ledger.write(b.Boot, rec.Used-left, rec.walked-left, b.Outstanding())
	}
}

// Recount makes the ledger say what is true after things were removed. The
// caller has refill and the lock of the ledger.
func (b *Budget) Recount() (inventory, error) {
	mine := b.Outstanding()
	rec, err := b.Ledger.Read(b.Boot)
	if err != nil {
		return inventory{}, err
	}
	inv, err := Walk(b.c.files)
	if err != nil {
		return inventory{}, err
	}
	used := inv.Total + rec.Leases + mine
	return inv, b.Ledger.write(b.Boot, used, used, mine)
}

// Locked calls do with the lock of the ledger held. It waits longer than a writer: the
// user has asked for it.
func (b *Budget) Locked(do func() error) error {
	b.refill.Lock()
	defer b.refill.Unlock()
	err := b.Ledger.lock()
	for range 10 {
		if !errors.Is(err, ErrBusy) {
			break
		}
		err = b.Ledger.lock()
	}
	if err != nil {
		return fmt.Errorf("cache directory %s: %w", b.c.path, err)
	}
	defer b.Ledger.unlock()
	// This gives the file the size that it will have.
	if _, err := b.Ledger.Read(b.Boot); err != nil {
		return err
	}
	return do()
}
