package tarscan

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// refusals are tars that are refused, and what the error names.
func refusals() []refusal {
	plain := rawHeader{name: "x", flag: '0', magic: magicUstar}
	with := func(f func(*rawHeader)) func(*rawTar) {
		return func(w *rawTar) {
			h := plain
			f(&h)
			w.header(h)
		}
	}
	pax := func(records ...string) func(*rawTar) {
		return func(w *rawTar) {
			w.pax(records...)
			w.header(plain)
		}
	}
	record := func(body string) func(*rawTar) {
		return func(w *rawTar) { w.entry(rawHeader{name: "pax", flag: 'x', magic: magicUstar}, body) }
	}
	body := func(size int, text string) func(*rawTar) {
		return func(w *rawTar) {
			w.pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", fmt.Sprint(size))
			w.entry(plain, text)
		}
	}
	old := func(size, real int, extents ...int) func(*rawTar) {
		return func(w *rawTar) {
			w.header(rawHeader{name: "x", flag: 'S', magic: magicGNU, size: octal(size), realSize: octal(real), sparse: gnuExtents(extents...)})
			w.Write(make([]byte, size))
		}
	}
	list := []refusal{
		{"checksum", func(w *rawTar) { w.header(plain); w.Bytes()[w.Len()-blockSize] = 'y' }, "", 0},
		{"mode", with(func(h *rawHeader) { h.mode = "0000a" }), "x", 0},
		{"uid", with(func(h *rawHeader) { h.uid = "12 3" }), "x", 0},
		{"uid negative", with(func(h *rawHeader) { h.uid = base256(-1<<31-1, 8) }), "x", 0},
		{"gid", with(func(h *rawHeader) { h.gid = base256(1<<32, 8) }), "x", 0},
		{"mtime", with(func(h *rawHeader) { h.mtime = "\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00" }), "x", 0},
		{"size negative", with(func(h *rawHeader) { h.size = base256(-1, 12) }), "x", 0},
		{"size overflow", with(func(h *rawHeader) { h.size = base256(1<<63-1, 12) }), "x", 0},
		{"devmajor", with(func(h *rawHeader) { h.flag = '3'; h.major = base256(1<<40, 8) }), "x", 0},
		{"devminor negative", with(func(h *rawHeader) { h.flag = '4'; h.minor = base256(-3, 8) }), "x", 0},
		{"pax size negative", pax("size", "-1"), "x", 1024},
		{"pax size", pax("size", "0x1"), "x", 1024},
		{"pax size overflow", pax("size", "9223372036854775808"), "x", 1024},
		{"pax uid", pax("uid", "4294967296"), "x", 1024},
		{"pax uid below 32 bits", pax("uid", "-2147483649"), "x", 1024},
		{"pax gid far below", pax("gid", "-9223372036854775808"), "x", 1024},
		{"uid with a sign in octal", with(func(h *rawHeader) { h.uid = "-000002" }), "x", 0},
		{"pax uid no number", pax("uid", "root"), "x", 1024},
		{"pax gid", pax("gid", "1.5"), "x", 1024},
		{"pax mtime", pax("mtime", "1.x"), "x", 1024},
		{"pax atime", pax("atime", "x"), "x", 1024},
		{"pax ctime", pax("ctime", "1.-1"), "x", 1024},
		{"pax mtime overflow", pax("mtime", "-9223372036854775808.5"), "x", 1024},
		{"pax path with NUL", pax("path", "a\x00b"), "PaxHeaders/x", 512},
		{"pax sparse name with NUL", pax("GNU.sparse.name", "a\x00b", "GNU.sparse.map", "0,0", "GNU.sparse.numblocks", "1"), "a\x00b", 1024},
		{"second pax record", pax("comment", "x", "linkpath", "\x00"), "PaxHeaders/x", 512 + 13},
		{"pax without length", record("path=x\n"), "pax", 512},
		{"pax length too big", record("99 path=x\n"), "pax", 512},
		{"pax length too small", record("1 path=x\n"), "pax", 512},
		{"pax length negative", record("-9 path=x\n"), "pax", 512},
		{"pax without line feed", record("9 path=xy"), "pax", 512},
		{"pax without equal sign", record("9 path:x\n"), "pax", 512},
		{"pax without keyword", record("5 =x\n"), "pax", 512},
		{"pax keyword with NUL", record("8 p\x00h=x\n"), "pax", 512},
		{"global", func(w *rawTar) { w.entry(rawHeader{name: "g", flag: 'g', magic: magicUstar}, "x") }, "g", 512},
		{"pax too big", with(func(h *rawHeader) { h.flag = 'x'; h.size = octal(maxMeta + 1) }), "x", 0},
		{"long name too big", with(func(h *rawHeader) { h.flag = 'L'; h.size = octal(maxMeta + 1) }), "x", 0},
		{"long link size negative", with(func(h *rawHeader) { h.flag = 'K'; h.size = base256(-2, 12) }), "x", 0},
		{"part of a name", pax("path", "a/"+strings.Repeat("b", 256)+"/c"), "a/" + strings.Repeat("b", 256) + "/c", 1024},
		{"name", pax("path", strings.Repeat("abc/", 1024)+"d"), strings.Repeat("abc/", 16) + "...", 512 + 9*512},
		{"target", func(w *rawTar) {
			w.pax("linkpath", strings.Repeat("t", 4096))
			w.header(rawHeader{name: "x", flag: '2', magic: magicUstar})
		}, "x...", 512 + 9*512},
		{"target of a hard link", func(w *rawTar) {
			w.pax("linkpath", "./"+strings.Repeat("abc/", 1024)+"d")
			w.header(rawHeader{name: "x", flag: '1', magic: magicUstar})
		}, "x...", 512 + 9*512},
		{"name of many dots", pax("path", strings.Repeat("./", 4096)+"d"), strings.Repeat("./", 32) + "...", 512 + 17*512},
		{"lone zero block, H07", func(w *rawTar) { w.Write(make([]byte, 512)); w.header(plain) }, "x", 512},
		{"garbage after a lone zero block", func(w *rawTar) { w.Write(make([]byte, 512)); w.body("x") }, "", 512},
		{"sparse without numblocks", pax("GNU.sparse.major", "0", "GNU.sparse.minor", "1"), "x", 1024},
		{"sparse without map", pax("GNU.sparse.major", "0", "GNU.sparse.minor", "1", "GNU.sparse.numblocks", "0", "size", "1"), "x", 1024},
		{"size below zero in spite of a record", func(w *rawTar) {
			w.pax("size", "0")
			w.header(rawHeader{name: "x", flag: '0', size: base256(-1, 12)})
		}, "x", 1024},
		{"sparse old directory", func(w *rawTar) {
			w.pax("GNU.sparse.name", "f", "GNU.sparse.size", "0", "GNU.sparse.map", "0,0", "GNU.sparse.numblocks", "1")
			w.header(rawHeader{name: "d/"})
		}, "d/", 1024},
		{"sparse size", pax("GNU.sparse.size", "-1", "GNU.sparse.map", "0,0"), "x", 1024},
		{"sparse map number", pax("GNU.sparse.size", "10", "GNU.sparse.map", "0,a", "GNU.sparse.numblocks", "1"), "x", 1024},
		{"sparse map odd", pax("GNU.sparse.size", "10", "GNU.sparse.map", "0,0,5", "GNU.sparse.numblocks", "1"), "x", 1024},
		{"sparse map shorter", pax("GNU.sparse.size", "10", "GNU.sparse.map", "0,0", "GNU.sparse.numblocks", "2"), "x", 1024},
		{"sparse numblocks", pax("GNU.sparse.size", "10", "GNU.sparse.map", "0,0"), "x", 1024},
		{"sparse map stored size", pax("GNU.sparse.size", "10", "GNU.sparse.map", "0,5", "GNU.sparse.numblocks", "1"), "x", 1024},
		{"sparse records out of turn", pax("GNU.sparse.numbytes", "5"), "PaxHeaders/x", 512},
		{"sparse record of two numbers", pax("GNU.sparse.offset", "5,5"), "PaxHeaders/x", 512},
		{"sparse directory", func(w *rawTar) {
			w.pax("GNU.sparse.size", "10", "GNU.sparse.map", "10,0", "GNU.sparse.numblocks", "1")
			w.header(rawHeader{name: "d", flag: '5', magic: magicUstar})
		}, "d", 1024},
		{"sparse body number", body(9, "1\n0\nx\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body negative", body(9, "1\n-1\n0\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body empty line", body(9, "1\n\n0\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body signs", body(9, "1\n+-0\n0\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body lone sign", body(9, "1\n+\n0\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body below zero", body(9, "-1\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body overflow", body(9, "1\n9223372036854775808\n0\n"+strings.Repeat("\x00", 512)), "x", 1536},
		{"sparse body endless number", body(9, strings.Repeat("0", 2048)), "x", 1024},
		{"sparse body map too big", body(9, "1\n0\n"+strings.Repeat("0", 2*maxMeta)), "x", 1536 + maxMeta},
		{"sparse body cut", body(9, "1000\n"+strings.Repeat("0\n", 254)), "x", 1024},
		{"old sparse map too big", func(w *rawTar) {
			w.header(rawHeader{name: "x", flag: 'S', magic: magicGNU, realSize: octal(9), sparse: gnuExtents(0, 0), extended: true})
			for range 2049 {
				w.body(strings.Repeat("\x00", 504) + "\x01")
			}
		}, "x", 512 + maxMeta},
		{"old sparse, not GNU", with(func(h *rawHeader) { h.flag = 'S' }), "x", 0},
		{"old sparse, size", func(w *rawTar) {
			w.header(rawHeader{name: "x", flag: 'S', magic: magicGNU, realSize: base256(-1, 12), sparse: gnuExtents(0, 0)})
		}, "x", 0},
		{"old sparse overlap", old(10, 100, 0, 5, 4, 5), "x", 0},
		{"old sparse descending", old(10, 100, 50, 5, 4, 5), "x", 0},
		{"old sparse past the end", old(10, 100, 0, 5, 96, 5), "x", 0},
		{"old sparse overflow", func(w *rawTar) {
			w.header(rawHeader{name: "x", flag: 'S', magic: magicGNU, realSize: octal(9), sparse: base256(1, 12) + base256(1<<63-1, 12)})
		}, "x", 0},
		{"old sparse, number", func(w *rawTar) {
			w.header(rawHeader{name: "x", flag: 'S', magic: magicGNU, realSize: octal(9), sparse: "00000000009\x00" + octal(0)})
		}, "x", 0},
		{"old sparse stored size", old(11, 100, 0, 5, 50, 5), "x", 0},
	}
	for _, flag := range "8ADIMNVXZaE\xff" {
		list = append(list, refusal{fmt.Sprintf("typeflag %q", flag), with(func(h *rawHeader) { h.flag = byte(flag) }), "x", 0})
	}
	return list
}

// longestPath has 4,096 bytes.
var longestPath = strings.Repeat(strings.Repeat("p", 255)+"/", 15) + strings.Repeat("p", 254) + "/q"

type refusal struct {
	name  string
	tar   func(*rawTar)
	entry string
	off   int64
}

func TestScannerRefuses(t *testing.T) {
	for _, c := range refusals() {
		t.Run(c.name, func(t *testing.T) {
			var w rawTar
			w.entry(rawHeader{name: "before", flag: '0', magic: magicUstar}, "")
			c.tar(&w)
			w.end()
			for _, piece := range []int{0, 1, 513} {
				got, err := scanTar(w.Bytes(), piece, nil)
				var format *layerindex.FormatError
				if !errors.As(err, &format) || !errors.Is(err, layerindex.ErrTar) {
					t.Fatalf("error %v, entries %+v, want a *FormatError", err, got)
				}
				if format.Entry != c.entry || format.Off != c.off+512 {
					t.Errorf("%v\n got entry %q at %d\nwant entry %q at %d", err, format.Entry, format.Off, c.entry, c.off+512)
				}
				if len(got) != 1 {
					t.Errorf("%d entries before the error, want 1", len(got))
				}
			}
		})
	}
}

// Owners below zero are those of the same 32 bits.
func TestScannerOwners(t *testing.T) {
	for id, want := range map[int64]uint32{
		0: 0, -1: 4294967295, -2: 4294967294, -1000: 4294966296, math.MinInt32: 1 << 31, 1 << 31: 1 << 31, 4294967294: 4294967294, 4294967295: 4294967295,
	} {
		for name, compose := range map[string]func(*rawTar){
			"base 256": func(w *rawTar) {
				w.header(rawHeader{name: "x", magic: magicGNU, uid: base256(id, 8), gid: base256(id, 8)})
			},
			"pax": func(w *rawTar) {
				w.pax("uid", fmt.Sprint(id), "gid", fmt.Sprint(id))
				w.header(rawHeader{name: "x", magic: magicUstar})
			},
		} {
			var w rawTar
			compose(&w)
			w.end()
			var entries []layerindex.Entry
			s := New(func(e *layerindex.Entry) error { entries = append(entries, *e); return nil }, nil)
			_, err := s.Write(w.Bytes())
			if err != nil || len(entries) != 1 || entries[0].UID != want || entries[0].GID != want {
				t.Errorf("%d in %s: got %v, error %v, want %d", id, name, entries, err, want)
			}
			if kind, diff := compareReaders(w.Bytes()); kind != agreed || diff != "" {
				t.Errorf("%d in %s: archive/tar reads another tar: %s %s", id, name, kind, diff)
			}
		}
	}
}

func TestScannerAccepts(t *testing.T) {
	header := func(h rawHeader) func(*rawTar) { return func(w *rawTar) { w.header(h) } }
	signed := func(b []byte) int {
		sum := 0
		for _, c := range b {
			sum += int(int8(c))
		}
		return sum
	}
	for _, c := range []struct {
		name string
		tar  func(*rawTar)
		want string
	}{
		{"empty, H02", func(*rawTar) {}, ""},
		{"only the end, H01", (*rawTar).end, ""},
		{"one zero block", func(w *rawTar) { w.Write(make([]byte, 512)) }, ""},
		{"no end, H04", header(rawHeader{name: "a"}), `0 "a" 0`},
		{"one zero block after an entry", func(w *rawTar) { w.header(rawHeader{name: "a"}); w.Write(make([]byte, 512)) }, `0 "a" 0`},
		{"garbage after the end, H05", func(w *rawTar) { w.end(); w.header(rawHeader{name: "a"}); w.WriteString("x") }, ""},
		{"no padding", func(w *rawTar) { w.header(rawHeader{name: "a", size: "1"}); w.WriteString("x") }, `0 "a" 1`},
		{"part of the padding", func(w *rawTar) { w.header(rawHeader{name: "a", size: "1"}); w.WriteString("x\x00\x00") }, `0 "a" 1`},
		{"pax header before nothing", func(w *rawTar) { w.pax("path", "x") }, ""},
		{"signed checksum", header(rawHeader{name: "\xff\xfe", sum: signed}), `0 "\xff\xfe" 0`},
		{"empty name", header(rawHeader{}), `0 "" 0`},
		{"name of 4096 bytes", func(w *rawTar) {
			w.entry(rawHeader{flag: 'L', magic: magicGNU}, strings.Repeat(strings.Repeat("n", 255)+"/", 16))
			w.header(rawHeader{flag: '5', magic: magicGNU})
		}, fmt.Sprintf(`5 %q 0`, strings.Repeat(strings.Repeat("n", 255)+"/", 16))},
		{"path of 4096 bytes with ./ before and a slash behind", func(w *rawTar) {
			w.pax("path", "./"+longestPath+"/")
			w.header(rawHeader{flag: '5', magic: magicUstar})
		}, fmt.Sprintf(`5 %q 0`, "./"+longestPath+"/")},
		{"hard link to a path of 4096 bytes", func(w *rawTar) {
			w.pax("linkpath", "./"+longestPath)
			w.header(rawHeader{name: "a", flag: '1', magic: magicUstar})
		}, `1 "a" 0`},
		{"file with a slash and content", func(w *rawTar) { w.entry(rawHeader{name: "a/", flag: '0'}, "x") }, `0 "a/" 1`},
		{"file without content and with a slash, F12", header(rawHeader{name: "a/", flag: '0'}), `5 "a/" 0`},
		{"contiguous file, G06", func(w *rawTar) { w.entry(rawHeader{name: "a", flag: '7'}, "x") }, `0 "a" 1`},
		{"hard link with a size", header(rawHeader{name: "a", flag: '1', size: octal(9)}), `1 "a" 0`},
		{"symlink with a negative size", header(rawHeader{name: "a", flag: '2', size: base256(-9, 12)}), `2 "a" 0`},
		{"NUL in a name that no sparse file has", func(w *rawTar) { w.pax("GNU.sparse.name", "a\x00b"); w.header(rawHeader{name: "a"}) }, `0 "a" 0`},
		{"sparse name of what is not sparse", func(w *rawTar) {
			w.pax("GNU.sparse.name", "usr/bin/good")
			w.entry(rawHeader{name: "usr/bin/evil", flag: '0', magic: magicUstar}, "x")
		}, `0 "usr/bin/evil" 1`},
		{"sparse name after a long name of what is not sparse", func(w *rawTar) {
			w.pax("GNU.sparse.name", "good", "path", "path")
			w.entry(rawHeader{flag: 'L', magic: magicGNU}, "long")
			w.entry(rawHeader{name: "a", flag: '0', magic: magicUstar}, "x")
		}, `0 "long" 1`},
		{"sparse name of a symlink", func(w *rawTar) {
			w.pax("GNU.sparse.name", "good", "GNU.sparse.realsize", "9")
			w.header(rawHeader{name: "evil", flag: '2', link: "t", magic: magicUstar})
		}, `2 "evil" 0`},
		{"sparse sizes of what is not sparse", func(w *rawTar) {
			w.pax("GNU.sparse.size", "9", "GNU.sparse.realsize", "8", "GNU.sparse.numblocks", "1")
			w.entry(rawHeader{name: "a", flag: '0', magic: magicUstar}, "xy")
		}, `0 "a" 2`},
		{"sparse version that is not known", func(w *rawTar) {
			w.pax("GNU.sparse.major", "2", "GNU.sparse.minor", "0", "GNU.sparse.name", "good", "GNU.sparse.map", "0,1", "GNU.sparse.numblocks", "1")
			w.entry(rawHeader{name: "evil", flag: '0', magic: magicUstar}, "xy")
		}, `0 "evil" 2`},
		{"half a sparse version", func(w *rawTar) {
			w.pax("GNU.sparse.major", "1", "GNU.sparse.name", "good", "GNU.sparse.realsize", "9")
			w.entry(rawHeader{name: "evil", flag: '0', magic: magicUstar}, "xy")
		}, `0 "evil" 2`},
		{"one empty sparse record", func(w *rawTar) {
			w.pax("GNU.sparse.offset", "", "GNU.sparse.name", "good")
			w.entry(rawHeader{name: "evil", flag: '0', magic: magicUstar}, "xy")
		}, `0 "evil" 2`},
		{"sparse name decides no type", func(w *rawTar) {
			w.pax("GNU.sparse.name", "d/", "GNU.sparse.size", "0", "GNU.sparse.map", "0,0", "GNU.sparse.numblocks", "1")
			w.header(rawHeader{name: "f"})
		}, `0 "d/" 0`},
		{"sparse body with signs and zeros", func(w *rawTar) {
			w.pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "9")
			w.entry(rawHeader{name: "f", flag: '0', magic: magicUstar}, "+1\n-0\n"+strings.Repeat("0", 100)+"2\n"+strings.Repeat("\x00", 512-108)+"ab")
		}, `0 "f" 9`},
		{"NUL in a name that nothing has", func(w *rawTar) { w.pax("GNU.sparse.name", "a\x00b") }, ""},
		{"last pax header", func(w *rawTar) { w.pax("path", "b", "uid", "x"); w.pax("gid", "1"); w.header(rawHeader{name: "a"}) }, `0 "a" 0`},
		{"pax header before a global one", func(w *rawTar) { w.pax("path", "b"); w.paxFlag('g', "path", "c"); w.header(rawHeader{name: "a"}) }, `0 "a" 0`},
		{"long name and pax path", func(w *rawTar) {
			w.pax("path", "pax")
			w.entry(rawHeader{flag: 'L', magic: magicGNU}, "gnu\x00rest")
			w.header(rawHeader{name: "a"})
		}, `0 "gnu" 0`},
		{"pax is for one entry", func(w *rawTar) { w.pax("path", "b"); w.header(rawHeader{name: "a"}); w.header(rawHeader{name: "a"}) }, `0 "b" 0, 0 "a" 0`},
		{"v7 has no prefix", header(rawHeader{name: "a", prefix: "p"}), `0 "a" 0`},
		{"star's prefix", func(w *rawTar) {
			w.header(rawHeader{name: "a", flag: '0', magic: magicUstar, prefix: strings.Repeat("p", 131) + "00000000000\x0000000000000\x00", sum: func(b []byte) int {
				copy(b[508:], "tar\x00")
				sum := 0
				for _, c := range b {
					sum += int(c)
				}
				return sum
			}})
		}, fmt.Sprintf(`0 %q 0`, strings.Repeat("p", 131)+"/a")},
		{"GNU times are no prefix", header(rawHeader{name: "a", flag: '0', magic: magicGNU, prefix: "00000001234\x0000000001234\x00"}), `0 "a" 0`},
		{"prefix of early Go", header(rawHeader{name: "a", flag: '0', magic: magicGNU, prefix: "some/dir"}), `0 "some/dir/a" 0`},
		{"device", header(rawHeader{name: "a", flag: '3', magic: magicUstar, major: "\x80\x00\x00\x00\xff\xff\xff\xff", minor: "1 "}), `3 "a" 0 4294967295,1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w rawTar
			c.tar(&w)
			for _, piece := range []int{0, 1, 513} {
				entries, err := scanTar(w.Bytes(), piece, nil)
				var got []string
				for _, e := range entries {
					line := fmt.Sprintf("%c %q %d", e.Type, e.Name, e.Size)
					if e.Major != 0 {
						line += fmt.Sprintf(" %d,%d", e.Major, e.Minor)
					}
					got = append(got, line)
				}
				if s := strings.Join(got, ", "); err != nil || s != c.want {
					t.Errorf("pieces of %d: got %s, %v, want %s", piece, s, err, c.want)
				}
			}
		})
	}
}

// TestScannerTruncated cuts a tar with everything in it behind each byte: what
// comes out is the beginning of what is in it, and the end is missed where
// archive/tar misses it.
func TestScannerTruncated(t *testing.T) {
	data, _ := featureTar()
	all, err := scanTar(data, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []layerindex.Entry
	s := New(func(e *layerindex.Entry) error { got = append(got, *e); return nil }, nil)
	for n := range data {
		cut := *s
		err := cut.Close()
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: error %v, want io.ErrUnexpectedEOF", n, err)
		}
		if n%blockSize < 3 || n%blockSize > blockSize-3 || n%101 == 0 {
			if want := archiveTarReads(data[:n]); (err == nil) != want {
				t.Fatalf("cut at %d: error %v, archive/tar reads all: %v", n, err, want)
			}
		}
		if _, err := s.Write(data[n : n+1]); err != nil {
			t.Fatalf("byte %d: %v", n, err)
		}
		for i, e := range got {
			if e.Name != all[i].Name || e.Digest != all[i].Digest || e.Off != all[i].Off {
				t.Fatalf("cut at %d: entry %d is %+v, uncut %+v", n+1, i, e, all[i])
			}
		}
	}
}

func archiveTarReads(data []byte) bool {
	r := tar.NewReader(bytes.NewReader(data))
	for {
		if _, err := r.Next(); err != nil {
			return errors.Is(err, io.EOF)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return false
		}
	}
}
