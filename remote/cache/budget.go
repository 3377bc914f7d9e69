package cache

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

const (
	maxDefaultBudget = 10 << 30

	maxBatch = 4 << 20   // of room that is leased at a time
	maxSlack = 256 << 20 // of room that is made at a time

	// loanTime is how long what MakeRoom gave may take to be written.
	loanTime = 10 * time.Second
	// fullTime is how long a full directory is left alone by those who come
	// often.
	fullTime = time.Second
)

// ErrFull: the disk, or the budget, does not take what should be stored.
var ErrFull = errors.New("no room on disk")

// errNoRoom: the budget is used up, and nothing more may be removed.
var errNoRoom = errors.New("the cache is full")

// DefaultBudget is for Options.Budget where the user says nothing: 10 GiB, or a
// tenth of what the disk has free besides what the directory takes already, if
// that is less.
const DefaultBudget = -1

// defaultBudget returns what DefaultBudget means for a directory.
func defaultBudget(d *beneath.Dir) int64 {
	free, err := d.Free()
	if err != nil {
		return maxDefaultBudget
	}
	used, known := knownUse(d)
	if !known {
		inv, _ := walk(d)
		used = inv.total
	}
	return min(maxDefaultBudget, (min(free, math.MaxInt64/2)+used)/10)
}

// Budget returns how many bytes the directory may take, 0 for any.
func (c *directory) Budget() int64 { return c.budget.limit }

// roomFor returns an error, which wraps ErrFull, if the budget has no room for a
// blob that takes n bytes, or the disk none for the missing bytes of it.
func (c *directory) roomFor(n, missing int64) error {
	if limit := c.budget.limit; limit > 0 && fileRoom(n) > limit-c.budget.temporary() {
		return noRoomFor(n)
	}
	if free, err := c.files.Free(); err == nil && free <= missing {
		return fmt.Errorf("%w for a blob of %d bytes that is sent whole: %w", ErrFull, n, unix.ENOSPC)
	}
	return nil
}

// noRoomFor is why the budget does not take a blob of n bytes.
func noRoomFor(n int64) error {
	return &fullError{fmt.Sprintf("the cache has no room for a blob of %d bytes that is sent whole", n)}
}

// MakeRoom counts n more bytes as used, for a file that somebody else is about
// to write below the directory, and removes what was used least recently if
// the budget needs it. It reports whether the bytes may be written; they
// should be within ten seconds.
func (c *directory) MakeRoom(n int64) bool {
	if n < 0 || n > maxTotal || c.saysReadOnly() {
		return false
	}
	n = fileRoom(n)
	if !c.budget.take(n, rule{indexes: true}) {
		return false
	}
	c.budget.lend(n)
	return true
}

