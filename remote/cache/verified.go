package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// Verification returns what is known of a blob.
func (c *blobCache) Verification(d digest.Digest) Verification { return c.meta.mark(d).Verification }

// CheckChunks returns an error if a blob of size bytes cannot be read by these
// chunks: they do not fit it, or it is known that they are not its own, since all
// of them were right by their sums once, and the whole was not the blob.
func (c *blobCache) CheckChunks(d digest.Digest, size int64, chunks Chunks) error {
	if _, err := chunks.layout(d, size); err != nil {
		return err
	}
	m, sums := c.meta.mark(d), sha256.Sum256(chunks.Sums)
	if m.Verification == VerifiedWrong && m.table == hex.EncodeToString(sums[:]) {
		return fmt.Errorf("blob %s: all chunks were as they should be once, and the whole was not the blob", d)
	}
	return nil
}

// SetVerification notes how a blob was checked; it lowers nothing that is
// known already. That an index lied is forgotten only when the whole blob has
// been checked, for then there is another index. VerifiedNot and VerifiedWrong
// change nothing.
func (c *blobCache) SetVerification(d digest.Digest, v Verification) {
	if v <= VerifiedNot || v > VerifiedWhole || d.Validate() != nil {
		return
	}
	c.meta.setMark(d, mark{Verification: v, when: time.Now()}, func(old mark) bool {
		return old.Verification < v && (old.Verification != VerifiedWrong || v == VerifiedWhole)
	})
	if v == VerifiedWhole {
		for _, s := range c.statesOf(d) {
			s.whole.settled.Store(true)
		}
	}
}

// SetVerifiedWhole notes that a blob was read whole, had its digest, and has these
// chunks.
func (c *blobCache) SetVerifiedWhole(d digest.Digest, chunks Chunks) {
	if d.Validate() != nil {
		return
	}
	sums := sha256.Sum256(chunks.Sums)
	m := mark{VerifiedWhole, time.Now(), hex.EncodeToString(sums[:])}
	c.meta.setMark(d, m, m.betterThan)
	for _, s := range c.statesOf(d) {
		if s.sums == sums {
			s.whole.settled.Store(true)
		}
	}
}

// Verification returns what is known of the blob that is read by these chunks: that
// the whole was checked says nothing of others.
func (b *Blob) Verification() Verification {
	m := b.s.c.meta.mark(b.s.digest)
	if m.table != "" && m.table != b.s.table() {
		return VerifiedNot
	}
	return m.Verification
}

// statesOf returns the blobStates of a blob: one for each table of chunks.
func (c *blobCache) statesOf(d digest.Digest) []*blobState {
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
