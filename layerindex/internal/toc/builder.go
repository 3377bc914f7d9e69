package toc

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// ErrNone says that a layer has no TOC, or one that does not say what its contents must
// hash to. It comes wrapped. Reading the whole layer is the remedy.
var ErrNone = errors.New("no index that can be used")

// landmark is the file of an eStargz layer before which lies what is to be fetched
// first.
const landmark = ".prefetch.landmark"

// align is what the contents of a layer begin at multiples of.
const align = 512

// A Builder makes the index of a layer of the entries of its TOC. It checks that what
// they say of places and lengths is right as far as it can be without the contents. It
// is for one goroutine.
type Builder struct {
	w       *layerindex.Writer
	limit   int64 // of the blob: where the contents end
	maxSize int64

	end    int64 // of the last content, in the out space
	begun  bool  // there is a member
	in     int64 // where the last member begins in the blob
	out    int64 // and in the out space
	lastIn int64 // where the content before ends in the blob, at least
	file   file
	first  int64 // where the first member begins
	points [1]layerindex.Checkpoint
}

// A file is the regular file whose chunks come.
type file struct {
	name     string
	size     int64
	covered  int64 // by chunks so far
	end      int64 // in the blob, 0 if it is not known
	inChunks bool  // each chunk has a digest
}

// NewBuilder returns a Builder that gives what it makes to w. The contents lie before
// byte limit of the blob and have at most maxSize bytes, padding included; 0 means no
// bound.
func NewBuilder(w *layerindex.Writer, limit, maxSize int64) *Builder {
	if maxSize <= 0 || maxSize > layerindex.MaxSize {
		maxSize = layerindex.MaxSize
	}
	return &Builder{w: w, limit: limit, maxSize: maxSize}
}

// Add adds the next entry of a TOC. It changes the Off of e. The error wraps
// layerindex.ErrIndex, layerindex.ErrLossy, ErrNone or an error of the Writer.
func (b *Builder) Add(e *Entry) error {
	if e.Lost {
		return fmt.Errorf("%w: in JSON bytes of the name %q, or of its target or attributes, are lost", layerindex.ErrLossy, clip(e.Name))
	}
	return b.AddAs(e, &e.Entry)
}

// AddAs adds the next entry of a TOC, with the name and attributes of another one and
// the content that e tells of. Both are of the same type and size. A chunk has no other
// entry.
func (b *Builder) AddAs(e *Entry, as *layerindex.Entry) error {
	if err := b.add(e, as); err != nil {
		return fmt.Errorf("entry %q of the TOC: %w", clip(e.Name), err)
	}
	return nil
}

func (b *Builder) add(e *Entry, as *layerindex.Entry) error {
	if e.IsChunk() {
		return b.addChunk(e)
	}
	if err := b.Complete(); err != nil {
		return err
	}
	if e.Type != layerindex.TypeReg {
		return b.w.AddEntry(as)
	}
	as.Digest, as.HasDigest = e.Digest, e.HasDigest
	as.Off = roundUp(b.end)
	if e.Size == 0 {
		return b.w.AddEntry(as)
	}
	return b.addFile(e, as)
}

// addFile adds a file with content, and its first chunk.
func (b *Builder) addFile(e *Entry, as *layerindex.Entry) error {
	if e.ChunkOffset != 0 {
		return fmt.Errorf("%w: its content begins at %d", layerindex.ErrIndex, e.ChunkOffset)
	}
	b.file = file{name: e.Name, size: e.Size, end: e.EndOffset, inChunks: e.HasChunkDigest}
	if e.EndOffset != 0 && (e.EndOffset <= e.Offset || e.EndOffset > b.limit) {
		return fmt.Errorf("%w: its frames are from %d to %d of %d", layerindex.ErrIndex, e.Offset, e.EndOffset, b.limit)
	}
	size, err := b.chunkSize(e)
	if err != nil {
		return err
	}
	if as.Off, err = b.place(e, size); err != nil {
		return err
	}
	if err := b.w.AddEntry(as); err != nil {
		return err
	}
	if e.HasDigest && e.HasChunkDigest && size == e.Size && e.Digest != e.ChunkDigest {
		return fmt.Errorf("%w: its one chunk has another digest than the file", layerindex.ErrIndex)
	}
	switch {
	case e.HasChunkDigest:
		err = b.w.AddProof(layerindex.Proof{Off: as.Off, Size: size, Sum: e.ChunkDigest})
	case e.HasDigest:
		err = b.w.AddProof(layerindex.Proof{Off: as.Off, Size: e.Size, Sum: e.Digest})
	default:
		err = fmt.Errorf("%w: nothing says what its content hashes to", ErrNone)
	}
	return err
}

// addChunk adds a further chunk of the file before.
func (b *Builder) addChunk(e *Entry) error {
	f := &b.file
	if f.covered == f.size || e.Name != f.name {
		return fmt.Errorf("%w: chunk of no file", layerindex.ErrIndex)
	}
	size, err := b.chunkSize(e)
	if err != nil {
		return err
	}
	off, err := b.place(e, size)
	if err != nil || !f.inChunks {
		return err
	}
	if !e.HasChunkDigest {
		return fmt.Errorf("%w: nothing says what its chunk at %d hashes to", ErrNone, e.ChunkOffset)
	}
	return b.w.AddProof(layerindex.Proof{Off: off, Size: size, Sum: e.ChunkDigest})
}

