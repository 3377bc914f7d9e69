package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/beneath"
)

// maxMark bounds the size of a mark: docs/cache-format.md, "Verification marks".
const maxMark = 256

// Verification says how the bytes of a blob were checked.
type Verification int

const (
	// VerifiedWrong: all of the blob was there, each chunk as the index has
	// it, and the whole had not the blob's digest: the index lied.
	VerifiedWrong Verification = iota - 1
	// VerifiedNot: nothing is known of the blob.
	VerifiedNot
	// VerifiedByPublisher: each chunk is checked against a foreign index,
	// which only its publisher vouches for.
	VerifiedByPublisher
	// VerifiedByChunk: each chunk is checked against an index that was made
	// from the whole blob, but not on this machine.
	VerifiedByChunk
	// VerifiedWhole: the digest of the whole blob was checked here.
	VerifiedWhole
)

var verificationNames = [...]string{"wrong", "not", "publisher", "chunk", "whole"}

// String returns "wrong", "not", "publisher", "chunk" or "whole".
func (v Verification) String() string { return verificationNames[v-VerifiedWrong] }

// MarshalText implements encoding.TextMarshaler.
func (v Verification) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A mark is what is known of a blob.
type mark struct {
	Verification
	when time.Time
	// table is the SHA-256 of the chunk sums that the check was about, in
	// hex; "" if it was about whatever index there is.
	table string
}

func (m mark) encode() []byte {
	text := m.String() + " " + m.when.UTC().Format(time.RFC3339)
	if m.table != "" {
		text += " " + m.table
	}
	return []byte(text + "\n")
}

// parseMark returns what a file says; false if it cannot be understood.
func parseMark(data []byte) (m mark, ok bool) {
	text, ended := strings.CutSuffix(string(data), "\n")
	fields := strings.Split(text, " ")
	if !ended || len(data) > maxMark || len(fields) < 2 || len(fields) > 3 {
		return mark{}, false
	}
	i := slices.Index(verificationNames[:], fields[0])
	m.Verification = VerifiedWrong + Verification(i)
	if i < 0 || m.Verification == VerifiedNot || m.Verification == VerifiedWrong && len(fields) == 2 {
		return mark{}, false
	}
	var err error
	if m.when, err = time.Parse(time.RFC3339, fields[1]); err != nil {
		return mark{}, false
	}
	if len(fields) == 3 {
		m.table = fields[2]
		if sum, err := hex.DecodeString(m.table); err != nil || len(sum) != sha256.Size {
			return mark{}, false
		}
	}
	return m, true
}

// mark returns what is known of a blob; VerifiedNot if there is no mark.
func (c *blobCache) mark(d digest.Digest) mark {
	if d.Validate() != nil {
		return mark{}
	}
	data, _, err := c.dir.Files().ReadFile(c.dir.name(verifiedDir, d), maxMark)
	if err != nil {
		return mark{}
	}
	m, _ := parseMark(data)
	return m
}

// Verification returns what is known of a blob.
func (c *blobCache) Verification(d digest.Digest) Verification { return c.mark(d).Verification }

// CheckChunks returns an error if a blob of size bytes cannot be read by these
// chunks: they do not fit it, or it is known that they are not its own, since all
// of them were right by their sums once, and the whole was not the blob.
func (c *blobCache) CheckChunks(d digest.Digest, size int64, chunks Chunks) error {
	if _, err := chunks.layout(d, size); err != nil {
		return err
	}
	m, sums := c.mark(d), sha256.Sum256(chunks.Sums)
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
	c.setMark(d, mark{Verification: v, when: time.Now()}, func(old mark) bool {
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
	c.setMark(d, m, m.betterThan)
	for _, s := range c.statesOf(d) {
		if s.sums == sums {
			s.whole.settled.Store(true)
		}
	}
}

// betterThan reports whether a mark of the whole blob says more than an old one.
func (m mark) betterThan(old mark) bool {
	return old.Verification != VerifiedWhole || old.table != m.table
}

// Verification returns what is known of the blob that is read by these chunks: that
// the whole was checked says nothing of others.
func (b *Blob) Verification() Verification {
	m := b.s.c.mark(b.s.digest)
	if m.table != "" && m.table != b.s.table() {
		return VerifiedNot
	}
	return m.Verification
}

// setMark writes a mark in place of an old one that may be replaced. Nobody
// else does so meanwhile.
func (c *blobCache) setMark(d digest.Digest, m mark, mayReplace func(old mark) bool) {
	if !mayReplace(c.mark(d)) || !c.dir.mayWrite() {
		return
	}
	name := c.dir.name(verifiedDir, d)
	// The first mark makes two directories.
	_, err := c.dir.within(fileRoom(maxMark)+2*blockSize, rule{}, func() error {
		unlock, err := lockDir(c.dir.Files(), path.Dir(name))
		if err != nil {
			return err
		}
		defer unlock()
		if !mayReplace(c.mark(d)) {
			return nil
		}
		return writeFile(c.dir.Files(), name, m.encode())
	})
	if err != nil {
		c.dir.diskFailed(err)
	}
}

// lockDir takes an exclusive lock on a directory, which it makes if need be.
// Where there are no locks the last one to write a mark wins.
func lockDir(d *beneath.Dir, name string) (unlock func(), err error) {
	dir, err := d.OpenDir(name, true)
	if err != nil {
		return nil, err
	}
	if err := lockSoon(dir); err != nil && !noLocks(err) {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
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

// rightMark reports whether a file is a mark.
func rightMark(_ string, data []byte) bool {
	_, right := parseMark(data)
	return right
}
