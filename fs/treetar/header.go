package treetar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

const (
	blockSize = 512
	maxName   = 100
	maxPrefix = 155
	// paxName is the name of headers of PAX records. Programs that do not know PAX
	// take them for files.
	paxName = "././@PaxHeader"
)

// A header is one member of the tar, without its content.
type header struct {
	typ      byte
	name     string
	linkname string
	attr     fs.Attr
	size     int64 // of what follows
	xattrs   []layerindex.Xattr
	// sparse says that the content is a map and the data of a file of attr.Size bytes.
	sparse bool
}

// append appends the blocks of a header to b, those of its PAX records first.
func (h *header) append(b []byte) []byte {
	var records paxRecords
	name, prefix, fits := splitName(h.name)
	switch {
	case h.sparse:
		records.add("GNU.sparse.major", "1")
		records.add("GNU.sparse.minor", "0")
		records.addName("GNU.sparse.name", h.name)
		records.add("GNU.sparse.realsize", strconv.FormatInt(h.attr.Size, 10))
		name, prefix = "GNUSparseFile.0", ""
	case !fits:
		records.addName("path", h.name)
	}
	if len(h.linkname) > maxName {
		records.addName("linkpath", h.linkname)
	}
	uid := records.number("uid", int64(h.attr.UID), 7)
	gid := records.number("gid", int64(h.attr.GID), 7)
	size := records.number("size", h.size, 11)
	mtime := h.attr.ModSec
	if mtime < 0 || mtime >= 1<<33 || h.attr.ModNsec != 0 {
		records.add("mtime", paxTime(mtime, h.attr.ModNsec))
		mtime = min(max(mtime, 0), 1<<33-1)
	}
	for _, x := range h.xattrs {
		records.add("SCHILY.xattr."+xattrName(x.Name), x.Value)
	}
	if text := records.text(); len(text) > 0 {
		b = appendBlock(b, &block{typ: 'x', name: paxName, mode: 0o644, size: int64(len(text))})
		b = pad(append(b, text...))
	}
	return appendBlock(b, &block{typ: h.typ, name: name, prefix: prefix, linkname: h.linkname, mode: h.attr.Mode & 0o7777,
		uid: uid, gid: gid, size: size, mtime: mtime, major: h.attr.Major, minor: h.attr.Minor})
}

// A block is what is in the fields of a ustar header. All of it fits; of a linkname
// there is as much as fits.
type block struct {
	typ                    byte
	name, prefix, linkname string
	mode                   uint32
	uid, gid, size, mtime  int64
	major, minor           uint32
}

// appendBlock appends a ustar header.
func appendBlock(b []byte, h *block) []byte {
	b = append(b, make([]byte, blockSize)...)
	block := b[len(b)-blockSize:]
	copy(block[0:maxName], h.name)
	octal(block[100:108], int64(h.mode))
	octal(block[108:116], h.uid)
	octal(block[116:124], h.gid)
	octal(block[124:136], h.size)
	octal(block[136:148], h.mtime)
	block[156] = h.typ
	copy(block[157:157+maxName], h.linkname)
	copy(block[257:265], "ustar\x0000")
	octal(block[329:337], int64(h.major))
	octal(block[337:345], int64(h.minor))
	copy(block[345:345+maxPrefix], h.prefix)
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// octal writes a number into a field, whose last byte stays NUL.
func octal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// pad fills the last block of b with zeros.
func pad(b []byte) []byte { return append(b, make([]byte, padding(int64(len(b))))...) }

// padding returns how many bytes are missing to whole blocks.
func padding(n int64) int64 { return -n & (blockSize - 1) }

// splitName splits a name into the fields for it, at a slash if it is longer than
// one, and reports whether it fits.
func splitName(s string) (name, prefix string, ok bool) {
	if len(s) <= maxName {
		return s, "", true
	}
	// Neither part may be empty, and a directory's slash stays at its end.
	i := strings.IndexByte(s[max(0, len(s)-maxName-1):], '/') + max(0, len(s)-maxName-1)
	if i > 0 && i <= maxPrefix && i < len(s)-1 && s[i] == '/' && len(s)-i-1 <= maxName {
		return s[i+1:], s[:i], true
	}
	return s[:maxName], "", false
}

// xattrName returns the name of an attribute as GNU tar writes and reads one with a
// byte that would end the keyword.
func xattrName(name string) string {
	if !strings.Contains(name, "=") {
		return name
	}
	return strings.NewReplacer("%", "%25", "=", "%3D").Replace(name)
}

// paxTime writes a time as POSIX has it: the fraction goes away from zero with the
// seconds.
func paxTime(sec int64, nsec uint32) string {
	sign := ""
	if sec < 0 {
		sign = "-"
		if sec = -sec; nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	text := sign + strconv.FormatUint(uint64(sec), 10)
	if nsec > 0 {
		text += strings.TrimRight(fmt.Sprintf(".%09d", nsec), "0")
	}
	return text
}

// paxRecords are the records of one member, in the order of their keywords.
type paxRecords struct{ records []string }

func (p *paxRecords) add(keyword, value string) {
	// The length counts its own digits.
	rest := len(keyword) + len(value) + 3
	n := rest + len(strconv.Itoa(rest))
	n = rest + len(strconv.Itoa(n))
	p.records = append(p.records, fmt.Sprintf("%d %s=%s\n", n, keyword, value))
}

// addName adds a name. bsdtar fails at one that is not UTF-8, unless a record says that
// names are bytes, of which GNU tar says that it does not know it.
func (p *paxRecords) addName(keyword, value string) {
	if !utf8.ValidString(value) && !slices.Contains(p.records, binaryNames) {
		p.records = append([]string{binaryNames}, p.records...)
	}
	p.add(keyword, value)
}

const binaryNames = "21 hdrcharset=BINARY\n"

// number returns n if it has no more than so many octal digits. If it has, it adds a
// record and returns 0.
func (p *paxRecords) number(keyword string, n int64, digits int) int64 {
	if n < 1<<(3*digits) {
		return n
	}
	p.add(keyword, strconv.FormatInt(n, 10))
	return 0
}

func (p *paxRecords) text() string { return strings.Join(p.records, "") }

// zeros are two blocks, the end of a tar.
var zeros [2 * blockSize]byte
