package files

import (
	"context"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// The kernel reads kept files by itself where it can. There it compares nothing
// with anything, except in files with fs-verity, which some file systems have:
// they keep a tree of sums behind the file, and a block that has not its own
// cannot be read. Such a file cannot be written by anybody.

// verityBlock is what has a sum. 128 of those fill a block, which has one again.
const verityBlock = 4096

// protect makes a kept file that has been written one that stays as it is,
// as far as the file system goes. That it has no means is no error.
func (c *Cache) protect(ctx context.Context, x *Kept) error {
	on := false
	if x.size > 0 && takesVerity(x.f) {
		err := c.put(verityRoom(x.size), func() error {
			on = enableVerity(x.f) == nil
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := x.f.Chmod(fileMode); err != nil || !on {
		return err
	}
	// What the kernel compares with are the bytes that it found there.
	got, err := c.known.digest(ctx, x, nil)
	if err == nil && got != x.digest {
		err = remote.ErrDigest
	}
	return err
}

// verityRoom returns how much the sums of a file of size bytes take on disk.
func verityRoom(size int64) int64 {
	room := int64(2 * blobfile.BlockSize) // what describes it, and where that lies
	for n := size; n > verityBlock; {
		n = (n + verityBlock - 1) / verityBlock * 32
		room += directory.Blocks(n)
	}
	return room
}
