package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// maxClaimPause is how late one may notice that a claim was given back.
const maxClaimPause = 100 * time.Millisecond

// Claim waits until no other process or goroutine holds the claim to a blob,
// and takes it: who is about to read a blob whole for the first time claims
// it, and then looks whether that has been done meanwhile. release gives it
// back, and may be called more than once; a process that ends loses its
// claims. Where the disk fails there are no claims, and Claim returns at once.
// The error is ctx.Err(), or says that d is no digest; then release is nil.
func (c *Dir) Claim(ctx context.Context, d digest.Digest) (release func(), err error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	if c.readOnly != nil {
		return func() {}, nil
	}
	name := c.Name(Claims, d)
	for pause := time.Millisecond; ; pause = min(2*pause, maxClaimPause) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := tryClaim(c.files, name)
		switch {
		case err == nil:
			return sync.OnceFunc(func() {
				// Before the lock is given back: nobody else removes it.
				_ = c.files.Remove(name)
				f.Close()
			}), nil
		case errors.Is(err, ErrReplaced):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return func() {}, nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// ErrReplaced: the file was removed while it was being locked.
var ErrReplaced = errors.New("file was replaced")

// tryClaim makes and locks the file of a claim.
func tryClaim(d *beneath.Dir, name string) (*os.File, error) {
	f, err := openOver(d, name, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	err = Flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && !d.Is(f, name) {
		err = ErrReplaced
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
