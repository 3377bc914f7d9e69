package soci

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/imgfs/imgfs/layerindex"
)

// The fields of the tables of a ztoc, by their number (ztoc/fbs/ztoc.fbs in the
// sources of soci-snapshotter).
const (
	ztocVersion = iota
	ztocTool
	ztocBlobSize
	ztocTarSize
	ztocTOC
	ztocInfo
	ztocFields
)

const (
	tocEntries = iota
	tocFields
)

const (
	infoAlgorithm = iota
	infoMaxSpan
	infoDigests
	infoCheckpoints
	infoFields
)

// The fields of TarZinfo, a FlatBuffers file of its own in infoCheckpoints.
const (
	tarVersion = iota
	tarSpanSize
	tarSize
	tarFields
)

const (
	// version is the only version of ztocs that there is.
	version = "0.9"

	algorithmGzip  = 1
	algorithmPlain = 2

	digestPrefix = "sha256:"
	// digestSize is how many bytes of a ztoc a digest of a span takes, at least.
	digestSize = 4 + len(digestPrefix) + 2*sha256.Size

	windowSize = 32 << 10
	// Checkpoints of gzip begin with their number and the span size, and are a place
	// in the blob and in the tar, a number of bits, and a window each.
	pointsHeader = 4 + 8
	pointSize    = 8 + 8 + 1 + windowSize
	// The version of TarZinfo.
	tarInfoVersion = 2
	// headerSize is the least size of a gzip header, and where the first checkpoint
	// is if it is left out.
	headerSize = 10
	// maxRatio is how many bytes one of DEFLATE can give: 258 for every two bits.
	maxRatio = 1032
)

// A ztoc is what a FlatBuffers file says of a layer, as it says it.
type ztoc struct {
	f                 *buffer
	blobSize, tarSize int64
	entries           vector
	plain             bool
	points            []byte // checkpoints, or what stands for them
	sums              vector // digests of the spans
	spans             []span
}

// A span is a piece of the blob with a digest, and what decoding from its beginning
// takes.
type span struct {
	off, end int64 // in the blob
	point    layerindex.Checkpoint
	sum      [sha256.Size]byte
}

// spanCost is about the memory of a span.
const spanCost = 160

// open reads a ztoc but for its spans and entries. It does not compare it with a layer.
func open(b []byte) (*ztoc, error) {
	f := newBuffer(b)
	root := f.root()
	got := root.bytes(ztocVersion)
	z := &ztoc{f: f, blobSize: root.int64(ztocBlobSize), tarSize: root.int64(ztocTarSize)}
	z.entries = root.table(ztocTOC).vector(tocEntries)
	info := root.table(ztocInfo)
	algorithm := info.byte(infoAlgorithm, algorithmGzip)
	if z.plain = algorithm == algorithmPlain; z.plain {
		z.tarSize = z.blobSize // SOCI's is where its reader of tars stopped
	}
	z.points, z.sums = info.bytes(infoCheckpoints), info.vector(infoDigests)
	last := int64(int32(info.uint32(infoMaxSpan)))
	switch {
	case f.err != nil:
		return nil, f.err
	case string(got) != version:
		return nil, fmt.Errorf("version %.20q, want %q", got, version)
	case algorithm != algorithmGzip && algorithm != algorithmPlain:
		return nil, fmt.Errorf("unknown compression algorithm %d", algorithm)
	case z.blobSize < 0 || z.blobSize > layerindex.MaxSize || z.tarSize < 0 || z.tarSize > layerindex.MaxSize:
		return nil, fmt.Errorf("sizes %d and %d are out of range", z.blobSize, z.tarSize)
	case int64(z.sums.n) != last+1 || z.sums.n > len(b)/digestSize:
		return nil, fmt.Errorf("%d span digests, and the last span is number %d", z.sums.n, last)
	}
	return z, nil
}

// readSpans reads the spans. They take spanCost bytes of memory for each digest.
func (z *ztoc) readSpans() error {
	z.spans = make([]span, z.sums.n)
	read := z.readPoints
	if z.plain {
		read = z.cutPlain
	}
	if err := read(z.points); err != nil {
		return err
	}
	return z.readSums(z.sums)
}

