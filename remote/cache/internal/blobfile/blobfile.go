// Package blobfile is the layout of a blob file: docs/cache-format.md, "Blob files".
// It locks nothing and believes nothing.
package blobfile

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// docs/cache-format.md, "Blob files".
const (
	footerMagic   = "imgfsblb"
	footerVersion = 1 // of a file in chunks of one size
	tableVersion  = 2 // of one with a table
	FooterSize    = 64
	EpochOff      = 24 // in the footer
	sumOff        = 32
	SumSize       = 32
	WordSize      = 4
	BlockSize     = 4096

	MaxChunk = 16 << 20
)

// A Layout says where the parts of a blob file lie, and how the blob is cut: into
// chunks of one size, or into the cuts of a table, which are called chunks here, too.
type Layout struct {
	Size  int64  // of the blob
	Chunk int64  // the length of all chunks but the last; 0 if there is a table
	Table *Table // nil if the chunks are of one size
}

// Valid reports whether a file can have the layout.
func (l Layout) Valid() bool {
	// The bound on size leaves room for what stands behind the data.
	if l.Size < 0 || l.Size >= 1<<60 {
		return false
	}
	if l.Table != nil {
		return l.Chunk == 0
	}
	return l.Chunk > 0 && l.Chunk <= MaxChunk && l.Chunk%BlockSize == 0
}

// Equal reports whether two layouts are the same.
func (l Layout) Equal(o Layout) bool {
	return l.Size == o.Size && l.Chunk == o.Chunk && l.Table.equal(o.Table)
}

// Chunks returns the number of chunks.
func (l Layout) Chunks() int64 {
	if l.Table != nil {
		return int64(len(l.Table.cuts))
	}
	return (l.Size + l.Chunk - 1) / l.Chunk
}

// Bounds returns where chunk k begins and ends in the blob.
func (l Layout) Bounds(k int64) (off, end int64) {
	if l.Table != nil {
		c := l.Table.cuts[k]
		return c.off, c.end
	}
	return k * l.Chunk, min((k+1)*l.Chunk, l.Size)
}

// Begin returns where chunk k begins; behind the last chunk the blob ends.
func (l Layout) Begin(k int64) int64 {
	if k >= l.Chunks() {
		return l.Size
	}
	off, _ := l.Bounds(k)
	return off
}

// Longest returns the length of the longest chunk.
func (l Layout) Longest() int64 {
	if l.Table != nil {
		return l.Table.longest
	}
	return min(l.Chunk, l.Size)
}

// Span returns the chunks that a read of the bytes from off to end needs, of which
// there must be some and all must lie in the blob. Of two chunks that share the first
// or the last of them it is only one, if the other has nothing else of them. Bytes that
// lie in a gap need none.
func (l Layout) Span(off, end int64) (first, stop int64) {
	if l.Table != nil {
		return l.Table.span(off, end)
	}
	return off / l.Chunk, (end-1)/l.Chunk + 1
}

// Gap returns how many bytes there are that no chunk has between chunk k and the one
// before it.
func (l Layout) Gap(k int64) int64 {
	if l.Table == nil || k == 0 {
		return 0
	}
	return max(0, l.Table.cuts[k].off-l.Table.cuts[k-1].end)
}

// Word returns the offset of chunk k's state word.
func (l Layout) Word(k int64) int64 {
	return (l.Size+BlockSize-1)/BlockSize*BlockSize + WordSize*k
}

// tableSize returns the length of the table in the file.
func (l Layout) tableSize() int64 {
	if l.Table == nil {
		return 0
	}
	return cutSize * l.Chunks()
}

// Footer returns the offset of the footer.
func (l Layout) Footer() int64 { return l.Word(l.Chunks()) + l.tableSize() }

// FileSize returns the length of the file.
func (l Layout) FileSize() int64 { return l.Footer() + FooterSize }

// Write makes an empty file that of a blob without chunks, at an epoch.
func (l Layout) Write(f *os.File, epoch uint64) error {
	var end []byte
	if l.Table != nil {
		end = l.Table.encode()
	}
	end = append(end, l.EncodeFooter(epoch)...)
	_, err := f.WriteAt(end, l.Word(l.Chunks()))
	return err
}

