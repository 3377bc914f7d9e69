package blobs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Verification returns what is known of a blob.
func (c *Cache) Verification(d digest.Digest) meta.Verification { return c.meta.Mark(d).Verification }

// CheckChunks returns an error if a blob of size bytes cannot be read by these
// chunks: they do not fit it, or it is known that they are not its own, since all
// of them were right by their sums once, and the whole was not the blob.
func (c *Cache) CheckChunks(d digest.Digest, size int64, chunks Chunks) error {
	if _, err := chunks.layout(d, size); err != nil {
		return err
	}
	m, sums := c.meta.Mark(d), sha256.Sum256(chunks.Sums)
	if m.Verification == meta.VerifiedWrong && m.Table == hex.EncodeToString(sums[:]) {
		return fmt.Errorf("blob %s: all chunks were as they should be once, and the whole was not the blob", d)
	}
	return nil
}

// SetVerification notes how a blob was checked; it lowers nothing that is
// known already. That an index lied is forgotten only when the whole blob has
// been checked, for then there is another index. VerifiedNot and VerifiedWrong
// change nothing.
func (c *Cache) SetVerification(d digest.Digest, v meta.Verification) {
	if v <= meta.VerifiedNot || v > meta.VerifiedWhole || d.Validate() != nil {
		return
	}
	c.meta.SetMark(d, meta.Mark{Verification: v, When: time.Now()}, func(old meta.Mark) bool {
		return old.Verification < v && (old.Verification != meta.VerifiedWrong || v == meta.VerifiedWhole)
	})
	if v == meta.VerifiedWhole {
		for _, s := range c.statesOf(d) {
			s.whole.settled.Store(true)
		}
	}
}

// SetVerifiedWhole notes that a blob was read whole, had its digest, and has these
// chunks.
func (c *Cache) SetVerifiedWhole(d digest.Digest, chunks Chunks) {
	if d.Validate() != nil {
		return
	}
	sums := sha256.Sum256(chunks.Sums)
	m := meta.Mark{Verification: meta.VerifiedWhole, When: time.Now(), Table: hex.EncodeToString(sums[:])}
	c.meta.SetMark(d, m, m.BetterThan)
	for _, s := range c.statesOf(d) {
		if s.sums == sums {
			s.whole.settled.Store(true)
		}
	}
}

// Verification returns what is known of the blob that is read by these chunks: that
// the whole was checked says nothing of others.
func (b *Blob) Verification() meta.Verification {
	m := b.s.c.meta.Mark(b.s.digest)
	if m.Table != "" && m.Table != b.s.table() {
		return meta.VerifiedNot
	}
	return m.Verification
}

// statesOf returns the blobStates of a blob: one for each table of chunks.
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
