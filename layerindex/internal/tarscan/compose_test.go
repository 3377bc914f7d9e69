package tarscan

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// compose makes a tar of a fuzzer's bytes, out of what tars are made of: header
// blocks of each dialect, pax records, long names, sparse files in all forms,
// bodies, and what overrides what. Most of it fits together, and some does not.
func (c *chooser) compose() []byte {
	var w rawTar
	for range 1 + c.IntN(4) {
		c.member(&w)
	}
	switch c.IntN(6) {
	case 0, 1:
		w.end()
	case 2:
		w.Write(make([]byte, blockSize))
	case 3:
		w.end()
		w.header(rawHeader{name: "behind", flag: '0'})
	case 4:
		w.Write(make([]byte, blockSize))
		w.header(rawHeader{name: "behind", flag: '0'})
	}
	return w.Bytes()
}

// member makes one entry and what stands before it.
func (c *chooser) member(w *rawTar) {
	h := rawHeader{
		name: c.entryName(), flag: samples.Pick(&c.Chooser, byte('0'), 0, '5', '2', '1', '7', '3', '4', '6', 'S'),
		magic: samples.Pick(&c.Chooser, magicUstar, magicGNU, "", "ustar\x00\x00\x00", "ustar   "),
		mode:  c.number8("0000644"), uid: c.number8("0001750"), gid: c.number8("0001750"), mtime: octal(7),
	}
	if c.seldom() {
		h.flag, h.mtime = samples.Pick(&c.Chooser, byte('Z'), 'D', 'X', 'N', 'V', '8'), c.field(12)
	}
	content := strings.Repeat("C", samples.Pick(&c.Chooser, 5, 0, 512, 600, 1))
	for n := c.IntN(4); n > 0; n-- {
		switch c.IntN(8) {
		case 0, 1:
			c.paxHeader(w, 'x')
		case 2:
			w.entry(rawHeader{name: "././@LongLink", flag: 'L', magic: magicGNU}, c.entryName()+samples.Pick(&c.Chooser, "\x00", "", "\x00rest"))
		case 3:
			w.entry(rawHeader{name: "././@LongLink", flag: 'K', magic: magicGNU}, c.linkName()+samples.Pick(&c.Chooser, "\x00", "", "\x00rest"))
		case 4:
			c.paxHeader(w, 'g')
		case 5, 6:
			content = c.paxSparse(w, content)
		case 7:
			c.paxHeader(w, "xX"[c.IntN(30)/29])
		}
	}
	c.finishHeader(&h)
	if h.flag == 'S' {
		c.oldSparse(w, h, content)
		return
	}
	h.size = samples.Pick(&c.Chooser, octal(len(content)), base256(int64(len(content)), 12))
	if strings.IndexByte("123456", h.flag) >= 0 || c.seldom() {
		h.size = samples.Pick(&c.Chooser, octal(0), octal(len(content)), octal(c.IntN(700)), c.field(12))
	}
	w.header(h)
	if strings.IndexByte("123456", h.flag) < 0 || c.seldom() {
		w.body(content)
	}
}

// seldom is for what tars are not read in full with.
func (c *chooser) seldom() bool { return c.IntN(30) == 29 }

// number8 is a field of 8 bytes, usually the one given.
func (c *chooser) number8(usual string) string {
	if c.seldom() {
		return c.field(8)
	}
	return usual
}

// finishHeader sets what matters to some types and dialects only.
func (c *chooser) finishHeader(h *rawHeader) {
	h.link = samples.Pick(&c.Chooser, "", c.linkName())
	h.major, h.minor = c.number8("0000001"), c.number8("0000003")
	h.prefix = samples.Pick(&c.Chooser, "", "", "p", "pre/fix", octal(9)+"\x00"+octal(9), strings.Repeat("q", 155), "\xffx")
	switch c.IntN(24) {
	case 9:
		h.prefix = strings.Repeat("p", 131) + samples.Pick(&c.Chooser, "", octal(9), octal(9)+"\x00"+octal(9))
		h.sum = func(b []byte) int { copy(b[508:], "tar\x00"); return sumOf(b, false) }
	case 10:
		h.sum = func(b []byte) int { return sumOf(b, true) }
	case 11:
		at, bit := c.IntN(256)*2, byte(1<<c.IntN(8))
		h.sum = func(b []byte) int { b[at] ^= bit; return sumOf(b, false) }
	}
}

// sumOf is the checksum of a header block whose own is blank.
func sumOf(b []byte, signed bool) int {
	sum := 0
	for _, x := range b {
		if sum += int(x); signed && x >= 0x80 {
			sum -= 256
		}
	}
	return sum
}

