package layerindex

import (
	"fmt"
	"strings"
)

// A Space is what out offsets of an index count.
type Space uint8

// The spaces, by their number in the index file.
const (
	// SpaceTar counts bytes of the uncompressed tar.
	SpaceTar Space = iota
	// SpaceContents counts bytes of the contents of the regular files, laid one
	// behind the other, each at a multiple of 512. Every span is a part of one gzip
	// member or zstd frame, from the first byte that it decodes to. What comes behind
	// the last content in a span is no part of the space.
	SpaceContents
)

// String returns "tar" or "contents".
func (s Space) String() string { return nameOf(uint8(s), "space", "tar", "contents") }

// A ProofKind is what the bytes of a layer are checked against as they are read.
type ProofKind uint8

// The kinds of proofs, by their number in the index file.
const (
	// ProofChunks are checksums of chunks of the blob, all of one size
	// (Index.ChunkSums).
	ProofChunks ProofKind = iota
	// ProofBlob are checksums of any ranges of the blob (Index.Proofs). Neighbours
	// may share a byte, and there may be gaps.
	ProofBlob
	// ProofOutput are checksums of ranges of what the blob decodes to (Index.Proofs).
	ProofOutput
)

// String returns "chunks", "blob" or "output".
func (k ProofKind) String() string { return nameOf(uint8(k), "proofs", "chunks", "blob", "output") }

// An Origin is what an index was made from.
type Origin uint8

// The origins, by their number in the index file.
const (
	OriginPass        Origin = iota // a pass of imgfs over the whole blob
	OriginEStargz                   // the TOC of an eStargz or stargz layer
	OriginZstdChunked               // the TOC of a zstd:chunked layer
	OriginSOCI                      // a ztoc
)

// String returns the usual name of the format.
func (o Origin) String() string {
	return nameOf(uint8(o), "origin", "imgfs", "estargz", "zstd:chunked", "soci")
}

// Loss says what an index of another origin does not tell of a layer. Values may be
// joined with |.
type Loss uint8

const (
	// LossSubSecond says that times are in whole seconds.
	LossSubSecond Loss = 1 << iota
	// LossEmptyXattrs says that attributes without a value are left out.
	LossEmptyXattrs

	lossesKnown = LossSubSecond | LossEmptyXattrs
)

// String returns the losses, joined with commas, "" if there is none.
func (l Loss) String() string {
	var names []string
	if l&LossSubSecond != 0 {
		names = append(names, "sub-second times")
	}
	if l&LossEmptyXattrs != 0 {
		names = append(names, "attributes without a value")
	}
	if rest := l &^ lossesKnown; rest != 0 {
		names = append(names, fmt.Sprintf("losses(%#x)", uint8(rest)))
	}
	return strings.Join(names, ", ")
}

// nameOf returns the name of a number, of which kind it is if it has none.
func nameOf(n uint8, kind string, names ...string) string {
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%s(%d)", kind, n)
}

// Space returns what out offsets of the index count: those of entries and spans, and
// of proofs of the output.
func (x *Index) Space() Space { return Space(x.file.Space) }

// ProofKind returns what kind of proofs the index has.
func (x *Index) ProofKind() ProofKind { return ProofKind(x.file.ProofKind) }

// Origin returns what the index was made from.
func (x *Index) Origin() Origin { return Origin(x.file.Origin) }

// Losses returns what the index does not tell of the layer.
func (x *Index) Losses() Loss { return Loss(x.file.Losses) }

// HeaderSum returns the checksum that the header ends with. Since the header has the
// checksum of every part, it pins the whole index file.
func (x *Index) HeaderSum() [32]byte { return x.file.HeaderSum() }
