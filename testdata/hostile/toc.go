package hostile

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func two(int) int   { return 2 }
func three(int) int { return 3 }

// tocAttacks are eStargz layers whose tables of contents want more than they say, and
// that the manifest has the right digest of.
func tocAttacks() []Attack {
	opens := func(name, kind string, make func(m *Image, n int), full, small int, names func(n int) int) Attack {
		return Attack{Name: name, Kind: kind, Make: make, Full: full, Small: small, Names: names}
	}
	return []Attack{
		opens("TOC of white space", "MiB of white space in a TOC", tocOfSpace, 140, 2, two),
		opens("TOC too long", "MiB of white space in a TOC, of which 150 may be", tocOfSpace, 1000, 160, two),
		opens("TOC of directories", "directories in a TOC that the tar has not", tocEntries, 2_000_000, 20_000, two),
		opens("TOC of names", "names of 4,000 bytes in a TOC with nothing in common", tocNames, 37_000, 1000, two),
		opens("TOC of chunks", "chunks of one byte in a TOC", tocChunks, 700_000, 7000, three),
		opens("TOC of members", "gzip members of one byte each in a TOC", tocMembers, 700_000, 7000, three),
		opens("TOC of a bomb", "MiB of zeros in one gzip member of a TOC, before the small file", tocBomb, 4000, 256, three),
	}
}

// An entryWriter writes the entries of a TOC, those of the layer's own files but for
// the small one. at is where in the blob the members begin that it tells of.
type entryWriter func(w *bufio.Writer, at int64)

// estargz adds a layer with the small file and a TOC. members, if not nil, writes what
// lies before the small file in the blob, and tar what that decodes to.
func (m *Image) estargz(entries entryWriter, members, tar func(w *bufio.Writer), small func(at int64) string) {
	begin := func(w *bufio.Writer) {
		w.Write(gzipMember(Header{Name: "first", Type: '5'}.bytes()))
	}
	t := smallTar()
	end := len(t) - 2*block
	count := &countingWriter{}
	cw := bufio.NewWriter(count)
	begin(cw)
	cw.Flush()
	at := count.n
	if members != nil {
		members(cw)
	}
	cw.Write(gzipMember(t[:block]))
	cw.Flush()
	smallAt := count.n
	text := func(w *bufio.Writer) {
		w.WriteString(`{"version":1,"entries":[{"type":"dir","name":"first","mode":420},`)
		entries(w, at)
		fmt.Fprintf(w, `{"type":"reg","name":"small","size":%d,"digest":%q,"chunkDigest":%[2]q,%s}]}`, len(smallContent), digest.FromString(smallContent), small(smallAt))
	}
	length, sum := &countingWriter{}, sha256.New()
	tw := bufio.NewWriterSize(io.MultiWriter(length, sum), 1<<20)
	text(tw)
	tw.Flush()
	tail := func(w *bufio.Writer) {
		w.Write(Header{Name: "stargz.index.json", Size: length.n}.bytes())
		text(w)
		w.Write(zeros[:-length.n&(block-1)])
		w.Write(zeros[:2*block])
	}
	m.Raw(ocispec.MediaTypeImageLayerGzip, func(w *bufio.Writer) {
		begin(w)
		if members != nil {
			members(w)
		}
		w.Write(gzipMember(t[:block]))
		w.Write(gzipMember(t[block:end]))
		toc := smallAt + int64(len(gzipMember(t[block:end])))
		z := gzip.NewWriter(w)
		zw := bufio.NewWriterSize(z, 1<<20)
		tail(zw)
		zw.Flush()
		z.Close()
		fmt.Fprintf(w, "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x1a\x00SG\x16\x00%016xSTARGZ\x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00", toc)
	}, func(w *bufio.Writer) {
		w.Write(Header{Name: "first", Type: '5'}.bytes())
		if tar != nil {
			tar(w)
		}
		w.Write(t[:end])
		tail(w)
	})
	m.Manifest.Layers[len(m.Manifest.Layers)-1].Annotations = map[string]string{
		"containerd.io/snapshot/stargz/toc.digest": digest.NewDigest(digest.SHA256, sum).String(),
	}
}

// A countingWriter counts what goes nowhere.
type countingWriter struct{ n int64 }

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// itself says that the small file is in a member of its own.
func itself(at int64) string { return fmt.Sprintf(`"offset":%d`, at) }

func tocOfSpace(m *Image, n int) {
	m.estargz(func(w *bufio.Writer, _ int64) {
		for range n << 20 {
			w.WriteByte(' ')
		}
	}, nil, nil, itself)
}

func tocEntries(m *Image, n int) {
	m.estargz(func(w *bufio.Writer, _ int64) {
		for i := range n {
			fmt.Fprintf(w, `{"type":"dir","name":"first/d%d"},`, i)
		}
	}, nil, nil, itself)
}

func tocNames(m *Image, n int) {
	m.estargz(func(w *bufio.Writer, _ int64) {
		for i := range n {
			part := filler(i, 240)
			w.WriteString(`{"type":"dir","name":"first`)
			for range 16 {
				w.WriteString("/" + part)
			}
			w.WriteString(`"},`)
		}
	}, nil, nil, itself)
}

// tocChunks puts the small file behind one of n bytes, each of which is a chunk, in one
// member.
func tocChunks(m *Image, n int) {
	padded := (n + block - 1) &^ (block - 1)
	zero := digest.FromBytes(zeros[:1])
	member := gzipMember(append(make([]byte, padded), smallTar()[block:2*block]...))
	m.estargz(func(w *bufio.Writer, at int64) {
		fmt.Fprintf(w, `{"type":"reg","name":"many","size":%d,"offset":%d,"chunkSize":1,"chunkDigest":%q},`, n, at, zero)
		for i := 1; i < n; i++ {
			fmt.Fprintf(w, `{"type":"chunk","name":"many","offset":%d,"innerOffset":%d,"chunkOffset":%[2]d,"chunkSize":1,"chunkDigest":%q},`, at, i, zero)
		}
		behind = fmt.Sprintf(`"offset":%d,"innerOffset":%d`, at, padded)
	}, func(w *bufio.Writer) { w.Write(member) }, nil, func(int64) string { return behind })
}

// behind is where tocChunks and tocBomb put the small file. Attacks are made one by one.
var behind string

func tocMembers(m *Image, n int) {
	zero, member := digest.FromBytes(zeros[:1]), gzipMember(zeros[:1])
	m.estargz(func(w *bufio.Writer, at int64) {
		w.WriteString(`{"type":"dir","name":"many"},`)
		for i := range n {
			fmt.Fprintf(w, `{"type":"reg","name":"many/%d","size":1,"offset":%d,"chunkDigest":%q},`, i, at+int64(i*len(member)), zero)
		}
	}, func(w *bufio.Writer) {
		for range n {
			w.Write(member)
		}
	}, nil, itself)
}

func tocBomb(m *Image, n int) {
	sum := sha256.New()
	writeZeros(sum, int64(n)<<20)
	d := digest.NewDigest(digest.SHA256, sum)
	m.estargz(func(w *bufio.Writer, at int64) {
		fmt.Fprintf(w, `{"type":"reg","name":"bomb","size":%d,"offset":%d,"chunkDigest":%q},`, int64(n)<<20, at, d)
		behind = fmt.Sprintf(`"offset":%d,"innerOffset":%d`, at, int64(n)<<20)
	}, func(w *bufio.Writer) {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			panic(err) // of a constant level
		}
		writeZeros(z, int64(n)<<20)
		z.Write(smallTar()[block : 2*block])
		z.Close()
	}, nil, func(int64) string { return behind })
}