// blocks rounds up to what n bytes take on disk.
func blocks(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// fileRoom is what n bytes of a file take at most, with a block for what the
// file system adds: the file's map, or its directory.
func fileRoom(n int64) int64 { return blocks(n) + blockSize }

// put stores n bytes of chunks by calling write, if budget and disk take them
// by the rule, and reports whether they did. write is called once more if the
// disk was full.
func (c *directory) put(n int64, r rule, write func() error) bool {
	if !c.mayKeep() {
		return false
	}
	stored, err := c.within(fileRoom(n), r, write)
	if err != nil {
		c.diskFailed(err)
	}
	return stored
}

// keepFile is writeFile, if budget and disk take it.
func (c *directory) keepFile(name string, data []byte) {
	if !c.mayWrite() {
		return
	}
	_, err := c.within(fileRoom(int64(len(data))), rule{indexes: true}, func() error { return writeFile(c.files, name, data) })
	if err != nil {
		c.diskFailed(err)
	}
}

// within writes what takes at most n bytes on disk, if the budget has room for
// it or can get it by the rule. On a full disk it makes some room and tries
// once more. It reports whether the write was done; the error is the disk's.
func (c *directory) within(n int64, r rule, write func() error) (bool, error) {
	if !c.budget.take(n, r) {
		return false, nil
	}
	defer c.budget.done(n)
	if c.unmarked.Load() && writeVersion(c.files) == nil {
		c.unmarked.Store(false)
	}
	err := write()
	if isFull(err) && c.budget.freeSome(r) {
		err = write()
	}
	return err == nil, err
}

// isFull reports whether err says that the disk, or the user's share of it, is
// full.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// A budget keeps what one Cache writes within its bounds: docs/cache-format.md,
// "The budget". It is safe for concurrent use.
type budget struct {
	c     *directory
	limit int64 // 0: none
	boot  [16]byte

	mu    sync.Mutex
	left  int64 // of the lease
	held  int64 // taken off it, and being written, or in files without a name
	temps int64 // of held, what is in files without a name
	alone int64 // in such files elsewhere, which no other process counts
	loans []loan
	full  time.Time // until then there is no room for those who come often
	group recordingGroup

	// refill is held while the lease is extended, which others wait for.
	refill sync.Mutex
	ledger ledger // guarded by refill
}

// A loan is room that somebody else may be filling.
type loan struct {
	n     int64
	until time.Time
}

func newBudget(c *directory, limit int64) *budget {
	b := &budget{c: c, limit: max(limit, 0), boot: bootID()}
	b.ledger = ledger{dir: c.files, wait: ledgerWait, lease: -1, temps: b.temporary}
	return b
}

// take takes n bytes off the lease, and extends it if need be. done must be
// called when they have been written.
func (b *budget) take(n int64, r rule) bool {
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
	if r.often && time.Now().Before(b.full) {
		b.mu.Unlock()
		return false
	}
	have := b.left
	b.left = 0
	b.held += have
	b.mu.Unlock()

	need := n - have
	grant, err := b.extend(need, r)
	if isFull(err) && b.freeSomeLocked(r) {
		grant, err = b.extend(need, r)
	}
	b.mu.Lock()
	if err == nil {
		b.held += need
		b.left += grant - need
	} else {
		b.held -= have
		b.left += have
		if r.often {
			b.full = time.Now().Add(fullTime)
		}
	}
	b.mu.Unlock()
	if err != nil && !errors.Is(err, errNoRoom) && !errors.Is(err, errBusy) {
		b.c.diskFailed(err)
	}
	return err == nil
}

func (b *budget) fromLease(n int64) bool {
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
func (b *budget) done(n int64) {
	if b.limit > 0 {
		b.mu.Lock()
		b.held -= n
		b.mu.Unlock()
	}
}

// lend says that n bytes that were taken will be on disk soon.
func (b *budget) lend(n int64) {
	if b.limit > 0 {
		b.mu.Lock()
		b.held -= n
		b.loans = append(b.loans, loan{n, time.Now().Add(loanTime)})
		b.mu.Unlock()
	}
}

// outstanding returns how much may still be written on account of what was
// leased.
func (b *budget) outstanding() int64 {
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
func (b *budget) extend(need int64, r rule) (int64, error) {
	if need > b.limit {
		return 0, errNoRoom
	}
	mine := b.outstanding()
	if err := b.ledger.lock(); err != nil {
		return 0, err
	}
	defer b.ledger.unlock()
	rec, err := b.ledger.read(b.boot)
	if err != nil {
		return 0, err
	}
	// What files without a name take is no room that waits to be written.
	waiting := rec.leases - rec.temps + mine - b.temporary()
	grant := max(need, min(maxBatch, b.limit/64, b.limit/8-waiting))
	if rec.known && rec.used+grant <= b.limit && rec.used-rec.walked <= b.limit/16 {
		return grant, b.ledger.write(b.boot, rec.used+grant, rec.walked, mine+grant)
	}
	inv, err := walk(b.c.files)
	if err != nil {
		return 0, err
	}
	used := inv.total + rec.leases + mine
	if used+grant > b.limit {
		slack := min(b.limit/20, maxSlack)
		e := eviction{inv: inv, blobsOf: b.c.blobsOf, rule: r, want: used + grant + slack - b.limit, must: used - b.limit}
		used -= e.run()
	}
	if used+grant > b.limit {
		grant = need
	}
	if used+grant > b.limit {
		b.c.warnOthers(inv.others, used+grant-b.limit)
		if err := b.ledger.write(b.boot, used, used, mine); err != nil {
			return 0, err
		}
		return 0, errNoRoom
	}
	return grant, b.ledger.write(b.boot, used+grant, used+grant, mine+grant)
}

// freeSome removes a part of what the directory holds, whatever the budget:
// the disk is full.
func (b *budget) freeSome(r rule) bool {
	b.refill.Lock()
	defer b.refill.Unlock()
	return b.freeSomeLocked(r)
}

func (b *budget) freeSomeLocked(r rule) bool {
	if b.ledger.lock() != nil {
		return false
	}
	defer b.ledger.unlock()
	inv, err := walk(b.c.files)
	if err != nil {
		return false
	}
	e := eviction{inv: inv, blobsOf: b.c.blobsOf, rule: r, want: min(inv.total/10, 64<<20)}
	return e.run() > 0
}

// close gives back what is left of the lease.
func (b *budget) close() {
	b.refill.Lock()
	defer b.refill.Unlock()
	defer b.ledger.close()
	b.ledger.wait = giveBackWait
	if b.ledger.lease < 0 || b.ledger.lock() != nil || b.ledger.lease < 0 {
		return
	}
	defer b.ledger.unlock()
	b.mu.Lock()
	left := b.left
	b.left = 0
	b.mu.Unlock()
	if rec, err := b.ledger.read(b.boot); err == nil && rec.known {
		// If it fails the next walk finds it.
		_ = b.ledger.write(b.boot, rec.used-left, rec.walked-left, b.outstanding())
	}
}

// recount makes the ledger say what is true after things were removed. The
// caller has refill and the lock of the ledger.
func (b *budget) recount() (inventory, error) {
	mine := b.outstanding()
	rec, err := b.ledger.read(b.boot)
	if err != nil {
		return inventory{}, err
	}
	inv, err := walk(b.c.files)
	if err != nil {
		return inventory{}, err
	}
	used := inv.total + rec.leases + mine
	return inv, b.ledger.write(b.boot, used, used, mine)
}

// locked calls do with the lock of the ledger held. It waits longer than a writer: the
// user has asked for it.
func (b *budget) locked(do func() error) error {
	b.refill.Lock()
	defer b.refill.Unlock()
	err := b.ledger.lock()
	for range 10 {
		if !errors.Is(err, errBusy) {
			break
		}
		err = b.ledger.lock()
	}
	if err != nil {
		return fmt.Errorf("cache directory %s: %w", b.c.path, err)
	}
	defer b.ledger.unlock()
	// This gives the file the size that it will have.
	if _, err := b.ledger.read(b.boot); err != nil {
		return err
	}
	return do()
}
