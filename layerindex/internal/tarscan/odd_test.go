package tarscan

import (
	"fmt"
	"strings"
)

// An oddTar is a small tar with one thing in it that readers may take in
// different ways, and an ordinary file before
// and behind it.
type oddTar struct {
	name string
	tar  func(*rawTar)
}

// oddTars are all that archive/tar reads, so that peers can be asked what they
// make of it.
func oddTars() []oddTar {
	list := append(oddNames(), oddNumbers()...)
	list = append(list, oddSparse()...)
	return append(list, oddBodies()...)
}

func plainHeader(change ...func(*rawHeader)) rawHeader {
	h := rawHeader{name: "f", flag: '0', magic: magicUstar, mode: "0000644", uid: "0000001", gid: "0000002", mtime: "00000000007"}
	for _, f := range change {
		f(&h)
	}
	return h
}

func flagged(flag byte, link string) func(*rawHeader) {
	return func(h *rawHeader) { h.flag, h.link = flag, link }
}

func gnuMagic(h *rawHeader) { h.magic = magicGNU }

// withPax is a file behind extended headers of the records; "" begins another.
func withPax(h rawHeader, records ...string) func(*rawTar) {
	return func(w *rawTar) {
		for len(records) > 0 {
			n := 0
			for n < len(records) && records[n] != "" {
				n += 2
			}
			n = min(n, len(records))
			w.pax(records[:n]...)
			records = records[min(n+1, len(records)):]
		}
		if h.flag == '0' || h.flag == '7' || h.flag == 0 {
			w.entry(h, "body")
		} else {
			w.header(h)
		}
	}
}

func longName(flag byte, name string) func(*rawTar) {
	return func(w *rawTar) {
		w.entry(plainHeader(gnuMagic, func(h *rawHeader) { h.name, h.flag = "././@LongLink", flag }), name+"\x00")
	}
}

func inTurn(parts ...func(*rawTar)) func(*rawTar) {
	return func(w *rawTar) {
		for _, part := range parts {
			part(w)
		}
	}
}

