package layerindex

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// A chooser makes entries of a fuzzer's bytes.
type chooser struct{ samples.Chooser }

// FuzzIndexRoundTrip: the entries of an index file are those that it was made
// of; and a file that is cut, or in which anything is changed, gives an error
// or all of them, and never another entry.
func FuzzIndexRoundTrip(f *testing.F) {
	samples.SeedBytes(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{samples.Chooser{Data: data}}
		var entries []Entry
		end := int64(0)
		for range c.IntN(12) {
			e := c.entry(end)
			if e.Type == TypeReg {
				end = e.Off + e.storedSize()
			}
			entries = append(entries, e)
		}
		digests := c.IntN(2) == 0
		file := encoded(t, draftOf(t, entries, digests))
		got, err := decodedEntries(file)
		if err != nil {
			t.Fatalf("%v\nfor %+v", err, entries)
		}
		if !digests {
			for i := range entries {
				entries[i].Digest, entries[i].HasDigest = [32]byte{}, false
			}
		}
		compareEntries(t, got, entries)
		if len(got) != len(entries) {
			t.Errorf("%d entries, want %d", len(got), len(entries))
		}
		rng := rand.New(rand.NewChaCha8(sha256.Sum256(data)))
		for range 8 {
			bad := damaged(rng, file)
			if bytes.Equal(bad, file) {
				continue
			}
			some, err := decodedEntries(bad)
			// What holds no entries may be damaged without harm to them;
			// TestIndexDamage has that it is noticed.
			if err != nil && !errors.Is(err, ErrIndex) || err == nil && len(some) != len(entries) {
				t.Errorf("a damaged index: %d entries of %d, error %v, want %v", len(some), len(entries), err, ErrIndex)
			}
			compareEntries(t, some, entries)
		}
	})
}

// entry makes an entry whose content lies behind end.
func (c *chooser) entry(end int64) Entry {
	e := Entry{
		Name: c.Name(), Type: samples.Pick(&c.Chooser, TypeReg, TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo),
		Mode: uint32(c.Number() & 07777), UID: uint32(c.Number()), GID: uint32(c.Number()),
		ModSec: int64(c.Number()), ModNsec: uint32(c.Number() % 1e9),
	}
	for range c.IntN(3) {
		e.Xattrs = append(e.Xattrs, Xattr{c.Text(9), string([]byte{0, byte(c.IntN(256))}[c.IntN(3)%2:]) + c.Text(9)})
	}
	switch e.Type {
	case TypeLink, TypeSymlink:
		e.Linkname = c.Name()
	case TypeChar, TypeBlock:
		e.Major, e.Minor = uint32(c.Number()), uint32(c.Number())
	case TypeReg:
		e.Off = roundUp(end) + int64(c.IntN(4))*tarBlock
		e.Size = int64(c.Number() % 100_000)
		if c.IntN(3) == 0 {
			e.Sparse = c.extents(&e.Size)
		} else if e.Size == 0 {
			e.HasDigest, e.Digest = true, sha256.Sum256(nil) // which no index has to say
		} else if c.IntN(4) > 0 {
			e.HasDigest = true
			copy(e.Digest[:], c.Text(32))
		}
	}
	return e
}

// extents makes a sparse map, and the file as long as that needs.
func (c *chooser) extents(size *int64) []Extent {
	list, at := []Extent{}, int64(0)
	for range c.IntN(4) {
		x := Extent{Off: at + int64(c.Number()%(1<<40)) + 1, Size: 1 + int64(c.Number()%5000)}
		list, at = append(list, x), x.Off+x.Size
	}
	*size = max(*size, at)
	return list
}

// damaged cuts a file or changes some of its bytes.
func damaged(rng *rand.Rand, file []byte) []byte {
	at := rng.IntN(len(file))
	if rng.IntN(4) == 0 {
		return file[:at]
	}
	bad := bytes.Clone(file)
	for range 1 + rng.IntN(3) {
		bad[at%len(bad)] ^= byte(1 + rng.IntN(255))
		at += 1 + rng.IntN(64)
	}
	return bad
}

// decodedEntries are the entries of an index file, as far as they go.
func decodedEntries(file []byte) ([]Entry, error) {
	x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	seq, err := x.EntriesWithDigests()
	if err != nil {
		return nil, err
	}
	var list []Entry
	for e := range seq {
		own := *e
		own.Xattrs, own.Sparse = slices.Clone(e.Xattrs), slices.Clone(e.Sparse)
		list = append(list, own)
	}
	return list, nil
}

// compareEntries compares the entries that both lists have.
func compareEntries(t *testing.T, got, want []Entry) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("entry %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}