// readSums reads the digests of the spans.
func (z *ztoc) readSums(sums vector) error {
	for i := range z.spans {
		s := sums.bytes(i)
		if z.f.err != nil {
			return z.f.err
		}
		if len(s) != len(digestPrefix)+2*sha256.Size || string(s[:len(digestPrefix)]) != digestPrefix {
			return fmt.Errorf("digest %.80q of span %d", s, i)
		}
		if _, err := hex.Decode(z.spans[i].sum[:], s[len(digestPrefix):]); err != nil {
			return fmt.Errorf("digest %.80q of span %d", s, i)
		}
	}
	return nil
}

// readPoints reads the checkpoints of a gzip layer, which are as many as there are
// spans. Those of old ztocs lack the first, which is at byte 10.
func (z *ztoc) readPoints(b []byte) error {
	if len(b) < pointsHeader {
		return fmt.Errorf("checkpoints of %d bytes", len(b))
	}
	n, size := int64(binary.LittleEndian.Uint32(b)), int64(len(b)-pointsHeader)
	if n == 0 || n != int64(len(z.spans)) || size != n*pointSize && size != (n-1)*pointSize {
		return fmt.Errorf("%d checkpoints in %d bytes, and %d span digests", n, size, len(z.spans))
	}
	b = b[pointsHeader:]
	if z.spans[0].point.In = headerSize; size == n*pointSize {
		if err := z.spans[0].readPoint(b); err != nil {
			return fmt.Errorf("checkpoint 0: %w", err)
		}
		b = b[pointSize:]
	}
	for i := 1; i < len(z.spans); i++ {
		if err := z.spans[i].readPoint(b[(i-1)*pointSize:]); err != nil {
			return fmt.Errorf("checkpoint %d: %w", i, err)
		}
	}
	if first := z.spans[0].point; first.Out != 0 || first.In < headerSize {
		return fmt.Errorf("the first checkpoint is at byte %d, for byte %d", first.In, first.Out)
	}
	return z.cutGzip()
}

// readPoint reads one checkpoint. SOCI names the first whole byte, and how many bits of
// the one before it, the highest, come before that.
func (s *span) readPoint(b []byte) error {
	in, out, bits := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[16]
	if in == 0 || in > layerindex.MaxSize || out > layerindex.MaxSize || bits > 7 {
		return fmt.Errorf("%d bits before byte %d, for byte %d", bits, in, out)
	}
	p := &s.point
	p.In, p.Out = int64(in), int64(out)
	if bits > 0 {
		p.In, p.Bit = p.In-1, 8-bits
	}
	// What is before the first byte of the tar is nothing.
	if known := min(p.Out, windowSize); known > 0 {
		p.Window.Runs = []layerindex.Run{{Off: uint16(windowSize - known), Len: uint16(known)}}
		p.Window.Data = b[pointSize-known : pointSize]
	}
	return nil
}

// cutGzip finds out where spans begin and end from the checkpoints.
func (z *ztoc) cutGzip() error {
	for i := range z.spans {
		s := &z.spans[i]
		in, out := z.blobSize, z.tarSize
		if i+1 < len(z.spans) {
			next := &z.spans[i+1].point
			in, out = next.In+int64(next.Bit+7)/8, next.Out
			if in <= s.point.In+1 || out < s.point.Out {
				return fmt.Errorf("checkpoint %d is at byte %d, for byte %d, behind one at %d for %d", i+1, in, out, s.point.In, s.point.Out)
			}
		}
		if s.off, s.end = s.point.In, in; s.end <= s.off || s.end > z.blobSize || out-s.point.Out > maxRatio*(s.end-s.off) {
			return fmt.Errorf("span %d: bytes %d to %d of %d decode to %d", i, s.off, s.end, z.blobSize, out-s.point.Out)
		}
	}
	return nil
}

// cutPlain cuts a plain tar into spans of one size.
func (z *ztoc) cutPlain(b []byte) error {
	f := newBuffer(b)
	info := f.root()
	v, step, size := int32(info.uint32(tarVersion)), info.int64(tarSpanSize), info.int64(tarSize)
	switch {
	case f.err != nil:
		return fmt.Errorf("checkpoints of a plain tar: %w", f.err)
	case v != tarInfoVersion || step <= 0 || step > layerindex.MaxSize || size != z.blobSize || (size+step-1)/step != int64(len(z.spans)):
		return fmt.Errorf("plain tar of %d bytes (version %d): %d spans of %d for a blob of %d", size, v, len(z.spans), step, z.blobSize)
	}
	for i := range z.spans {
		z.spans[i].off = int64(i) * step
		z.spans[i].end = min(size, z.spans[i].off+step)
	}
	return nil
}