func oddNames() []oddTar {
	plain, link, hard := plainHeader(), plainHeader(flagged('2', "t")), plainHeader(flagged('1', "a"))
	file := withPax(plain)
	long := strings.Repeat("n", 120)
	named := func(name string) func(*rawTar) { return withPax(plainHeader(func(h *rawHeader) { h.name = name })) }
	return []oddTar{
		{"path", withPax(plain, "path", "p")},
		{"path twice", withPax(plain, "path", "p", "path", "q")},
		{"path taken back", withPax(plain, "path", "p", "path", "")},
		{"two headers with path", withPax(plain, "path", "p", "", "path", "q")},
		{"two headers, the second without path", withPax(plain, "path", "p", "", "comment", "x")},
		{"path in other case", withPax(plain, "PATH", "p")},
		{"path with a slash behind", withPax(plain, "path", "p/")},
		{"path that is not UTF-8", withPax(plain, "path", "\xff")},
		{"path of binary charset", withPax(plain, "hdrcharset", "BINARY", "path", "\xff")},
		{"long name", inTurn(longName('L', long), file)},
		{"long name and path", inTurn(withoutEntry("path", "p"), longName('L', long), file)},
		{"path and long name", inTurn(longName('L', long), withPax(plain, "path", "p"))},
		{"long name twice", inTurn(longName('L', "first"), longName('L', long), file)},
		{"empty long name", inTurn(longName('L', ""), file)},
		{"long name with a NUL inside", inTurn(longName('L', "one\x00two"), file)},
		{"long name of a directory", inTurn(longName('L', "d/"), withPax(plainHeader(flagged('5', ""))))},
		{"long link", inTurn(longName('K', long), withPax(link))},
		{"long link and linkpath", inTurn(withoutEntry("linkpath", "p"), longName('K', long), withPax(link))},
		{"linkpath and long link", inTurn(longName('K', long), withPax(link, "linkpath", "p"))},
		{"linkpath of a hard link", withPax(hard, "linkpath", "a")},
		{"linkpath of a file", withPax(plain, "linkpath", "p")},
		{"linkpath taken back", withPax(link, "linkpath", "p", "linkpath", "")},
		{"global path", inTurn(global("path", "p"), file)},
		{"global uid, gid, mtime and linkpath", inTurn(global("uid", "9", "gid", "9", "mtime", "9", "linkpath", "p"), withPax(link))},
		{"global path and path", inTurn(global("path", "g"), withPax(plain, "path", "p"))},
		{"path and global header", inTurn(withoutEntry("path", "p"), global("comment", "g"), file)},
		{"long name and global header", inTurn(longName('L', long), global("comment", "g"), file)},
		{"global sparse name", inTurn(global("GNU.sparse.name", "g"), file)},
		{"slash behind a file", named("f/")},
		{"slash behind an empty file", func(w *rawTar) { w.header(plainHeader(func(h *rawHeader) { h.name = "f/" })) }},
		{"old directory", func(w *rawTar) { w.header(plainHeader(func(h *rawHeader) { h.name, h.flag = "f/", 0 })) }},
		{"old directory by its long name", inTurn(longName('L', "d/"), func(w *rawTar) { w.header(plainHeader(func(h *rawHeader) { h.flag = 0 })) })},
		{"prefix", withPax(plainHeader(func(h *rawHeader) { h.prefix = "p" }))},
		{"prefix and path", withPax(plainHeader(func(h *rawHeader) { h.prefix = "p" }), "path", "q")},
		{"prefix of 155 and name of 100 bytes", withPax(plainHeader(func(h *rawHeader) { h.prefix, h.name = strings.Repeat("p", 155), strings.Repeat("n", 100) }))},
		{"prefix in v7", withPax(plainHeader(func(h *rawHeader) { h.prefix, h.magic = "p", "" }))},
		{"prefix in GNU", withPax(plainHeader(gnuMagic, func(h *rawHeader) { h.prefix = "prefix" }))},
		{"times in GNU", withPax(plainHeader(gnuMagic, func(h *rawHeader) { h.prefix = octal(9) + "\x00" + octal(9) }))},
		{"prefix of star", withPax(plainHeader(func(h *rawHeader) {
			h.prefix, h.sum = strings.Repeat("p", 131)+octal(9), func(b []byte) int { copy(b[508:], "tar\x00"); return sumOf(b, false) }
		}))},
		{"name with a NUL inside", named("one\x00two")},
		{"signed checksum", withPax(plainHeader(func(h *rawHeader) { h.name, h.sum = "\xfe", func(b []byte) int { return sumOf(b, true) } }))},
	}
}

// withoutEntry is an extended header alone.
func withoutEntry(records ...string) func(*rawTar) {
	return func(w *rawTar) { w.pax(records...) }
}

func global(records ...string) func(*rawTar) {
	return func(w *rawTar) { w.paxFlag('g', records...) }
}

