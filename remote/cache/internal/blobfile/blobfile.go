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
	footerVersion = 1
	FooterSize    = 64
	EpochOff      = 24 // in the footer
	WordSize      = 4
	BlockSize     = 4096

	MaxChunk = 16 << 20
)

// A Layout says where the parts of a blob file lie.
type Layout struct {
	Size, Chunk int64 // of the blob, and of its chunks
}

// Valid reports whether a file can have the layout.
func (l Layout) Valid() bool {
	// The bound on size leaves room for what stands behind the data.
	return l.Chunk > 0 && l.Chunk <= MaxChunk && l.Chunk%BlockSize == 0 && l.Size >= 0 && l.Size < 1<<60
}

// Chunks returns the number of chunks.
func (l Layout) Chunks() int64 { return (l.Size + l.Chunk - 1) / l.Chunk }

// Bounds returns where chunk k begins and ends in the blob.
func (l Layout) Bounds(k int64) (off, end int64) {
	return k * l.Chunk, min((k+1)*l.Chunk, l.Size)
}

// Word returns the offset of chunk k's state word.
func (l Layout) Word(k int64) int64 {
	return (l.Size+BlockSize-1)/BlockSize*BlockSize + WordSize*k
}

// Footer returns the offset of the footer.
func (l Layout) Footer() int64 { return l.Word(l.Chunks()) }

// FileSize returns the length of the file.
func (l Layout) FileSize() int64 { return l.Footer() + FooterSize }

// EncodeFooter returns the footer of a file at an epoch.
func (l Layout) EncodeFooter(epoch uint64) []byte {
	p := make([]byte, FooterSize)
	copy(p, footerMagic)
	binary.LittleEndian.PutUint32(p[8:], footerVersion)
	binary.LittleEndian.PutUint32(p[12:], uint32(l.Chunk))
	binary.LittleEndian.PutUint64(p[16:], uint64(l.Size))
	binary.LittleEndian.PutUint64(p[EpochOff:], epoch)
	return p
}

// ReadFooter returns what f says of itself; false if it is not a blob file.
func ReadFooter(f *os.File) (l Layout, epoch uint64, ok bool) {
	st, err := f.Stat()
	if err != nil || st.Size() < FooterSize {
		return Layout{}, 0, false
	}
	var p [FooterSize]byte
	if _, err := f.ReadAt(p[:], st.Size()-FooterSize); err != nil {
		return Layout{}, 0, false
	}
	l.Chunk = int64(binary.LittleEndian.Uint32(p[12:]))
	l.Size = int64(binary.LittleEndian.Uint64(p[16:]))
	epoch = binary.LittleEndian.Uint64(p[EpochOff:])
	ok = string(p[:8]) == footerMagic && binary.LittleEndian.Uint32(p[8:]) == footerVersion &&
		l.Valid() && l.FileSize() == st.Size()
	return l, epoch, ok
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

// EncodeEnd returns what stands behind the data where all chunks are there.
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
