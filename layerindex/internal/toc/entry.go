package toc

import "github.com/imgfs/imgfs/layerindex"

// typeChunk is the type of an entry that is a further chunk of the file before.
const typeChunk layerindex.Type = 'c'

// An Entry is one entry of a TOC as it stands there.
type Entry struct {
	// Entry has what a tar says of a file. A chunk has no more of it than a Type and a
	// Name. Off is 0 and Sparse nil.
	layerindex.Entry
	// Lost says that bytes of a name may be lost: the entry's, that of its target, or
	// of an attribute. In the JSON there is U+FFFD or what is no UTF-8.
	Lost bool
	// Offset is where in the blob the gzip member or zstd frame begins that the
	// content begins in, and InnerOffset the place of the content in what that decodes
	// to. EndOffset is where the last frame of the file ends, 0 if nothing says so.
	Offset, InnerOffset, EndOffset int64
	// ChunkOffset is the place of the chunk in the file, and ChunkSize its length: 0
	// up to the end of the file.
	ChunkOffset, ChunkSize int64
	ChunkDigest            [32]byte
	HasChunkDigest         bool
}

// IsChunk reports whether the entry is a further chunk of the file before it.
func (e *Entry) IsChunk() bool { return e.Type == typeChunk }
