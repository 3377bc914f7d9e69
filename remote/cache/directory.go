package cache

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// ErrFull says that the disk, or the budget, does not take what should be stored.
// It comes wrapped.
var ErrFull = directory.ErrFull

// IsFull reports whether err says that a disk, or the user's share of it, is full.
func IsFull(err error) bool { return directory.IsFull(err) }

// DefaultBudget is for Options.Budget where the user says nothing: 10 GiB, or a
// tenth of what the disk has free besides what the directory takes already, if
// that is less.
const DefaultBudget = directory.DefaultBudget

// A DirError says why a directory is not used as a cache.
type DirError = directory.DirError

// A TempFile is a temporary file without a name, made by NewTempFile.
type TempFile = directory.TempFile

// TempOptions are the settings of NewTempFile.
type TempOptions = directory.TempOptions

// A Log is the log that programs keep in the directory.
type Log = directory.Log

// PruneOptions says what Prune removes.
type PruneOptions = directory.PruneOptions

// A PruneResult is what Prune did.
type PruneResult = directory.PruneResult

// An Other is something in the directory that imgfs does not make, or cannot
// get at.
type Other = directory.Other

// Dir returns the absolute path of the cache directory.
func (c *Cache) Dir() string { return c.dir.Path() }

// ReadOnly returns why nothing is written to the directory: nil if it is.
func (c *Cache) ReadOnly() error { return c.dir.ReadOnly() }

// Indexes returns where the layer indexes lie, which package indexes reads and
// writes. Here they are counted and removed.
func (c *Cache) Indexes() *beneath.Dir { return c.dir.Indexes() }

// Budget returns how many bytes the directory may take, 0 for any.
func (c *Cache) Budget() int64 { return c.dir.Budget() }

// MakeRoom counts n more bytes as used, for a file that somebody else is about
// to write below the directory, and removes what was used least recently if
// the budget needs it. It reports whether the bytes may be written; they
// should be within ten seconds.
func (c *Cache) MakeRoom(n int64) bool { return c.dir.MakeRoom(n) }

// WarnDisk warns that the disk did not take what somebody else writes below the
// directory, or the budget had no room for it, unless the same has been said
// already.
func (c *Cache) WarnDisk(err error) { c.dir.WarnDisk(err) }

// NewTempFile makes a temporary file in the directory; nil options mean the
// defaults. The file takes room as it grows, and removes for it what was last
// used before it was made. Where the directory cannot be written the file is in
// $TMPDIR, by default /var/tmp, and counts for this Cache alone. The error wraps
// ErrFull if budget or disk cannot take the file, fs.ErrClosed after Close; else
// it is the disk's.
func (c *Cache) NewTempFile(opts *TempOptions) (*TempFile, error) { return c.dir.NewTempFile(opts) }

// AdoptTemp has a temporary file count in the budget that another process has made by
// NewTempFile, and that has its whole length. It takes over f, also on an error. The error
// wraps fs.ErrExist if the file has a name, and ErrFull, and the file does not count, if
// there is no room but that of what was used within the last hour.
func (c *Cache) AdoptTemp(f *os.File) (*TempFile, error) { return c.dir.Adopt(f) }

// Claim waits until no other process or goroutine holds the claim to a blob,
// and takes it: a program that is about to read a blob whole for the first time
// claims the blob, and then looks whether that has been done meanwhile. release
// gives the claim back, and may be called more than once; a process that ends
// loses its claims. Where the disk fails there are no claims, and Claim returns
// at once. The error is ctx.Err(), or says that d is no digest; then release is
// nil.
func (c *Cache) Claim(ctx context.Context, d digest.Digest) (release func(), err error) {
	return c.dir.Claim(ctx, d)
}

// OpenLog opens the log that programs keep in the directory. The log and the one
// that was put aside before have at most limit bytes together.
func (c *Cache) OpenLog(limit int64) (*Log, error) { return c.dir.OpenLog(limit) }

// Prune removes content from the directory. Mounts that use it go on, and
// fetch what they need again. What could not be removed stays, without an
// error: see PruneResult.After. The error is that of a directory that cannot
// be read, or that another process keeps to itself.
func (c *Cache) Prune(opts PruneOptions) (PruneResult, error) { return c.dir.Prune(opts) }

// Usage returns how many bytes everything below the directory takes on disk,
// as du counts.
func (c *Cache) Usage() (int64, error) { return c.dir.Usage() }

// Others returns what lies in the directory and is none of the cache's, or
// cannot be got at: it counts for Usage, and is left alone.
func (c *Cache) Others() ([]Other, error) { return c.dir.Others() }

// Temporary returns how many bytes files without a name take that running
// processes have in the directory, which Usage does not see: as far as their
// leases say it, which is give or take 4 MiB a process, and nothing of processes
// without a budget.
func (c *Cache) Temporary() int64 { return c.dir.Temporary() }
