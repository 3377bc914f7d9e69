package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
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

// A Mark is what is known of a blob.
type Mark struct {
	Verification
	When time.Time
	// Table is the SHA-256 of the chunk sums, or the sum of the cuts, that the check
	// was about, in hex; "" if it was about whatever index there is.
	Table string
}

func (m Mark) encode() []byte {
	text := m.String() + " " + m.When.UTC().Format(time.RFC3339)
	if m.Table != "" {
		text += " " + m.Table
	}
	return []byte(text + "\n")
}

// parseMark returns what a file says; false if it cannot be understood.
func parseMark(data []byte) (m Mark, ok bool) {
	text, ended := strings.CutSuffix(string(data), "\n")
	fields := strings.Split(text, " ")
	if !ended || len(data) > maxMark || len(fields) < 2 || len(fields) > 3 {
		return Mark{}, false
	}
	i := slices.Index(verificationNames[:], fields[0])
	m.Verification = VerifiedWrong + Verification(i)
	if i < 0 || m.Verification == VerifiedNot || m.Verification == VerifiedWrong && len(fields) == 2 {
		return Mark{}, false
	}
	var err error
	if m.When, err = time.Parse(time.RFC3339, fields[1]); err != nil {
		return Mark{}, false
	}
	if len(fields) == 3 {
		m.Table = fields[2]
		if sum, err := hex.DecodeString(m.Table); err != nil || len(sum) != sha256.Size {
			return Mark{}, false
		}
	}
	return m, true
}

// Mark returns what is known of a blob; VerifiedNot if there is no mark. key is "", or
// that of the cuts which the blob is read by, which have a mark of their own.
func (c *Cache) Mark(d digest.Digest, key string) Mark {
	if d.Validate() != nil {
		return Mark{}
	}
	data, _, err := c.dir.Files().ReadFile(c.dir.KeyName(directory.Verified, d, key), maxMark)
	if err != nil {
		return Mark{}
	}
	m, _ := parseMark(data)
	return m
}

// BetterThan reports whether a mark of the whole blob says more than an old one.
func (m Mark) BetterThan(old Mark) bool {
	return old.Verification != VerifiedWhole || old.Table != m.Table
}

// SetMark writes a mark in place of an old one that may be replaced. Nobody
// else does so meanwhile. key is as for Mark.
func (c *Cache) SetMark(d digest.Digest, key string, m Mark, mayReplace func(old Mark) bool) {
	if !mayReplace(c.Mark(d, key)) || !c.dir.MayWrite() {
		return
	}
	name := c.dir.KeyName(directory.Verified, d, key)
	// The first mark makes two directories.
	_, err := c.dir.Within(directory.FileRoom(maxMark)+2*blobfile.BlockSize, directory.Rule{}, func() error {
		unlock, err := lockDir(c.dir.Files(), path.Dir(name))
		if err != nil {
			return err
		}
		defer unlock()
		if !mayReplace(c.Mark(d, key)) {
			return nil
		}
		return directory.WriteFile(c.dir.Files(), name, m.encode())
	})
	if err != nil {
		c.dir.DiskFailed(err)
	}
}

// lockDir takes an exclusive lock on a directory, which it makes if need be.
// Where there are no locks the last one to write a mark wins.
func lockDir(d *beneath.Dir, name string) (unlock func(), err error) {
	dir, err := d.OpenDir(name, true)
	if err != nil {
		return nil, err
	}
	if err := directory.LockSoon(dir); err != nil && !directory.NoLocks(err) {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}

// rightMark reports whether a file is a mark.
func rightMark(_ string, data []byte) bool {
	_, right := parseMark(data)
	return right
}