func (c *chooser) entryName() string {
	return samples.Pick(&c.Chooser, "a", "b", "d/", "d/e", "./x", "/abs", "c/../d", "n\nl", "sp ace", "", "..", ".wh.a", "d//e", "\xff", "\\x",
		strings.Repeat("L", 100), strings.Repeat("M", 99)+"/", "e/"+strings.Repeat("N", 200), strings.Repeat("O", 255-c.IntN(2)+c.IntN(2)))
}

func (c *chooser) linkName() string {
	return samples.Pick(&c.Chooser, "t", "a", "", "/abs", "d/", "../x", strings.Repeat("l", 100), strings.Repeat("m/", 90)+"k")
}

// field makes a field of n bytes that is to hold a number, and may not.
func (c *chooser) field(n int) string {
	return samples.Pick(&c.Chooser, "", "0", " 17 \x00", "7\x007", "17 8", "0x1", "8", "-1", strings.Repeat("7", n), base256(int64(c.IntN(256)), n), base256(-1-int64(c.IntN(3)), n),
		base256(1<<62, n), "\x80\xff"+strings.Repeat("\x01", n-2), "\xff\x7f"+strings.Repeat("\x01", n-2), "\xc0"+strings.Repeat("\x00", n-1))
}

// paxHeader writes a header of up to four records.
func (c *chooser) paxHeader(w *rawTar, flag byte) {
	var body string
	for range 1 + c.IntN(4) {
		body += c.record()
	}
	w.entry(rawHeader{name: samples.Pick(&c.Chooser, "PaxHeaders/x", "x/"), flag: flag, magic: samples.Pick(&c.Chooser, magicUstar, magicGNU, "")}, body)
}

func (c *chooser) record() string {
	number := func() string {
		if !c.seldom() {
			return samples.Pick(&c.Chooser, "0", "5", "600", "+5", "007", "")
		}
		return samples.Pick(&c.Chooser, "0", "5", "600", "1000", "4294967295", "4294967296", "-1", "-0", "+5", "007", "", "x", "1.0", " 5", "9223372036854775807", "9223372036854775808")
	}
	moment := func() string {
		if !c.seldom() {
			return samples.Pick(&c.Chooser, "1", "1.5", "-3.25", "-0.5", "+1.5", "1.", "1.123456789123", "")
		}
		return samples.Pick(&c.Chooser, "1", "1.5", "-3", "-3.25", "-0.5", "+1.5", "1.", "1.123456789123", "x", "1.x", ".5", "", "-", "1.-5", "9223372036854775807", "-9223372036854775808.5", "253402300800")
	}
	text := func() string { return samples.Pick(&c.Chooser, "v", "", "nul\x00x", "a=b", "\n", "\xff", "5,5") }
	key, value := "path", ""
	switch c.IntN(14) {
	case 0, 1:
		value = samples.Pick(&c.Chooser, c.entryName(), text())
	case 2:
		key, value = "linkpath", samples.Pick(&c.Chooser, c.linkName(), text())
	case 3:
		key, value = "size", number()
	case 4:
		key, value = samples.Pick(&c.Chooser, "uid", "gid"), number()
	case 5:
		key, value = samples.Pick(&c.Chooser, "mtime", "atime", "ctime", "LIBARCHIVE.creationtime"), moment()
	case 6:
		key, value = samples.Pick(&c.Chooser, "uname", "gname", "comment", "hdrcharset", "charset"), text()
	case 7, 8:
		key, value = samples.Pick(&c.Chooser, "SCHILY.xattr.user.a", "SCHILY.xattr.user.b", "SCHILY.xattr.", "LIBARCHIVE.xattr.user.a", "SCHILY.acl.access", "RHT.security.selinux"), text()
	case 9:
		key, value = samples.Pick(&c.Chooser, "SCHILY.dev", "SCHILY.devmajor", "SCHILY.realsize", "SCHILY.filetype", "SCHILY.fflags", "GNU.dumpdir", "GNU.volume.label"), samples.Pick(&c.Chooser, number(), text())
	case 10, 11:
		key, value = "GNU.sparse."+samples.Pick(&c.Chooser, "name", "realsize", "size", "minor", "major", "numblocks", "map", "other", "offset", "numbytes"), samples.Pick(&c.Chooser, "1", number(), text(), c.entryName())
	case 12:
		if !c.seldom() {
			break
		}
		return samples.Pick(&c.Chooser, "garbage", "5 =x\n", "99 path=x\n", "8 p\x00h=x\n", "9 path:x\n", "+9 path=x\n", "009 path=x\n", "9 path=xy", "4 a=\n", "\x00", "-1 a=b\n")
	case 13:
		key, value = samples.Pick(&c.Chooser, "PATH", "path ", " path", "path\x00"), c.entryName()
	}
	return paxRecord(key, value)
}