// EncodeFooter returns the footer of a file at an epoch.
func (l Layout) EncodeFooter(epoch uint64) []byte {
	p := make([]byte, FooterSize)
	copy(p, footerMagic)
	binary.LittleEndian.PutUint64(p[16:], uint64(l.Size))
	binary.LittleEndian.PutUint64(p[EpochOff:], epoch)
	if l.Table != nil {
		binary.LittleEndian.PutUint32(p[8:], tableVersion)
		binary.LittleEndian.PutUint32(p[12:], uint32(l.Chunks()))
		copy(p[sumOff:], l.Table.sum[:])
		return p
	}
	binary.LittleEndian.PutUint32(p[8:], footerVersion)
	binary.LittleEndian.PutUint32(p[12:], uint32(l.Chunk))
	return p
}

// ReadFooter returns what f says of itself; false if it is not a blob file. It reads
// the table, too.
func ReadFooter(f *os.File) (l Layout, epoch uint64, ok bool) {
	st, err := f.Stat()
	if err != nil || st.Size() < FooterSize {
		return Layout{}, 0, false
	}
	var p [FooterSize]byte
	if _, err := f.ReadAt(p[:], st.Size()-FooterSize); err != nil || string(p[:8]) != footerMagic {
		return Layout{}, 0, false
	}
	version, n := binary.LittleEndian.Uint32(p[8:]), int64(binary.LittleEndian.Uint32(p[12:]))
	l.Size = int64(binary.LittleEndian.Uint64(p[16:]))
	epoch = binary.LittleEndian.Uint64(p[EpochOff:])
	switch version {
	case footerVersion:
		l.Chunk = n
	case tableVersion:
		if n > MaxCuts || l.Size < 0 || l.Size >= 1<<60 || l.Word(n)+cutSize*n+FooterSize != st.Size() {
			return l, 0, false
		}
		if l.Table, err = readTable(f, l.Word(n), l.Size, n, [SumSize]byte(p[sumOff:])); err != nil {
			return l, 0, false
		}
	}
	return l, epoch, l.Valid() && l.FileSize() == st.Size()
}

// Words returns the state words of the chunks from first to end; 0 for a
// chunk that is not there.
func (l Layout) Words(f *os.File, first, end int64) []uint32 {
	words := make([]uint32, end-first)
	p := make([]byte, WordSize*len(words))
	n, _ := f.ReadAt(p, l.Word(first))
	for i := range n / WordSize {
		words[i] = binary.LittleEndian.Uint32(p[WordSize*i:])
	}
	return words
}

// SetWord writes the state word of chunk k.
func (l Layout) SetWord(f *os.File, k int64, w uint32) error {
	_, err := f.WriteAt(binary.LittleEndian.AppendUint32(nil, w), l.Word(k))
	return err
}

// WriteEpoch changes the epoch of a file.
func WriteEpoch(f *os.File, l Layout, epoch uint64) error {
	_, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, epoch), l.Footer()+EpochOff)
	return err
}

// Retire tells all who have the file open that it is no longer the blob's.
func Retire(f *os.File) {
	if l, _, ok := ReadFooter(f); ok {
		// If this fails they go on with a file that has lost its name.
		_ = WriteEpoch(f, l, 0)
	}
}

// DiskBytes returns what an open file takes on disk.
func DiskBytes(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// EncodeEnd returns what stands behind the data where all chunks, which are of one
// size, are there.
func (l Layout) EncodeEnd() []byte {
	n := l.Chunks()
	p := make([]byte, 0, WordSize*n+FooterSize)
	for range n {
		p = binary.LittleEndian.AppendUint32(p, Stamp())
	}
	return append(p, l.EncodeFooter(NewEpoch())...)
}

// NewEpoch returns the epoch of a new file: not 0, and none that another file
// in its place has had.
func NewEpoch() uint64 { return uint64(time.Now().UnixNano()) }

// Stamp is the state word of a chunk that is used now.
func Stamp() uint32 { return max(uint32(time.Now().Unix()), 1) }
