package hostile

import (
	"bufio"
	"bytes"
	"math"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// streamAttacks are layers that decode to more, or with more work, than their
// size lets one expect.
func streamAttacks() []Attack {
	opens := func(name, kind string, make func(m *Image, n int), full, small, names int) Attack {
		return Attack{Name: name, Kind: kind, Make: make, Full: full, Small: small, Names: func(int) int { return names }}
	}
	return []Attack{
		opens("gzip bomb", "MiB of zeros as gzip", gzipBomb, 10<<10, 256, 2),
		opens("zstd bomb", "MiB of zeros in one zstd frame", zstdBomb, 20<<10, 512, 2),
		opens("zstd frames", "MiB of zeros in as many zstd frames", zstdFrames, 8<<10, 256, 2),
		{Name: "too big", Kind: "MiB of zeros, above --max-layer-size", Make: gzipBomb, Full: 66 << 10, Small: 1 << 10, Refused: "--max-layer-size"},
		{Name: "zstd windows", Kind: "layers with windows of 128 MiB", Make: zstdWindows, Full: 12, Small: 2, Names: andSmall},
		opens("empty gzip members", "empty members", gzipMembers, 2_000_000, 20_000, 1),
		opens("empty zstd frames", "empty frames", emptyFrames, 5_000_000, 50_000, 1),
		opens("skippable frames", "skippable frames", skippables, 10_000_000, 100_000, 1),
		opens("gzip name", "a name in the gzip header, in MiB", gzipName, 256, 4, 1),
		opens("largest sparse file", "a sparse file of 2^63-1 bytes", largest, 1, 1, 2),
	}
}

// smallTar is a layer with the small file alone, and bomb the header of a
// file before it.
func smallTar() []byte {
	var b bytes.Buffer
	t := &Tar{bufio.NewWriter(&b)}
	t.end()
	t.w.Flush()
	return b.Bytes()
}

func bomb(size int64) []byte { return Header{Name: "bomb", Size: size}.bytes() }

// bombTar writes the tar of the bombs: n MiB of zeros and the small file.
func bombTar(n int) func(w *bufio.Writer) {
	return func(w *bufio.Writer) {
		w.Write(bomb(int64(n) << 20))
		writeZeros(w, int64(n)<<20)
		w.Write(smallTar())
	}
}

func gzipBomb(m *Image, n int) {
	const each = 64 // MiB
	member := gzipMember(make([]byte, each<<20))
	m.Raw(ocispec.MediaTypeImageLayerGzip, func(w *bufio.Writer) {
		w.Write(gzipMember(bomb(int64(n) << 20)))
		for range n / each {
			w.Write(member)
		}
		w.Write(gzipMember(smallTar()))
	}, bombTar(n))
}

func zstdBomb(m *Image, n int) {
	m.Raw(ocispec.MediaTypeImageLayerZstd, func(w *bufio.Writer) {
		frame(w, 21)
		raw(w, bomb(int64(n)<<20), false)
		rle(w, int64(n)<<20, false)
		raw(w, smallTar(), true)
	}, bombTar(n))
}

func zstdFrames(m *Image, n int) {
	m.Raw(ocispec.MediaTypeImageLayerZstd, func(w *bufio.Writer) {
		frame(w, 21)
		raw(w, bomb(int64(n)<<20), true)
		for range n {
			frame(w, 21)
			rle(w, 1<<20, true)
		}
		frame(w, 21)
		raw(w, smallTar(), true)
	}, bombTar(n))
}

// zstdWindows are layers whose media type says gzip.
func zstdWindows(m *Image, n int) {
	for i := range n {
		head := Header{Name: string(rune('a' + i)), Size: 24 << 20}.bytes()
		m.Raw(ocispec.MediaTypeImageLayerGzip, func(w *bufio.Writer) {
			frame(w, 27)
			raw(w, head, false)
			rle(w, 24<<20, false)
			raw(w, smallTar(), true)
		}, func(w *bufio.Writer) {
			w.Write(head)
			writeZeros(w, 24<<20)
			w.Write(smallTar())
		})
	}
}

// between writes a layer of the small file with something between its header
// and its content that decodes to nothing.
func between(m *Image, mediaType string, part func(w *bufio.Writer, data []byte), nothing func(w *bufio.Writer)) {
	t := smallTar()
	m.Raw(mediaType, func(w *bufio.Writer) {
		part(w, t[:block])
		nothing(w)
		part(w, t[block:])
	}, func(w *bufio.Writer) { w.Write(t) })
}

func gzipPart(w *bufio.Writer, data []byte) { w.Write(gzipMember(data)) }

func zstdPart(w *bufio.Writer, data []byte) {
	frame(w, 21)
	raw(w, data, true)
}

func gzipMembers(m *Image, n int) {
	empty := gzipMember(nil)
	between(m, ocispec.MediaTypeImageLayerGzip, gzipPart, func(w *bufio.Writer) {
		for range n {
			w.Write(empty)
		}
	})
}

func emptyFrames(m *Image, n int) {
	between(m, ocispec.MediaTypeImageLayerZstd, zstdPart, func(w *bufio.Writer) {
		for range n {
			frame(w, 21)
			raw(w, nil, true)
		}
	})
}

func skippables(m *Image, n int) {
	between(m, ocispec.MediaTypeImageLayerZstd, zstdPart, func(w *bufio.Writer) {
		for range n {
			skippable(w)
		}
	})
}

// gzipName writes one member with the flag FNAME (RFC 1952, section 2.3.1).
func gzipName(m *Image, n int) {
	member := gzipMember(smallTar())
	m.Raw(ocispec.MediaTypeImageLayerGzip, func(w *bufio.Writer) {
		w.Write(member[:3])
		w.WriteByte(member[3] | 8)
		w.Write(member[4:10])
		for range n << 20 {
			w.WriteByte('n')
		}
		w.WriteByte(0)
		w.Write(member[10:])
	}, func(w *bufio.Writer) { w.Write(smallTar()) })
}

// largest is a sparse file, PAX version 0.1, without any data in it.
func largest(m *Image, _ int) {
	m.Gzip(func(t *Tar) {
		t.Pax("GNU.sparse.size", "9223372036854775807", "GNU.sparse.numblocks", "1", "GNU.sparse.map", "9223372036854775807,0")
		t.File("largest", "")
	})
}

// maxSize is the largest size that anybody can claim.
const maxSize = math.MaxInt64
