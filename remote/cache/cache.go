package cache

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/files"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Options configures a Cache. Nil and the zero value mean the defaults.
type Options struct {
	// MaxRequest bounds the bytes asked of a source at once, where
	// neighbouring chunks are missing; one chunk is always allowed. The
	// default is 4 MiB.
	MaxRequest int64
	// Budget bounds the bytes that everything below the directory takes on
	// disk, as du counts them, by what this Cache writes. What does not fit
	// is not stored. Zero means no bound, DefaultBudget the one that suits the
	// disk.
	Budget int64
	// Any has a directory that cannot be used as a cache count as one whose disk takes
	// nothing, for as long as that is so: Open does not fail then.
	Any bool
	// Warnf gets one sentence when the disk first fails to take or give
	// bytes. The default drops it. It may be called by any goroutine.
	Warnf func(format string, args ...any)
}

// A Cache is an open cache directory. It is safe for concurrent use, and so is
// the directory for any number of Caches in any number of processes.
type Cache struct {
	// Blobs are the chunks of blobs, Files the kept files, Meta the manifests,
	// configs, references, notes of images and verification marks.
	Blobs *blobs.Cache
	Files *files.Cache
	Meta  *meta.Cache

	dir *directory.Dir
}

// Open opens the cache directory dir and creates it, readable by its owner
// alone, if there is none. It removes what killed processes left unfinished.
// From then on the directory is the one that was opened, whatever becomes of its
// path.
//
// A directory is a cache if it is new or empty, or has the version file of one,
// and belongs to this user, and nobody else may write it or a part of it. It
// fails with a *DirError of any other, of one that is none or cannot be made,
// and of one of a newer format. A cache that this user may only read, their own
// or root's, is used as it is: see ReadOnly. A disk that is full is no failure: it
// costs speed, and a warning.
func Open(dir string, opts *Options) (*Cache, error) {
	if opts == nil {
		opts = &Options{}
	}
	d, err := directory.Open(dir, directory.Options{Budget: opts.Budget, Warnf: opts.Warnf, Any: opts.Any, BlobsOf: meta.BlobsOf})
	if err != nil {
		return nil, err
	}
	m := meta.New(d)
	return &Cache{Blobs: blobs.New(d, m, opts.MaxRequest), Files: files.New(d), Meta: m, dir: d}, nil
}

// DefaultDir returns the user's cache directory for imgfs, the first that there is of:
// XDG_CACHE_HOME/imgfs, the first of CACHE_DIRECTORY, which systemd gives to a unit,
// .cache/imgfs in HOME or, without HOME, in the home directory that the machine knows, and
// for root /var/cache/imgfs. Paths that are not absolute do not count.
func DefaultDir() (string, error) {
	if base := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "imgfs"), nil
	}
	if dir, _, _ := strings.Cut(os.Getenv("CACHE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if u, unknown := user.LookupId(strconv.Itoa(os.Geteuid())); err != nil && unknown == nil && filepath.IsAbs(u.HomeDir) {
		home, err = u.HomeDir, nil
	}
	switch {
	case err == nil:
		return filepath.Join(home, ".cache", "imgfs"), nil
	case os.Geteuid() == 0:
		return "/var/cache/imgfs", nil
	}
	return "", fmt.Errorf("no cache directory: %w", err)
}

// Close ends all fetches and all that goes on with kept files, waits for them and
// closes the files, but not those of open kept files. Reads of the cache's blobs
// fail from then on with an error that wraps fs.ErrClosed.
func (c *Cache) Close() error {
	c.dir.Shut()
	c.Blobs.Shut()
	c.dir.Wait()
	c.Blobs.CloseFiles()
	return c.dir.Close()
}

// Stats are the counters of one Cache since it was opened.
type Stats struct {
	// Requests counts reads of blobs at the source for chunks, Fetched the
	// bytes that came for them, whether or not they were asked for, right, or
	// kept.
	Requests, Fetched int64
	// Recorded counts the bytes that came for recordings, whether or not they
	// were right, or kept.
	Recorded int64
	// HitBytes counts the bytes handed to readers that came from disk.
	HitBytes int64
	// ContentsStored counts the kept files that Store has put on disk,
	// ContentBytes their bytes.
	ContentsStored, ContentBytes int64
	// BadFetched counts chunks from the source, and BadStored chunks, kept files,
	// manifests and configs from disk, that had not the digest they should have.
	BadFetched, BadStored int64
	// Temporary is how many bytes are in temporary files now: those of
	// NewTempFile, recordings, and kept files that are being stored.
	Temporary int64
	// MetaRequests counts what the source was asked to resolve and to
	// fetch, MetaFetched the bytes that came for that.
	MetaRequests, MetaFetched int64
}

// Stats returns the counters as they are now.
func (c *Cache) Stats() Stats {
	b, f, m := c.Blobs.Counts(), c.Files.Counts(), c.Meta.Counts()
	return Stats{
		Requests:       b.Requests,
		Fetched:        b.Fetched,
		Recorded:       b.Recorded,
		HitBytes:       b.HitBytes,
		ContentsStored: f.Stored,
		ContentBytes:   f.Bytes,
		BadFetched:     b.BadFetched,
		BadStored:      c.dir.BadStored(),
		Temporary:      c.dir.TemporaryBytes(),
		MetaRequests:   m.Requests,
		MetaFetched:    m.Fetched,
	}
}