func oddNumbers() []oddTar {
	plain := plainHeader()
	list := []oddTar{
		{"pax size", func(w *rawTar) { w.pax("size", "4"); w.header(plain); w.body("body") }},
		{"pax size under the header's", func(w *rawTar) { w.pax("size", "2"); w.entry(plain, "body") }},
		{"pax size of a directory", func(w *rawTar) { w.pax("size", "4"); w.header(plainHeader(flagged('5', ""))) }},
		{"pax size taken back", withPax(plain, "size", "9", "size", "")},
		{"pax size with a sign", withPax(plain, "size", "+4")},
		{"SCHILY.realsize", withPax(plain, "SCHILY.realsize", "9")},
		{"base-256 owners and size", func(w *rawTar) {
			w.header(plainHeader(func(h *rawHeader) { h.uid, h.gid, h.size = base256(3000000, 8), base256(4000000, 8), base256(4, 12) }))
			w.body("body")
		}},
		{"base-256 time below zero", withPax(plainHeader(func(h *rawHeader) { h.mtime = base256(-2, 12) }))},
		{"spaces about numbers", withPax(plainHeader(func(h *rawHeader) { h.uid, h.gid, h.mtime = "  17 \x00 ", "17\x00\x00\x00\x00\x00", " 7 " }))},
		{"no numbers", withPax(plainHeader(func(h *rawHeader) { h.uid, h.gid, h.mtime, h.mode = "", "", "", "" }))},
		{"digits behind a NUL", withPax(plainHeader(func(h *rawHeader) { h.uid = "7\x007" }))},
		{"pax owners", withPax(plain, "uid", "70000000", "gid", "4294967294")},
		{"pax owners taken back", withPax(plain, "uid", "9", "gid", "9", "uid", "", "gid", "")},
		{"pax owners with signs", withPax(plain, "uid", "+9", "gid", "009")},
		{"pax names of owners", withPax(plain, "uname", "root", "gname", "root")},
		{"mode with more bits", withPax(plainHeader(func(h *rawHeader) { h.mode = "0107755" }))},
	}
	for _, when := range []string{"5", "5.5", "-5.5", "-0.5", "+5.5", "5.", "5.1234567899", ""} {
		list = append(list, oddTar{"mtime " + when, withPax(plain, "mtime", "3", "mtime", when)})
	}
	for _, key := range []string{"atime", "ctime", "comment", "charset", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags", "LIBARCHIVE.creationtime", "GNU.volume.label", "RHT.security.selinux"} {
		list = append(list, oddTar{key, withPax(plain, key, "5")})
	}
	for _, key := range []string{"SCHILY.xattr.user.a", "LIBARCHIVE.xattr.user.a", "SCHILY.acl.access"} {
		list = append(list, oddTar{key, withPax(plain, key, "YWJj")})
	}
	return append(list,
		oddTar{"xattr twice", withPax(plain, "SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.a", "2")},
		oddTar{"xattr taken back", withPax(plain, "SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.a", "")},
		oddTar{"xattr in two headers", withPax(plain, "SCHILY.xattr.user.a", "1", "", "SCHILY.xattr.user.b", "2")},
		oddTar{"global xattr", inTurn(global("SCHILY.xattr.user.a", "1"), withPax(plain))},
	)
}

