package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/layerindex"
)

func asDigest(sum []byte) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum))
}

// A digestTable has the digests of a layer's files, by the offset of their content.
// Where several entries begin at one offset, all but the last are empty. The digests of
// an index far away stay there, and each is read when it is asked for.
type digestTable struct {
	offs []int64           // in the tar, rising
	sums []byte            // 32 bytes for each; nil if they are far away
	nums []int32           // by which the index knows the digest of each
	far  *layerindex.Index // nil if they are not far away
	any  bool              // whether the index has digests at all
}

// newDigestTable returns the table of the files of at least min bytes.
func newDigestTable(ctx context.Context, x *layerindex.Index, min int64) (*digestTable, error) {
	if x.Far() {
		return newFarTable(ctx, x, min)
	}
	list, err := x.ListDigests(ctx)
	if err != nil {
		return nil, err
	}
	n := 0
	for e := range list.All() {
		if e.HasDigest && e.Size >= min {
			n++
		}
	}
	t := &digestTable{any: x.HasDigests(), offs: make([]int64, 0, n), sums: make([]byte, 0, n*sha256.Size)}
	n = 0
	for e := range list.Drain() {
		if n++; n%(1<<8) == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if e.HasDigest && e.Size >= min {
			t.offs = append(t.offs, e.Off)
			t.sums = append(t.sums, e.Digest[:]...)
		}
	}
	return t, list.Err()
}

// newFarTable is newDigestTable for an index far away.
func newFarTable(ctx context.Context, x *layerindex.Index, min int64) (*digestTable, error) {
	t := &digestTable{far: x, any: x.HasDigests()}
	if !t.any {
		return t, nil
	}
	list, err := x.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	n := 0
	for num, e := range list.Numbered() {
		if n++; n%(1<<8) == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if num >= 0 && e.Size >= min {
			t.offs = append(t.offs, e.Off)
			t.nums = append(t.nums, int32(num)) // of MaxEntries at most
		}
	}
	return t, list.Err()
}

// find returns the digest of the content of some size at an offset. The error is that of
// reading an index far away.
func (t *digestTable) find(off, size int64) (sum []byte, ok bool, err error) {
	if size == 0 {
		sum := sha256.Sum256(nil)
		return sum[:], t.any, nil
	}
	i, ok := slices.BinarySearch(t.offs, off)
	switch {
	case !ok:
		return nil, false, nil
	case t.far != nil:
		sum, err := t.far.ContentDigest(int(t.nums[i]))
		return sum[:], err == nil, err
	}
	return t.sums[i*sha256.Size : (i+1)*sha256.Size], true, nil
}

func (t *digestTable) memory() int64 {
	return int64(cap(t.offs))*8 + int64(cap(t.sums)) + int64(cap(t.nums))*4
}

// maxDigestMemory is how many bytes the tables of digests may take, 40 for a
// file.
const maxDigestMemory = 16 << 20

// digestTables are the tables of those layers of an image that were used last.
type digestTables struct {
	ctx    context.Context // of the image: loading a table ends with it
	cancel func()

	mu    sync.Mutex
	limit int64        // of memory, in bytes; the table used last may have more
	lru   []*lazyTable // the one used last is the last
}

// A lazyTable is a table that one caller loads for all that ask meanwhile.
type lazyTable struct {
	layer *layerState
	done  chan struct{} // closed when it is loaded, or could not be
	table *digestTable
	err   error
	size  int64 // 0 before it is loaded; guarded by digestTables.mu
}

// of returns the table of a layer.
func (d *digestTables) of(l *layerState) (*digestTable, error) {
	d.mu.Lock()
	i := slices.IndexFunc(d.lru, func(t *lazyTable) bool { return t.layer == l })
	lazy := &lazyTable{layer: l, done: make(chan struct{})}
	if i >= 0 {
		lazy = d.lru[i]
		d.lru = slices.Delete(d.lru, i, i+1)
	}
	d.lru = append(d.lru, lazy)
	d.mu.Unlock()
	if i < 0 {
		d.load(lazy)
	}
	<-lazy.done
	return lazy.table, lazy.err
}

// load loads a table, and drops the tables that were used longest ago.
func (d *digestTables) load(lazy *lazyTable) {
	table, err := newDigestTable(d.ctx, lazy.layer.index, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	lazy.table, lazy.err = table, err
	close(lazy.done)
	if err != nil {
		// The next one tries again.
		d.lru = slices.DeleteFunc(d.lru, func(t *lazyTable) bool { return t == lazy })
		return
	}
	lazy.size = table.memory()
	used := int64(0)
	for i := len(d.lru) - 1; i >= 0; i-- {
		if used += d.lru[i].size; used > d.limit && i < len(d.lru)-1 {
			d.lru = slices.Delete(d.lru, 0, i+1)
			break
		}
	}
}

// largeDigests is the table of a layer's large files. Once loaded it stays.
type largeDigests struct {
	mu   sync.Mutex
	load func() (*digestTable, error) // nil before it is first needed
}

// of returns the table of the index x. Reading the index ends with ctx.
func (l *largeDigests) of(ctx context.Context, x *layerindex.Index) (*digestTable, error) {
	l.mu.Lock()
	load := l.load
	if load == nil {
		load = sync.OnceValues(func() (*digestTable, error) { return newDigestTable(ctx, x, keptfile.MinSize) })
		l.load = load
	}
	l.mu.Unlock()
	table, err := load()
	if err != nil {
		l.mu.Lock()
		l.load = nil // the next one tries again
		l.mu.Unlock()
	}
	return table, err
}
