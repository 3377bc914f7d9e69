package blobs

import (
	"io"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/seal"
)

// seals are those of the chunks of a blob that is not cut into chunks of one size. They
// outlive the file and its epochs: bytes that have the seal of a chunk are the ones that
// matched it, wherever they lie now. They are safe for concurrent use; nil has none.
type seals struct {
	key    *seal.Key
	chunks []atomic.Pointer[seal.Table]
}

func newSeals(chunks int64) *seals {
	return &seals{seal.NewKey(), make([]atomic.Pointer[seal.Table], chunks)}
}

// put notes that data is chunk k.
func (s *seals) put(k int64, data []byte) {
	t := seal.NewTable(s.key, int64(len(data)), sealBlock)
	t.Seal(0, data)
	s.chunks[k].Store(t)
}

// read fills p from byte off of src, the blob, in the chunks from first to end. It
// returns the first that is not known, or is not what matched, and -1 if there is none.
func (s *seals) read(l blobfile.Layout, src io.ReaderAt, p []byte, off, first, end int64) (wrong int64) {
	for k := first; k < end; k++ {
		at, stop := l.Bounds(k)
		n := min(int64(len(p)), stop-off)
		if t := s.chunks[k].Load(); t == nil || !t.Read(shifted{src, at}, p[:n], off-at) {
			return k
		}
		p, off = p[n:], off+n
	}
	return -1
}

// readAll fills data with chunk k of src, and reports whether it is what matched.
func (s *seals) readAll(l blobfile.Layout, src io.ReaderAt, k int64, data []byte) bool {
	if s == nil || s.chunks[k].Load() == nil {
		return false
	}
	at, _ := l.Bounds(k)
	return s.read(l, src, data, at, k, k+1) < 0
}

// shifted is what lies from byte by on in another.
type shifted struct {
	io.ReaderAt
	by int64
}

func (s shifted) ReadAt(p []byte, off int64) (int, error) { return s.ReaderAt.ReadAt(p, s.by+off) }
