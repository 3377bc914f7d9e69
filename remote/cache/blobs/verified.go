package blobs

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Verification returns what is known of a blob, by whatever index made here.
func (c *Cache) Verification(d digest.Digest) meta.Verification {
	return c.meta.Mark(d, "").Verification
}

// CheckCuts returns an error if a blob of size bytes cannot be read by these
// cuts: they do not fit it, or it is known that they are not its own, since all
// of them were right once, and the whole was not the blob.
func (c *Cache) CheckCuts(d digest.Digest, size int64, cuts Cuts) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("blob %q: %w", d, err)
	}
	if _, err := cut(d, size, cuts); err != nil {
		return err
	}
	if m := c.meta.Mark(d, Key(cuts)); m.Verification == meta.VerifiedWrong && m.Table == tableOf(cuts) {
		return fmt.Errorf("blob %s: all chunks were as they should be once, and the whole was not the blob", d)
	}
	return nil
}

// tableOf returns what marks call cuts.
func tableOf(cuts Cuts) string {
	sum := cuts.Sum()
	return hex.EncodeToString(sum[:])
}

// SetVerification notes how a blob was checked; it lowers nothing that is
// known already. That an index lied is forgotten only when the whole blob has
// been checked, for then there is another index. VerifiedNot and VerifiedWrong
// change nothing.
func (c *Cache) SetVerification(d digest.Digest, v meta.Verification) {
	if v <= meta.VerifiedNot || v > meta.VerifiedWhole || d.Validate() != nil {
		return
	}
	c.meta.SetMark(d, "", meta.Mark{Verification: v, When: time.Now()}, func(old meta.Mark) bool { return raises(old, v) })
	if v == meta.VerifiedWhole {
		for _, s := range c.statesOf(d) {
			s.whole.settled.Store(true)
		}
	}
}

// raises reports whether v says more than an old mark.
func raises(old meta.Mark, v meta.Verification) bool {
	return old.Verification < v && (old.Verification != meta.VerifiedWrong || v == meta.VerifiedWhole)
}

// SetVerification is SetVerification of Cache for what is read by these cuts alone, if
// they are not chunks of one size.
func (b *Blob) SetVerification(v meta.Verification) {
	s := b.s
	if s.Table == nil {
		s.c.SetVerification(s.digest, v)
		return
	}
	if v <= meta.VerifiedNot || v > meta.VerifiedWhole {
		return
	}
	s.c.meta.SetMark(s.digest, s.key, meta.Mark{Verification: v, When: time.Now(), Table: s.table()}, func(old meta.Mark) bool {
		return old.Table != s.table() || raises(old, v)
	})
}

// SetVerifiedWhole notes that a blob was read whole, had its digest, and is cut by
// these cuts.
func (c *Cache) SetVerifiedWhole(d digest.Digest, cuts Cuts) {
	if d.Validate() != nil {
		return
	}
	sum := cuts.Sum()
	m := meta.Mark{Verification: meta.VerifiedWhole, When: time.Now(), Table: tableOf(cuts)}
	c.meta.SetMark(d, Key(cuts), m, m.BetterThan)
	for _, s := range c.statesOf(d) {
		if s.sum == sum {
			s.whole.settled.Store(true)
		}
	}
}

// Verification returns what is known of the blob that is read by these cuts: that
// the whole was checked says nothing of others.
func (b *Blob) Verification() meta.Verification {
	m := b.s.c.meta.Mark(b.s.digest, b.s.key)
	if m.Table != "" && m.Table != b.s.table() {
		return meta.VerifiedNot
	}
	return m.Verification
}

// statesOf returns the blobStates of a blob: one or two for each way to cut it.
func (c *Cache) statesOf(d digest.Digest) []*blobState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var stores []*blobState
	for _, s := range c.states {
		if s.digest == d {
			stores = append(stores, s)
		}
	}
	return stores
}
