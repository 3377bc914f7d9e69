package tarscan

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// scanTar scans data in pieces of the given size, 0 for all at once. The
// entries are the test's own.
func scanTar(data []byte, piece int, opts *Options) ([]layerindex.Entry, error) {
	var entries []layerindex.Entry
	s := New(func(e *layerindex.Entry) error {
		c := *e
		c.Xattrs, c.Sparse = slices.Clone(e.Xattrs), slices.Clone(e.Sparse)
		entries = append(entries, c)
		return nil
	}, opts)
	if piece == 0 {
		piece = max(1, len(data))
	}
	buf := make([]byte, piece)
	for rest := data; len(rest) > 0; {
		n := copy(buf, rest)
		rest = rest[n:]
		if _, err := s.Write(buf[:n]); err != nil {
			return entries, err
		}
		clear(buf) // a reference kept to it would show
	}
	return entries, s.Close()
}

// scannedContent reads an entry's content from the tar as a mount would.
func scannedContent(tar []byte, e *layerindex.Entry) io.Reader {
	if e.Sparse == nil {
		return bytes.NewReader(tar[e.Off : e.Off+e.Size])
	}
	var parts []io.Reader
	at, off := e.Off, int64(0)
	for _, x := range e.Sparse {
		parts = append(parts, io.LimitReader(zeros{}, x.Off-off), bytes.NewReader(tar[at:at+x.Size]))
		at, off = at+x.Size, x.Off+x.Size
	}
	return io.MultiReader(append(parts, io.LimitReader(zeros{}, e.Size-off))...)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// rawTar builds tars block by block.
type rawTar struct{ bytes.Buffer }

const (
	magicUstar = "ustar\x0000"
	magicGNU   = "ustar  \x00"
)

// A rawHeader is written as it is. Numbers are the bytes of their fields.
type rawHeader struct {
	name, link, prefix, magic string
	flag                      byte
	mode, uid, gid            string
	size, mtime               string
	major, minor              string
	sparse, realSize          string // old GNU
	extended                  bool
	sum                       func(b []byte) int // nil: of unsigned bytes
}

func (w *rawTar) header(h rawHeader) {
	b := make([]byte, blockSize)
	put := func(off, n int, s string) { copy(b[off:off+n], s) }
	put(0, 100, h.name)
	put(100, 8, h.mode)
	put(108, 8, h.uid)
	put(116, 8, h.gid)
	put(124, 12, h.size)
	put(136, 12, h.mtime)
	b[156] = h.flag
	put(157, 100, h.link)
	put(257, 8, h.magic)
	put(329, 8, h.major)
	put(337, 8, h.minor)
	put(345, 155, h.prefix)
	if h.sparse != "" {
		put(386, 96, h.sparse)
		put(483, 12, h.realSize)
	}
	if h.extended {
		b[482] = 1
	}
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	if h.sum != nil {
		sum = h.sum(b)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	w.Write(b)
}

// entry writes a header with the size of body, and body.
func (w *rawTar) entry(h rawHeader, body string) {
	h.size = octal(len(body))
	w.header(h)
	w.body(body)
}

func (w *rawTar) body(s string) {
	w.WriteString(s)
	w.Write(make([]byte, -len(s)&(blockSize-1)))
}

func (w *rawTar) end() { w.Write(make([]byte, 2*blockSize)) }

// pax writes an extended header; records are key, value, key, value.
func (w *rawTar) pax(records ...string) { w.paxFlag('x', records...) }

func (w *rawTar) paxFlag(flag byte, records ...string) {
	var body string
	for i := 0; i < len(records); i += 2 {
		body += paxRecord(records[i], records[i+1])
	}
	w.entry(rawHeader{name: "PaxHeaders/x", flag: flag, magic: magicUstar}, body)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(key)+len(value)+3+len(fmt.Sprint(n)) {
		n = len(key) + len(value) + 3 + len(fmt.Sprint(n))
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

func octal(n int) string { return fmt.Sprintf("%011o", n) }

func base256(n int64, size int) string {
	b := make([]byte, size)
	for i := size - 1; i >= 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	b[0] |= 0x80
	return string(b)
}

// gnuExtents packs offsets and sizes as old GNU headers have them.
func gnuExtents(numbers ...int) string {
	var s string
	for _, n := range numbers {
		s += octal(n) + "\x00"
	}
	return s
}

// A wantEntry is an Entry, but for what follows from its content.
type wantEntry struct {
	layerindex.Entry
	content string
}

// featureTar is a tar with one of everything, and what is in it.
func featureTar() ([]byte, []wantEntry) {
	var w rawTar
	var want []wantEntry
	add := func(e layerindex.Entry, content string) {
		if e.Type == layerindex.TypeReg {
			e.Size = int64(len(content))
			e.Off = int64(w.Len())
		}
		want = append(want, wantEntry{e, content})
	}
	plain := rawHeader{flag: '0', magic: magicUstar, mode: "0100644\x00", uid: "  1750 \x00", gid: "0000062\x00", mtime: "00000001750\x00"}
	owned := layerindex.Entry{Type: layerindex.TypeReg, Mode: 0o644, UID: 0o1750, GID: 0o62, ModSec: 0o1750}
	with := func(h rawHeader, f func(*rawHeader)) rawHeader { f(&h); return h }
	as := func(e layerindex.Entry, f func(*layerindex.Entry)) layerindex.Entry { f(&e); return e }

	add(layerindex.Entry{Type: layerindex.TypeDir, Name: "v7/"}, "")
	w.header(rawHeader{name: "v7/", size: octal(12345)})

	w.header(rawHeader{name: "v7/file", size: "4"})
	add(layerindex.Entry{Type: layerindex.TypeReg, Name: "v7/file"}, "data")
	w.body("data")

	w.header(with(plain, func(h *rawHeader) { h.prefix, h.name, h.size = "very/long", "na\xffme", octal(5) }))
	add(as(owned, func(e *layerindex.Entry) { e.Name = "very/long/na\xffme" }), "ustar")
	w.body("ustar")

	w.header(with(plain, func(h *rawHeader) { h.name, h.flag = "cont", '7' }))
	add(as(owned, func(e *layerindex.Entry) { e.Name = "cont" }), "")

	w.header(with(plain, func(h *rawHeader) { h.name = "posix-dir/" }))
	add(as(owned, func(e *layerindex.Entry) { e.Name, e.Type = "posix-dir/", layerindex.TypeDir }), "")

	long := strings.Repeat("d/", 60) + "long name"
	target := strings.Repeat("../", 60) + "target"
	gnu := with(plain, func(h *rawHeader) { h.magic = magicGNU })
	w.entry(with(gnu, func(h *rawHeader) { h.name, h.flag = "././@LongLink", 'L' }), long+"\x00")
	w.entry(with(gnu, func(h *rawHeader) { h.name, h.flag = "././@LongLink", 'K' }), target+"\x00")
	w.header(with(gnu, func(h *rawHeader) { h.name, h.link, h.flag = long[:100], target[:100], '2' }))
	add(as(owned, func(e *layerindex.Entry) { e.Name, e.Linkname, e.Type = long, target, layerindex.TypeSymlink }), "")

	w.header(rawHeader{name: "base256", flag: '0', magic: magicGNU, uid: base256(4294967294, 8), gid: base256(1<<31, 8), size: base256(3, 12), mtime: base256(-5, 12)})
	add(layerindex.Entry{Type: layerindex.TypeReg, Name: "base256", UID: 4294967294, GID: 1 << 31, ModSec: -5}, "256")
	w.body("256")

	w.paxFlag('g', "path", "global", "mtime", "7", "comment", "ignored")
	w.pax("path", "pax/\xc3\xa9", "linkpath", "pax/target", "uid", "4000000000", "gid", "3000000000", "mtime", "-1000.500000001999",
		"uname", "x", "atime", "1", "hdrcharset", "BINARY", "SCHILY.xattr.user.b", "one\x00two\n=", "SCHILY.xattr.user.a", "",
		"SCHILY.xattr.user.b", "\x00\xff", "LIBARCHIVE.xattr.user.c", "AAAA", "path", "pax/\xff", "size", "77")
	w.header(with(plain, func(h *rawHeader) { h.flag = '1' }))
	add(layerindex.Entry{Type: layerindex.TypeLink, Name: "pax/\xff", Linkname: "pax/target", Mode: 0o644, UID: 4000000000, GID: 3000000000, ModSec: -1001, ModNsec: 499999999,
		Xattrs: []layerindex.Xattr{{Name: "user.a"}, {Name: "user.b", Value: "\x00\xff"}}}, "")

	w.pax("size", "6", "mtime", "1.5", "path", "")
	w.header(with(plain, func(h *rawHeader) { h.name = "pax-size" }))
	add(as(owned, func(e *layerindex.Entry) { e.Name, e.ModSec, e.ModNsec = "pax-size", 1, 500000000 }), "sixsix")
	w.body("sixsix")

	for i, typ := range []layerindex.Type{layerindex.TypeChar, layerindex.TypeBlock, layerindex.TypeFifo, layerindex.TypeDir} {
		name := fmt.Sprintf("dev%d", i)
		w.header(rawHeader{name: name, flag: byte(typ), magic: magicUstar, mode: "7777", major: "0000010\x00", minor: "0000003\x00", size: octal(600)})
		e := layerindex.Entry{Type: typ, Name: name, Mode: 0o7777}
		if typ == layerindex.TypeChar || typ == layerindex.TypeBlock {
			e.Major, e.Minor = 8, 3
		}
		add(e, "")
	}

	content := func(n int, extents ...layerindex.Extent) (string, string) {
		file, stored := make([]byte, n), ""
		for i, x := range extents {
			copy(file[x.Off:], strings.Repeat(string(rune('a'+i)), int(x.Size)))
			stored += string(file[x.Off : x.Off+x.Size])
		}
		return string(file), stored
	}
	sparse := func(name string, extents ...layerindex.Extent) layerindex.Entry {
		return as(owned, func(e *layerindex.Entry) { e.Name, e.Sparse = name, append([]layerindex.Extent{}, extents...) })
	}

	six := []layerindex.Extent{{Off: 512, Size: 5}, {Off: 1024, Size: 7}, {Off: 1536, Size: 1}, {Off: 2048, Size: 1}, {Off: 2560, Size: 2}, {Off: 3000, Size: 3}}
	file, stored := content(4000, six...)
	w.header(with(gnu, func(h *rawHeader) {
		h.name, h.flag, h.size, h.realSize, h.extended = "old-gnu", 'S', octal(len(stored)), octal(4000), true
		h.sparse = gnuExtents(512, 5, 1024, 7, 1536, 1, 2048, 1)
	}))
	extension := gnuExtents(2560, 2, 3000, 1, 3001, 2, 4000, 0)
	w.body(extension)
	add(sparse("old-gnu", six...), file)
	w.body(stored)

	two := []layerindex.Extent{{Off: 2, Size: 5}, {Off: 100, Size: 3}}
	file, stored = content(200, two...)
	w.pax("GNU.sparse.size", "200", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "2", "GNU.sparse.numbytes", "5",
		"GNU.sparse.offset", "100", "GNU.sparse.numbytes", "3")
	w.header(with(plain, func(h *rawHeader) { h.name, h.size = "pax00", octal(8) }))
	add(sparse("pax00", two...), file)
	w.body(stored)

	w.pax("GNU.sparse.name", "pax01", "GNU.sparse.size", "200", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "2,5,100,3")
	w.header(with(plain, func(h *rawHeader) { h.name, h.size = "GNUSparseFile/x", octal(8) }))
	add(sparse("pax01", two...), file)
	w.body(stored)

	w.pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "pax10", "GNU.sparse.realsize", "200")
	w.header(with(plain, func(h *rawHeader) { h.name, h.size = "GNUSparseFile/x", octal(1024+8) }))
	w.body("152\n" + strings.Repeat("0\n0\n", 150) + "2\n5\n100\n3\n") // two blocks
	add(sparse("pax10", two...), file)
	w.body(stored)

	w.pax("GNU.sparse.size", "300", "GNU.sparse.numblocks", "1", "GNU.sparse.map", "300,0")
	w.header(with(plain, func(h *rawHeader) { h.name = "hole" }))
	add(sparse("hole"), string(make([]byte, 300)))

	w.pax("GNU.sparse.size", "4", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,2,2,2")
	w.header(with(plain, func(h *rawHeader) { h.name, h.size = "dense", octal(4) }))
	add(as(owned, func(e *layerindex.Entry) { e.Name = "dense" }), "full")
	w.body("full")

	w.header(with(plain, func(h *rawHeader) { h.name, h.size = "last", octal(513) }))
	add(as(owned, func(e *layerindex.Entry) { e.Name = "last" }), strings.Repeat("z", 513))
	w.body(strings.Repeat("z", 513))
	w.end()
	w.WriteString("garbage")
	return w.Bytes(), want
}

func TestScannerFeatures(t *testing.T) {
	tar, want := featureTar()
	for _, piece := range []int{0, 1, 7, 511, 512, 513, 4096} {
		got, err := scanTar(tar, piece, nil)
		if err != nil {
			t.Fatalf("pieces of %d: %v", piece, err)
		}
		if len(got) != len(want) {
			t.Fatalf("pieces of %d: %d entries, want %d", piece, len(got), len(want))
		}
		for i, g := range got {
			w := want[i].Entry
			if g.Type == layerindex.TypeReg {
				b, err := io.ReadAll(scannedContent(tar, &g))
				if err != nil || string(b) != want[i].content {
					t.Errorf("pieces of %d: content of %q = %q, %v, want %q", piece, g.Name, b, err, want[i].content)
				}
				if w.Sparse == nil {
					w.Digest, w.HasDigest = sha256.Sum256([]byte(want[i].content)), true
				}
			}
			if !reflect.DeepEqual(g, w) {
				t.Errorf("pieces of %d: entry %d:\n got %+v\nwant %+v", piece, i, g, w)
			}
		}
	}
}

func TestScannerNoDigests(t *testing.T) {
	tar, _ := featureTar()
	got, err := scanTar(tar, 100, &Options{NoDigests: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got {
		if e.HasDigest || e.Digest != [32]byte{} {
			t.Errorf("%q has a digest: %+v", e.Name, e)
		}
	}
}

func TestScannerEmitError(t *testing.T) {
	tar, _ := featureTar()
	stop, calls := errors.New("stop"), 0
	s := New(func(*layerindex.Entry) error { calls++; return stop }, nil)
	for range 2 {
		if _, err := s.Write(tar); !errors.Is(err, stop) {
			t.Errorf("Write = %v, want what emit returned", err)
		}
	}
	if err := s.Close(); !errors.Is(err, stop) {
		t.Errorf("Close = %v, want what emit returned", err)
	}
	if calls != 1 {
		t.Errorf("emit called %d times, want 1", calls)
	}
}

func TestScannerClosed(t *testing.T) {
	s := New(func(*layerindex.Entry) error { return nil }, nil)
	if err := s.Close(); err != nil {
		t.Errorf("Close of an empty layer = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := s.Write([]byte{0}); err == nil {
		t.Error("Write after Close succeeded")
	}
}
