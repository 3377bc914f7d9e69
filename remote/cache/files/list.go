package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A Held is a kept file that lies in the directory, not checked in any
// way.
type Held struct {
	Digest digest.Digest
	Size   int64
	Disk   int64     // bytes that it takes on disk
	Used   time.Time // last, to about ten minutes
}

// List returns the kept files in the directory, in the order of their
// digests.
func (c *Cache) List() ([]Held, error) {
	inv, err := c.dir.Below(directory.Kept)
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	var all []Held
	for _, f := range inv.Files {
		if d, ok := directory.DigestOf(f.Name); ok && f.Kind == directory.KindKept && d.Algorithm() == digest.SHA256 {
			all = append(all, Held{Digest: d, Size: f.Size, Disk: f.Bytes, Used: f.Mtime})
		}
	}
	slices.SortFunc(all, func(a, b Held) int { return cmp.Compare(a.Digest, b.Digest) })
	return all, nil
}

// A Check is the result of Verify.
type Check struct {
	Bytes int64         // that there were
	Got   digest.Digest // the digest that they have; "" if they could not be read
	Bad   bool          // the kept file was wrong, and has been removed
}

// Verify reads a kept file that is on disk and checks it, whether or not
// that was done before; one that is wrong, or cannot be read, is removed. Who
// has it open goes on to read it. ok is false if there is none.
//
// Others may use the directory meanwhile. The error is ctx.Err(), that d is no
// SHA-256, that the Cache is closed, or that the disk fails.
func (c *Cache) Verify(ctx context.Context, d digest.Digest) (check Check, ok bool, err error) {
	if err := c.enter(d); err != nil {
		return check, false, err
	}
	defer c.dir.End()
	x, _, err := c.lock(d)
	if errors.Is(err, fs.ErrNotExist) {
		return check, false, nil
	}
	if err != nil {
		return check, false, fileError(d, err)
	}
	defer x.Close()
	check.Bytes = x.size
	got, err := c.known.digest(ctx, x, nil)
	if err := c.dir.Interrupted(ctx); err != nil {
		return check, false, fileError(d, err)
	}
	if err == nil {
		check.Got = got
	}
	if check.Bad = check.Got != d; !check.Bad {
		return check, true, nil
	}
	return check, true, c.drop(x)
}

// Any reports whether the directory has any kept files at all.
func (c *Cache) Any() bool {
	f, err := c.dir.Files().OpenDir(path.Join(directory.Kept, string(digest.SHA256)), false)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) > 0
}