// chunkSize returns the length of a chunk, which begins where the one before ends.
func (b *Builder) chunkSize(e *Entry) (int64, error) {
	left := b.file.size - b.file.covered
	size := e.ChunkSize
	if size == 0 {
		size = left
	}
	if e.ChunkOffset != b.file.covered || size > left {
		return 0, fmt.Errorf("%w: chunk of %d bytes at %d, where %d of %d bytes come next",
			layerindex.ErrIndex, e.ChunkSize, e.ChunkOffset, left, b.file.size)
	}
	return size, nil
}

// place finds out where in the out space a chunk lies, and begins a member if it lies in
// another one than what is before it.
func (b *Builder) place(e *Entry, size int64) (int64, error) {
	further := b.file.covered > 0
	at := b.end
	if !further {
		at = roundUp(at)
	}
	fresh := !b.begun || e.Offset != b.in
	switch {
	case e.Offset >= b.limit || further && b.file.end > 0 && e.Offset >= b.file.end:
		return 0, fmt.Errorf("%w: content at %d of %d bytes", layerindex.ErrIndex, e.Offset, b.limit)
	case e.Offset < b.lastIn || further && fresh && e.InnerOffset != 0:
		return 0, fmt.Errorf("%w: content at %d+%d overlaps what comes before, up to %d", layerindex.ErrIndex, e.Offset, e.InnerOffset, b.lastIn)
	case fresh:
		if err := b.begin(e.Offset, at); err != nil {
			return 0, err
		}
	}
	off := b.out + e.InnerOffset
	if further && off != at || off < at || !further && off%align != 0 {
		return 0, fmt.Errorf("%w: content at %d+%d does not follow what comes before", layerindex.ErrIndex, e.Offset, e.InnerOffset)
	}
	if off > b.maxSize || size > b.maxSize-off {
		return 0, fmt.Errorf("%w: unpacked the files have more than %d bytes", layerindex.ErrTooBig, b.maxSize)
	}
	b.end = off + size
	b.file.covered += size
	b.lastIn = b.in
	if b.file.covered == b.file.size && b.file.end > 0 {
		b.lastIn = b.file.end
	}
	return off, nil
}

// begin begins a member.
func (b *Builder) begin(in, out int64) error {
	if !b.begun {
		b.first = in
	}
	b.begun, b.in, b.out = true, in, out
	return b.checkpoint()
}

func (b *Builder) checkpoint() error {
	b.points[0] = layerindex.Checkpoint{In: b.in, Out: b.out, Start: true}
	return b.w.AddCheckpoints(b.points[:])
}

// Complete checks that the chunks of the last file are all there.
func (b *Builder) Complete() error {
	if b.file.covered != b.file.size {
		return fmt.Errorf("%w: the chunks of %q have %d of %d bytes", layerindex.ErrIndex, clip(b.file.name), b.file.covered, b.file.size)
	}
	return nil
}

// Finish returns the index of the layer l. No entry may be added any more. Of the
// summary it takes codec, origin and losses.
func (b *Builder) Finish(l layerindex.Layer, s layerindex.Summary) (*layerindex.Index, error) {
	if err := b.Complete(); err != nil {
		return nil, err
	}
	s.Space, s.Proof = layerindex.SpaceContents, layerindex.ProofOutput
	s.TarSize = roundUp(b.end)
	if b.begun && b.limit < l.Size {
		// What is behind the contents is none.
		b.in, b.out = b.limit, s.TarSize
		if err := b.checkpoint(); err != nil {
			return nil, err
		}
	}
	s.BlobSize = l.Size
	for _, d := range []struct {
		text string
		to   *[32]byte
	}{{l.Digest.Encoded(), &s.Blob}, {l.DiffID.Encoded(), &s.DiffID}} {
		if _, err := hex.Decode(d.to[:], []byte(d.text)); err != nil {
			return nil, err
		}
	}
	return b.w.Finish(s)
}

// Last returns where in the blob the last member begins that has content, where in what
// it decodes to that content ends, and how many bytes of padding then come in the tar.
func (b *Builder) Last() (in, inner, pad int64) {
	if !b.begun {
		return 0, 0, 0
	}
	return b.in, b.end - b.out, -b.file.size & (align - 1)
}

// Extend lets further contents lie before byte limit of the blob.
func (b *Builder) Extend(limit int64) { b.limit = limit }

// Landmark notes what is to be fetched first if e is the file before which it lies.
func (b *Builder) Landmark(e *Entry) {
	if e.Type == layerindex.TypeReg && strings.HasSuffix(e.Name, landmark) && path.Clean("/"+e.Name) == "/"+landmark && b.begun && e.Offset > b.first {
		b.w.AddFirst(layerindex.Extent{Off: b.first, Size: e.Offset - b.first})
	}
}

func roundUp(n int64) int64 { return (n + align - 1) &^ (align - 1) }

func clip(s string) string { return s[:min(len(s), 64)] }