// paxSparse writes a header of a sparse file in one of the pax forms, in which
// up to two records are left out, doubled or replaced, and returns the body
// that the entry is to have.
func (c *chooser) paxSparse(w *rawTar, content string) string {
	hole := samples.Pick(&c.Chooser, 0, 3, 512)
	numbers := []string{fmt.Sprint(hole), fmt.Sprint(len(content))}
	if c.IntN(3) == 0 {
		half := len(content) / 2
		numbers = []string{"0", fmt.Sprint(half), fmt.Sprint(half + hole), fmt.Sprint(len(content) - half)}
	}
	if c.IntN(8) == 0 {
		numbers[c.IntN(len(numbers))] = samples.Pick(&c.Chooser, "-1", "+0", "-0", "x", "", "00", "9223372036854775807", "1,1")
	}
	size := fmt.Sprint(hole + len(content) + samples.Pick(&c.Chooser, 0, 7))
	list := []string{"GNU.sparse.numblocks", fmt.Sprint(len(numbers) / 2)}
	body := content
	switch c.IntN(4) {
	case 0:
		list = append(list, "GNU.sparse.size", size, "GNU.sparse.map", strings.Join(numbers, ","))
	case 1:
		list = append(list, "GNU.sparse.size", size)
		for i, n := range numbers {
			list = append(list, "GNU.sparse."+[]string{"offset", "numbytes"}[i%2], n)
		}
	case 2:
		list = []string{"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", size}
		text := fmt.Sprint(len(numbers)/2) + "\n" + strings.Join(numbers, "\n") + "\n"
		body = text + strings.Repeat("\x00", -len(text)&(blockSize-1)) + content
	case 3:
		list = append(list, "GNU.sparse.major", "0", "GNU.sparse.minor", samples.Pick(&c.Chooser, "1", "0"), "GNU.sparse.realsize", size, "GNU.sparse.map", strings.Join(numbers, ","))
	}
	if c.IntN(3) > 0 {
		list = append(list, "GNU.sparse.name", c.entryName())
	}
	c.disturb(&list)
	w.pax(list...)
	return body
}

// disturb changes a list of keys and values.
func (c *chooser) disturb(list *[]string) {
	for range c.IntN(9) / 6 {
		if len(*list) == 0 {
			return
		}
		at := c.IntN(len(*list)/2) * 2
		switch c.IntN(4) {
		case 0:
			*list = append((*list)[:at:at], (*list)[at+2:]...)
		case 1:
			*list = append(*list, (*list)[at], samples.Pick(&c.Chooser, "", "1", "0", (*list)[at+1]))
		case 2:
			(*list)[at+1] = samples.Pick(&c.Chooser, "", "0", "2", "-1", "x", "512", "+1")
		case 3:
			*list = append(*list, "path", c.entryName())
		}
	}
}

// oldSparse writes a sparse file in the form of GNU tar's own headers.
func (c *chooser) oldSparse(w *rawTar, h rawHeader, content string) {
	half, hole := len(content)/2, samples.Pick(&c.Chooser, 512, 0, 3)
	extents := gnuExtents(0, half, half+hole, len(content)-half)
	if c.IntN(4) == 0 {
		extents = samples.Pick(&c.Chooser, gnuExtents(hole, len(content)), gnuExtents(9, 1, 0, 1), extents+gnuExtents(1, 1), base256(0, 12)+octal(len(content))+" ", "")
	}
	h.size, h.realSize = samples.Pick(&c.Chooser, octal(len(content)), octal(0)), samples.Pick(&c.Chooser, octal(len(content)+hole), octal(len(content)+hole), octal(len(content)+600), c.field(12))
	more := c.IntN(3)
	h.sparse, h.extended = extents+" ", more > 0
	if h.sparse = extents; extents == "" {
		h.sparse = "\x00"
	}
	w.header(h)
	for ; more > 0; more-- {
		block := make([]byte, blockSize)
		copy(block, samples.Pick(&c.Chooser, "", "\x00", gnuExtents(len(content)+hole, 0), gnuExtents(0, 0)))
		if more > 1 {
			block[504] = 1
		}
		w.Write(block)
	}
	w.body(content)
}
