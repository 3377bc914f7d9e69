package tarscan

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// lineOf shows all that is told of an entry, with its content in runs of equal
// bytes: "a*5".
func lineOf(t *testing.T, tar []byte, e *layerindex.Entry) string {
	t.Helper()
	s := fmt.Sprintf("%c %q %04o %d:%d %d.%09d", e.Type, e.Name, e.Mode, e.UID, e.GID, e.ModSec, e.ModNsec)
	switch e.Type {
	case layerindex.TypeLink, layerindex.TypeSymlink:
		s += fmt.Sprintf(" -> %q", e.Linkname)
	case layerindex.TypeChar, layerindex.TypeBlock:
		s += fmt.Sprintf(" %d,%d", e.Major, e.Minor)
	case layerindex.TypeReg:
		content, err := io.ReadAll(scannedContent(tar, e))
		if err != nil || int64(len(content)) != e.Size {
			t.Fatalf("%q: %d bytes of %d, %v", e.Name, len(content), e.Size, err)
		}
		for len(content) > 0 {
			n := len(content) - len(strings.TrimLeft(string(content), string(content[:1])))
			s += fmt.Sprintf(" %q*%d", content[:1], n)
			content = content[n:]
		}
	}
	for _, x := range e.Xattrs {
		s += fmt.Sprintf(" %s=%q", x.Name, x.Value)
	}
	return s
}

// everyByte is a name of all bytes but NUL and slash, 254 of them, and one more.
func everyByte() string {
	b := []byte{'x'}
	for c := 1; c < 256; c++ {
		if c != '/' {
			b = append(b, byte(c))
		}
	}
	return string(b)
}

