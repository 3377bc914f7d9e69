package containersstorage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"sort"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/imgfs/imgfs/remote"
)

const (
	// blockSize is how many bytes of a recipe are packed at once, but for its last
	// record.
	blockSize = 64 << 10
	// maxRecipes bounds the packed recipes of all layers of an image.
	maxRecipes = 256 << 20
	// maxHeld is how many blocks of an image are held unpacked.
	maxHeld = 32
)

// A recipe says what a layer's tar consists of: segments of it, and contents of files.
// Headers of tars are mostly zeros, so it is held in memory in packed blocks: about 60
// bytes for an entry. It is immutable and safe for concurrent use.
type recipe struct {
	blocks []block
	size   int64 // of the tar
}

// A block is a part of a recipe: records, packed. A record is a kind, the number of bytes
// that it stands for, and these or the name of a file.
type block struct {
	off  int64 // in the tar
	data []byte
}

// The kinds of records.
const (
	recordSegment = iota
	recordFile
)

// A shelf holds what the recipes of an image take: how much they may, and blocks that
// were used last. It is safe for concurrent use.
type shelf struct {
	mu    sync.Mutex
	taken int64
	held  []heldBlock // the one used last at the end
}

type heldBlock struct {
	key  *block
	text []byte
}

// take counts n bytes more.
func (s *shelf) take(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken += n; s.taken > maxRecipes {
		return fmt.Errorf("%w: the names and headers of its layers take more than %d bytes", remote.ErrTooBig, maxRecipes)
	}
	return nil
}

// text returns the records of a block.
func (s *shelf) text(b *block) ([]byte, error) {
	s.mu.Lock()
	if i := slices.IndexFunc(s.held, func(h heldBlock) bool { return h.key == b }); i >= 0 {
		h := s.held[i]
		s.held = append(slices.Delete(s.held, i, i+1), h)
		s.mu.Unlock()
		return h.text, nil
	}
	s.mu.Unlock()
	text, err := s2.Decode(nil, b.data)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) == maxHeld {
		s.held = slices.Delete(s.held, 0, 1)
	}
	s.held = append(s.held, heldBlock{b, text})
	return text, nil
}

// A recipeMaker makes a recipe.
type recipeMaker struct {
	*recipe
	shelf *shelf
	limit int64  // of the tar
	start int64  // of the block in the tar
	text  []byte // of the block
}

// makeRecipe reads a tar-split. limit bounds the tar.
func makeRecipe(ctx context.Context, split io.Reader, limit int64, s *shelf) (*recipe, error) {
	m := &recipeMaker{recipe: new(recipe), shelf: s, limit: limit}
	err := readSplit(ctx, split, m.segment, m.file)
	if err == nil {
		err = m.pack()
	}
	if err != nil {
		_ = s.take(-m.packed())
		return nil, err
	}
	m.blocks = slices.Clip(m.blocks)
	return m.recipe, nil
}

// packed returns what the recipe takes.
func (r *recipe) packed() int64 {
	n := int64(0)
	for i := range r.blocks {
		n += r.blocks[i].taken()
	}
	return n
}

// taken is what a block counts.
func (b *block) taken() int64 { return int64(len(b.data)) + 32 }

func (m *recipeMaker) segment(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), blockSize)
		if err := m.add(recordSegment, int64(n), p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (m *recipeMaker) file(name []byte, size int64) error {
	return m.add(recordFile, size, name)
}

// add adds a record that stands for n bytes of the tar.
func (m *recipeMaker) add(kind uint64, n int64, what []byte) error {
	if n > m.limit-m.size {
		return fmt.Errorf("%w: the tar has more than %d bytes", errSplit, m.limit)
	}
	m.text = binary.AppendUvarint(m.text, kind)
	m.text = binary.AppendUvarint(m.text, uint64(n))
	if kind == recordFile {
		m.text = binary.AppendUvarint(m.text, uint64(len(what)))
	}
	m.text = append(m.text, what...)
	m.size += n
	if len(m.text) < blockSize {
		return nil
	}
	return m.pack()
}

// pack ends the block.
func (m *recipeMaker) pack() error {
	if len(m.text) == 0 {
		return nil
	}
	b := block{off: m.start, data: slices.Clip(s2.EncodeBetter(nil, m.text))}
	b.data = slices.Clone(b.data) // the encoder makes room for the worst case
	if err := m.shelf.take(b.taken()); err != nil {
		return err
	}
	m.blocks = append(m.blocks, b)
	m.start, m.text = m.size, m.text[:0]
	return nil
}

// errRecipe: a recipe in memory is not as it was made.
var errRecipe = errors.New("invalid recipe")

// readAt fills p with the tar from off on, which must be all in it. Contents of files
// come from file.
func (r *recipe) readAt(ctx context.Context, s *shelf, p []byte, off int64, file func(name string, size int64, p []byte, off int64) error) error {
	i := sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].off > off }) - 1
	for at := int64(0); len(p) > 0; i++ {
		if i < 0 || i >= len(r.blocks) {
			return errRecipe
		}
		text, err := s.text(&r.blocks[i])
		if err != nil {
			return err
		}
		at = r.blocks[i].off
		for len(text) > 0 && len(p) > 0 {
			rec, rest, ok := nextRecord(text)
			if !ok {
				return errRecipe
			}
			text = rest
			from := off - at
			at += rec.size
			if from >= rec.size {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			n := int(min(rec.size-from, int64(len(p))))
			if rec.kind == recordSegment {
				copy(p[:n], rec.what[from:])
			} else if err := file(fileName(rec.what), rec.size, p[:n], from); err != nil {
				return err
			}
			p, off = p[n:], off+int64(n)
		}
	}
	return nil
}

// A record is one of a recipe.
type record struct {
	kind uint64
	size int64
	what []byte
}

func nextRecord(text []byte) (rec record, rest []byte, ok bool) {
	take := func() uint64 {
		v, n := binary.Uvarint(text)
		if n <= 0 {
			ok = false
			return 0
		}
		text = text[n:]
		return v
	}
	ok = true
	rec.kind = take()
	size := take()
	n := size
	if rec.kind == recordFile {
		n = take()
	}
	if !ok || size > math.MaxInt64 || n > uint64(len(text)) {
		return rec, nil, false
	}
	rec.size, rec.what = int64(size), text[:n]
	return rec, text[n:], true
}

// fileName returns where a file lies in a layer's directory that has a name in its tar.
// What unpacks a layer makes names so that none leads out of it.
func fileName(name []byte) string { return path.Clean("/" + string(name))[1:] }