func oddSparse() []oddTar {
	plain := plainHeader()
	const map10 = "2\n512\n4\n600\n0\n"
	body10 := map10 + strings.Repeat("\x00", blockSize-len(map10)) + "body"
	form00 := []string{"GNU.sparse.size", "600", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "512", "GNU.sparse.numbytes", "4", "GNU.sparse.offset", "600", "GNU.sparse.numbytes", "0"}
	form01 := []string{"GNU.sparse.size", "600", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "512,4,600,0"}
	form10 := []string{"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "600"}
	with := func(body string, records []string, more ...string) func(*rawTar) {
		return func(w *rawTar) { w.pax(append(append([]string{}, records...), more...)...); w.entry(plain, body) }
	}
	old := func(change func(*rawHeader), blocks ...string) func(*rawTar) {
		return func(w *rawTar) {
			h := plainHeader(gnuMagic, func(h *rawHeader) {
				h.flag, h.size, h.realSize, h.sparse = 'S', octal(4), octal(600), gnuExtents(512, 4, 600, 0)
			}, change)
			h.extended = len(blocks) > 0
			w.header(h)
			for i, b := range blocks {
				next := byte(0)
				if i < len(blocks)-1 {
					next = 1
				}
				w.body(b + strings.Repeat("\x00", 504-len(b)) + string(next))
			}
			w.body("body")
		}
	}
	list := []oddTar{
		{"sparse 0.0", with("body", form00)},
		{"sparse 0.1", with("body", form01)},
		{"sparse 1.0", with(body10, form10)},
		{"sparse 0.0 with a name", with("body", form00, "GNU.sparse.name", "n")},
		{"sparse 0.1 with a name", with("body", form01, "GNU.sparse.name", "n")},
		{"sparse 1.0 with a name", with(body10, form10, "GNU.sparse.name", "n")},
		{"sparse 1.0 with a name and a path", with(body10, form10, "GNU.sparse.name", "n", "path", "p")},
		{"sparse 1.0 with a name and a long name", inTurn(longName('L', "long"), with(body10, form10, "GNU.sparse.name", "n"))},
		{"sparse 1.0 with two sizes", with(body10, form10, "GNU.sparse.size", "700")},
		{"sparse 0.1 with its version", with("body", form01, "GNU.sparse.major", "0", "GNU.sparse.minor", "1")},
		{"sparse 0.1 with a pax size", with("body", form01, "size", "4")},
		{"sparse 1.0 with signs", with(strings.Replace(body10, map10+"\x00\x00", "+2\n512\n+4\n600\n0\n", 1), form10)},
		{"sparse 0.1 without an extent at the end", with("body", form01, "GNU.sparse.numblocks", "1", "GNU.sparse.map", "512,4")},
		{"sparse in an earlier header", inTurn(withoutEntry(form01...), with("body", nil, "comment", "x"))},
		{"sparse and a path in a later header", inTurn(withoutEntry(form01...), withPax(plain, "path", "p"))},
		{"sparse name alone", withPax(plain, "GNU.sparse.name", "n")},
		{"sparse name alone, with a path", withPax(plain, "GNU.sparse.name", "n", "path", "p")},
		{"sparse realsize alone", withPax(plain, "GNU.sparse.realsize", "9")},
		{"sparse size alone", withPax(plain, "GNU.sparse.size", "9")},
		{"sparse numblocks alone", withPax(plain, "GNU.sparse.numblocks", "1")},
		{"sparse version 1 alone", withPax(plain, "GNU.sparse.major", "1", "GNU.sparse.name", "n")},
		{"sparse version 2.0", withPax(plain, "GNU.sparse.major", "2", "GNU.sparse.minor", "0", "GNU.sparse.name", "n")},
		{"sparse name of a directory", withPax(plainHeader(flagged('5', "")), "GNU.sparse.name", "n")},
		{"sparse name of a symlink", withPax(plainHeader(flagged('2', "t")), "GNU.sparse.name", "n", "GNU.sparse.realsize", "9")},
		{"old sparse", old(func(*rawHeader) {})},
		{"old sparse with a sparse name", inTurn(withoutEntry("GNU.sparse.name", "n"), old(func(*rawHeader) {}))},
		{"old sparse with a pax size", inTurn(withoutEntry("size", "4"), old(func(*rawHeader) {}))},
		{"old sparse with more blocks", old(func(h *rawHeader) { h.size, h.sparse = octal(4), gnuExtents(0, 1, 10, 1, 20, 1, 30, 1) }, gnuExtents(600, 0))},
		{"old sparse with an empty block", old(func(*rawHeader) {}, "")},
		{"old sparse without a hole", old(func(h *rawHeader) { h.realSize, h.sparse = octal(4), gnuExtents(0, 4) })},
	}
	return list
}

func oddBodies() []oddTar {
	var list []oddTar
	for _, flag := range "123456" {
		h := plainHeader(flagged(byte(flag), ""), func(h *rawHeader) { h.size = octal(4) })
		if flag <= '2' {
			h.link = "a"
		}
		list = append(list, oddTar{fmt.Sprintf("size without a body, typeflag %c", flag), func(w *rawTar) { w.header(h) }})
	}
	return append(list,
		oddTar{"contiguous file", func(w *rawTar) { w.entry(plainHeader(flagged('7', "")), "body") }},
		oddTar{"old typeflag", func(w *rawTar) { w.entry(plainHeader(flagged(0, "")), "body") }},
		oddTar{"device in v7", func(w *rawTar) {
			w.header(plainHeader(flagged('3', ""), func(h *rawHeader) { h.magic, h.major, h.minor = "", "0000001", "0000003" }))
		}},
		oddTar{"device", func(w *rawTar) {
			w.header(plainHeader(flagged('3', ""), func(h *rawHeader) { h.major, h.minor = "0000001", "0000003" }))
		}},
		oddTar{"symlink without a target", func(w *rawTar) { w.header(plainHeader(flagged('2', ""))) }},
		oddTar{"pax header before nothing", func(w *rawTar) { w.entry(plainHeader(), "body"); w.pax("path", "p"); w.header(plainHeader(gnuMagic)) }},
	)
}