// tarLines are what a reader of layers' tars must know, one case for each.
func tarLines() []struct {
	name string
	tar  func(*rawTar)
	want string
} {
	plain := rawHeader{name: "f", flag: '0', magic: magicUstar, mode: "644", mtime: "7"}
	gnu := plain
	gnu.magic = magicGNU
	as := func(h rawHeader, f func(*rawHeader)) rawHeader { f(&h); return h }
	after := func(h rawHeader, body string, records ...string) func(*rawTar) {
		return func(w *rawTar) {
			w.pax(records...)
			w.entry(h, body)
		}
	}
	symlink := as(plain, func(h *rawHeader) { h.flag, h.link = '2', "t" })
	longName, longTarget := strings.Repeat("n/", 80)+"n", strings.Repeat("../", 80)
	path4096 := strings.Repeat(strings.Repeat("p", 255)+"/", 15) + strings.Repeat("p", 256-1) + "/"
	const head, holes = `0 "f" 0644 0:0 7.000000000`, ` "\x00"*512 "a"*512 "\x00"*512 "b"*5 "\x00"*995`
	data := strings.Repeat("a", 512) + "bbbbb"
	return []struct {
		name string
		tar  func(*rawTar)
		want string
	}{
		{"GNU old sparse", func(w *rawTar) {
			w.header(as(gnu, func(h *rawHeader) {
				h.flag, h.size, h.realSize, h.sparse = 'S', octal(len(data)), octal(2536), gnuExtents(512, 512, 1536, 5, 2536, 0)
			}))
			w.body(data)
		}, head + holes},
		{"PAX sparse 0.0", after(plain, data, "GNU.sparse.size", "2536", "GNU.sparse.numblocks", "2",
			"GNU.sparse.offset", "512", "GNU.sparse.numbytes", "512", "GNU.sparse.offset", "1536", "GNU.sparse.numbytes", "5"), head + holes},
		{"PAX sparse 0.1", after(plain, data, "GNU.sparse.name", "f", "GNU.sparse.size", "2536", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "512,512,1536,5"), head + holes},
		{"PAX sparse 1.0", after(plain, "2\n512\n512\n1536\n5\n"+strings.Repeat("\x00", 512-17)+data,
			"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "f", "GNU.sparse.realsize", "2536"), head + holes},
		{"PAX path", after(plain, "", "path", longName), fmt.Sprintf("0 %q 0644 0:0 7.000000000", longName)},
		{"PAX linkpath", after(symlink, "", "linkpath", longTarget), fmt.Sprintf(`2 "f" 0644 0:0 7.000000000 -> %q`, longTarget)},
		{"PAX size", func(w *rawTar) { w.pax("size", "3"); w.header(plain); w.body("ccc") }, head + ` "c"*3`},
		{"PAX uid", after(plain, "", "uid", "70000000"), `0 "f" 0644 70000000:0 7.000000000`},
		{"PAX gid", after(plain, "", "gid", "70000000"), `0 "f" 0644 0:70000000 7.000000000`},
		{"PAX mtime with nanoseconds", after(plain, "", "mtime", "5.000000001"), `0 "f" 0644 0:0 5.000000001`},
		{"PAX mtime negative", after(plain, "", "mtime", "-5.000000001"), `0 "f" 0644 0:0 -6.999999999`},
		{"GNU long name", func(w *rawTar) {
			w.entry(as(gnu, func(h *rawHeader) { h.name, h.flag = "././@LongLink", 'L' }), longName+"\x00")
			w.header(gnu)
		}, fmt.Sprintf("0 %q 0644 0:0 7.000000000", longName)},
		{"GNU long link", func(w *rawTar) {
			w.entry(as(gnu, func(h *rawHeader) { h.name, h.flag = "././@LongLink", 'K' }), longTarget+"\x00")
			w.header(as(symlink, func(h *rawHeader) { h.magic = magicGNU }))
		}, fmt.Sprintf(`2 "f" 0644 0:0 7.000000000 -> %q`, longTarget)},
		{"base-256 numbers", func(w *rawTar) {
			w.header(as(gnu, func(h *rawHeader) {
				h.uid, h.gid, h.size, h.mtime = base256(3000000, 8), base256(4000000, 8), base256(2, 12), base256(1<<40, 12)
			}))
			w.body("dd")
		}, `0 "f" 0644 3000000:4000000 1099511627776.000000000 "d"*2`},
		{"base-256 negative", func(w *rawTar) { w.header(as(gnu, func(h *rawHeader) { h.mtime = base256(-2, 12) })) }, `0 "f" 0644 0:0 -2.000000000`},
		{"global headers ignored", func(w *rawTar) {
			w.paxFlag('g', "path", "g", "uid", "9", "size", "4", "mtime", "9", "SCHILY.xattr.user.g", "g")
			w.header(plain)
		}, head},
		{"hdrcharset", after(plain, "", "hdrcharset", "BINARY", "path", "\xff\xfe", "uname", "\xff"), `0 "\xff\xfe" 0644 0:0 7.000000000`},
		{"hdrcharset of UTF-8", after(plain, "", "hdrcharset", "ISO-IR 10646 2000 UTF-8", "path", "ü"), `0 "ü" 0644 0:0 7.000000000`},
		{"xattrs with binary values", after(plain, "", "SCHILY.xattr.user.b", "\x00\n=\xff\x00", "SCHILY.xattr.user.a=b", "x"),
			head + ` user.a="b=x" user.b="\x00\n=\xff\x00"`},
		{"xattr names as GNU tar and bsdtar encode them", after(plain, "", "SCHILY.xattr.user.a%3Db%25", "x"), head + ` user.a%3Db%25="x"`},
		{"file capabilities", after(plain, "", "SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00"+strings.Repeat("\x00", 12)),
			head + ` security.capability="\x01\x00\x00\x02\x00\x04\x00\x00` + strings.Repeat(`\x00`, 12) + `"`},
		{"character device", func(w *rawTar) {
			w.header(as(plain, func(h *rawHeader) { h.flag, h.major, h.minor = '3', "0000777\x00", "7777777\x00" }))
		}, `3 "f" 0644 0:0 7.000000000 511,2097151`},
		{"block device", func(w *rawTar) {
			w.header(as(gnu, func(h *rawHeader) { h.flag, h.major, h.minor = '4', base256(4095, 8), base256(1<<20-1, 8) }))
		}, `4 "f" 0644 0:0 7.000000000 4095,1048575`},
		{"uids to 2^32-2", after(plain, "", "uid", "4294967294", "gid", "4294967294"), `0 "f" 0644 4294967294:4294967294 7.000000000`},
		{"v7 directory with a trailing slash", func(w *rawTar) {
			w.header(rawHeader{name: "d/", mode: "755", mtime: "7"})
			w.header(rawHeader{name: "d/f", mode: "644", mtime: "7"})
		}, `5 "d/" 0755 0:0 7.000000000, 0 "d/f" 0644 0:0 7.000000000`},
		{"contiguous file", func(w *rawTar) { w.entry(as(plain, func(h *rawHeader) { h.flag = '7' }), "ee") }, head + ` "e"*2`},
		{"names of any bytes", after(plain, "", "path", everyByte()), fmt.Sprintf("0 %q 0644 0:0 7.000000000", everyByte())},
		{"names of any bytes, GNU", func(w *rawTar) {
			w.entry(as(gnu, func(h *rawHeader) { h.flag = 'L' }), everyByte()+"\x00")
			w.header(gnu)
		}, fmt.Sprintf("0 %q 0644 0:0 7.000000000", everyByte())},
		{"paths to 4,096", after(as(plain, func(h *rawHeader) { h.flag = '5' }), "", "path", path4096), fmt.Sprintf("5 %q 0644 0:0 7.000000000", path4096)},
		{"garbage after the end ignored", func(w *rawTar) { w.header(plain); w.end(); w.WriteString("\x01garbage"); w.header(symlink) }, head},
	}
}

// TestTarReader has one case for each thing that layers' tars have in them.
// Several members and frames of a compressed layer are TestBuild's.
func TestTarReader(t *testing.T) {
	if n := len(everyByte()); n != 255 {
		t.Fatalf("the name of every byte has %d", n)
	}
	for _, c := range tarLines() {
		t.Run(c.name, func(t *testing.T) {
			var w rawTar
			c.tar(&w)
			w.end()
			entries, err := scanTar(w.Bytes(), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range entries {
				got = append(got, lineOf(t, w.Bytes(), &entries[i]))
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("\n got %s\nwant %s", s, c.want)
			}
		})
	}
}

// TestTarReaderRefuses: what is refused names the entry and the offset.
func TestTarReaderRefuses(t *testing.T) {
	file := rawHeader{name: "f", flag: '0', magic: magicUstar, size: octal(1000)}
	for _, c := range []struct {
		name  string
		tar   func(*rawTar)
		entry string
		off   int64
		short bool // the tar ends too early
	}{
		{"an entry after a single zero block", func(w *rawTar) { w.Write(make([]byte, blockSize)); w.header(file) }, "f", 1024, false},
		{"a header that claims more than there is", func(w *rawTar) { w.header(file); w.WriteString("content") }, "f", 1031, true},
		{"a header that claims gigabytes", func(w *rawTar) {
			h := file
			h.size = base256(1<<60, 12)
			w.header(h)
			w.body("content")
		}, "f", 1536, true},
		{"a sparse file that claims more than there is", func(w *rawTar) {
			w.pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "5000")
			w.header(file)
			w.body("1\n0\n488\n")
		}, "s", 2560, true},
		{"a pax header that claims more than there is", func(w *rawTar) {
			w.header(rawHeader{name: "pax", flag: 'x', magic: magicUstar, size: octal(600)})
			w.body("11 path=xy\n")
		}, "pax", 1536, true},
		{"half a header", func(w *rawTar) { w.WriteString("f") }, "", 513, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w rawTar
			w.header(rawHeader{name: "before", flag: '0', magic: magicUstar})
			c.tar(&w)
			_, err := scanTar(w.Bytes(), 0, nil)
			var format *layerindex.FormatError
			if !errors.As(err, &format) || !errors.Is(err, layerindex.ErrTar) || errors.Is(err, io.ErrUnexpectedEOF) != c.short {
				t.Fatalf("got error %v, want a *FormatError", err)
			}
			if format.Entry != c.entry || format.Off != c.off {
				t.Errorf("got entry %q at %d, want %q at %d: %v", format.Entry, format.Off, c.entry, c.off, err)
			}
		})
	}
}
