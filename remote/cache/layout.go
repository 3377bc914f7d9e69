package cache

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
	footerSize    = 64
	epochOff      = 24 // in the footer
	wordSize      = 4
	blockSize     = 4096

	maxChunk = 16 << 20
)

// A layout says where the parts of a blob file lie.
type layout struct {
	size, chunk int64 // of the blob, and of its chunks
}

func (l layout) valid() bool {
	// The bound on size leaves room for what stands behind the data.
	return l.chunk > 0 && l.chunk <= maxChunk && l.chunk%blockSize == 0 && l.size >= 0 && l.size < 1<<60
}

// chunks returns the number of chunks.
func (l layout) chunks() int64 { return (l.size + l.chunk - 1) / l.chunk }

// bounds returns where chunk k begins and ends in the blob.
func (l layout) bounds(k int64) (off, end int64) {
	return k * l.chunk, min((k+1)*l.chunk, l.size)
}

// word returns the offset of chunk k's state word.
func (l layout) word(k int64) int64 {
	return (l.size+blockSize-1)/blockSize*blockSize + wordSize*k
}

func (l layout) footer() int64 { return l.word(l.chunks()) }

func (l layout) fileSize() int64 { return l.footer() + footerSize }

func (l layout) encodeFooter(epoch uint64) []byte {
	p := make([]byte, footerSize)
	copy(p, footerMagic)
	binary.LittleEndian.PutUint32(p[8:], footerVersion)
	binary.LittleEndian.PutUint32(p[12:], uint32(l.chunk))
	binary.LittleEndian.PutUint64(p[16:], uint64(l.size))
	binary.LittleEndian.PutUint64(p[epochOff:], epoch)
	return p
}

// readFooter returns what f says of itself; false if it is not a blob file.
func readFooter(f *os.File) (l layout, epoch uint64, ok bool) {
	st, err := f.Stat()
	if err != nil || st.Size() < footerSize {
		return layout{}, 0, false
	}
	var p [footerSize]byte
	if _, err := f.ReadAt(p[:], st.Size()-footerSize); err != nil {
		return layout{}, 0, false
	}
	l.chunk = int64(binary.LittleEndian.Uint32(p[12:]))
	l.size = int64(binary.LittleEndian.Uint64(p[16:]))
	epoch = binary.LittleEndian.Uint64(p[epochOff:])
	ok = string(p[:8]) == footerMagic && binary.LittleEndian.Uint32(p[8:]) == footerVersion &&
		l.valid() && l.fileSize() == st.Size()
	return l, epoch, ok
}

// words returns the state words of the chunks from first to end; 0 for a
// chunk that is not there.
func (l layout) words(f *os.File, first, end int64) []uint32 {
	words := make([]uint32, end-first)
	p := make([]byte, wordSize*len(words))
	n, _ := f.ReadAt(p, l.word(first))
	for i := range n / wordSize {
		words[i] = binary.LittleEndian.Uint32(p[wordSize*i:])
	}
	return words
}

// setWord writes the state word of chunk k.
func (l layout) setWord(f *os.File, k int64, w uint32) error {
	_, err := f.WriteAt(binary.LittleEndian.AppendUint32(nil, w), l.word(k))
	return err
}

func writeEpoch(f *os.File, l layout, epoch uint64) error {
	_, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, epoch), l.footer()+epochOff)
	return err
}

// retire tells all who have the file open that it is no longer the blob's.
func retire(f *os.File) {
	if l, _, ok := readFooter(f); ok {
		// If this fails they go on with a file that has lost its name.
		_ = writeEpoch(f, l, 0)
	}
}

// diskBytes returns what an open file takes on disk.
func diskBytes(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// encodeEnd returns what stands behind the data where all chunks are there.
func (l layout) encodeEnd() []byte {
	n := l.chunks()
	p := make([]byte, 0, wordSize*n+footerSize)
	for range n {
		p = binary.LittleEndian.AppendUint32(p, stamp())
	}
	return append(p, l.encodeFooter(newEpoch())...)
}

// newEpoch returns the epoch of a new file: not 0, and none that another file
// in its place has had.
func newEpoch() uint64 { return uint64(time.Now().UnixNano()) }

// stamp is the state word of a chunk that is used now.
func stamp() uint32 { return max(uint32(time.Now().Unix()), 1) }
