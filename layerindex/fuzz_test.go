package layerindex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// FuzzIndexFile changes bytes of an index file and puts its checksums right
// again. Whatever it says then, reading it ends, with no other error than one
// about the index or the layer.
func FuzzIndexFile(f *testing.F) {
	tarBytes := samples.Tar(f, 60_000)
	var files, blobs [][]byte
	for _, c := range samples.Codecs {
		blob := c.Wrap(f, bytes.Clone(tarBytes))
		blobs = append(blobs, blob)
		files = append(files, encoded(f, mustBuild(f, blob, tarBytes, &buildOptions{SpanSize: 8, ChunkSize: 4096})))
	}
	kinds := kindsOfIndexes(f)
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		// There is no such layer: whatever is decoded fails.
		blobs = append(blobs, make([]byte, kinds[name].BlobSize()))
		files = append(files, encoded(f, kinds[name]))
		f.Add(uint8(len(files)-1), []byte{96, 0, 0, 1, 112, 0, 1, 3})
		f.Add(uint8(len(files)-1), []byte{17, 0, 0, 0x10, 124, 0, 0, 1})
	}
	f.Add(uint8(1), []byte{0, 0, 0, 1})
	f.Add(uint8(1), []byte{96, 0, 0, 0xff, 112, 0, 1, 3})
	f.Add(uint8(5), []byte{144, 0, 4, 7, 16, 0, 0, 1})
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		i := int(which) % len(files)
		b := bytes.Clone(files[i])
		// Two bytes of each change say where, one how to get on from there.
		for ; len(changes) >= 4; changes = changes[4:] {
			at := int(binary.LittleEndian.Uint16(changes)) % len(b)
			b[(at+int(changes[2]))%len(b)] ^= changes[3]
		}
		fixSums(b)
		x, err := ReadIndex(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = readEverything(b)
		}
		if err != nil && !errors.Is(err, ErrIndex) && !errors.Is(err, ErrEntries) {
			t.Fatalf("%v, want %v", err, ErrIndex)
		}
		if x == nil || x.Size() > 1<<20 {
			return // more than there is room for
		}
		if x.BlobSize() > int64(len(blobs[i])) {
			return // of another blob
		}
		r := ReaderForTest(x, blobs[i])
		defer r.Close()
		p := make([]byte, 3000)
		for off := int64(0); off < x.Size(); off += x.Size()/8 + 1 {
			_, err := r.ReadAt(context.Background(), p, off)
			var at *codec.Error
			if err != nil && err != io.EOF && !errors.Is(err, ErrIndex) && !errors.As(err, &at) && !harmlessError(err) {
				t.Fatalf("ReadAt(%d): %T %v", off, err, err)
			}
		}
	})
}

// harmlessError is for errors that name no value of ours: of a checkpoint that
// cannot be one.
func harmlessError(err error) bool {
	return bytes.Contains([]byte(err.Error()), []byte("checkpoint"))
}

// fixSums computes the checksums of an index file anew, as far as its table
// can be followed.
func fixSums(b []byte) {
	le := binary.LittleEndian
	n := min(int(le.Uint32(b[120:])), indexfile.MaxSections)
	if len(b) < indexfile.HeaderLen(n) {
		return
	}
	fixPieces(b, n)
	fixTable(b)
}

// fixTable computes the checksums of sections and of the header anew.
func fixTable(b []byte) {
	le := binary.LittleEndian
	n := min(int(le.Uint32(b[120:])), indexfile.MaxSections)
	for i := range n {
		row := b[indexfile.FixedLen+i*indexfile.RowLen:]
		off, size := le.Uint64(row[8:]), le.Uint64(row[16:])
		if off <= uint64(len(b)) && size <= uint64(len(b))-off {
			sum := sha256.Sum256(b[off : off+size])
			copy(row[32:], sum[:])
		}
	}
	body := b[:indexfile.HeaderLen(n)-sha256.Size]
	sum := sha256.Sum256(body)
	copy(b[len(body):], sum[:])
}

// fixPieces computes the sums of a file's pieces anew, if it begins with such.
func fixPieces(b []byte, sections int) {
	h := indexfile.Decode(b, sections)
	if sections == 0 || h.Sections[0].Kind != indexfile.PieceSums {
		return
	}
	off := int64(indexfile.HeaderLen(sections))
	end := off + h.Sections[0].Stored
	if end < off || end > int64(len(b)) {
		return
	}
	sums := b[off:end]
	for rest := b[end:]; len(rest) > 0 && len(sums) >= sha256.Size; sums = sums[sha256.Size:] {
		n := min(len(rest), indexfile.PieceSize)
		sum := sha256.Sum256(rest[:n])
		copy(sums, sum[:])
		rest = rest[n:]
	}
}
