package tarscan

import (
	"bytes"
	"errors"
	"fmt"
)

// blockSize is the unit of a tar: headers are one block, contents are padded
// to whole ones.
const blockSize = 512

// A rawBlock is one raw header block. The fields' places are those of POSIX
// pax, "ustar Interchange Format", and, for GNU's and star's, of the GNU tar
// manual, "Basic Tar Format".
type rawBlock [blockSize]byte

// A tarDialect is a family of headers: the fields behind the ones that v7 had
// mean different things in each.
type tarDialect byte

const (
	dialectV7    tarDialect = iota
	dialectUstar            // POSIX: prefix of 155 bytes
	dialectStar             // Schily tar before pax: prefix of 131 bytes, then times
	dialectGNU              // no prefix, but times and a sparse map
)

// A tarHeader holds the fields of a header block. The slices lie in the block.
type tarHeader struct {
	flag                   byte
	dialect                tarDialect
	prefix, name, linkname []byte
	mode, uid, gid         int64
	size, mtime            int64
	major, minor           int64
	realSize               int64 // of an old GNU sparse file
}

func (b *rawBlock) isZero() bool { return b[0] == 0 && *b == rawBlock{} }

// parse reads the block into h. A field that should be a number and is none
// is an error even where nothing needs it, as it is to the container runtimes.
func (b *rawBlock) parse(h *tarHeader) error {
	if !b.checksumHolds() {
		return errors.New("header checksum does not match")
	}
	*h = tarHeader{
		flag:     b[156],
		dialect:  b.dialect(),
		name:     cString(b[0:100]),
		linkname: cString(b[157:257]),
	}
	var n fieldReader
	h.mode = n.read("mode", b[100:108])
	h.uid = n.read("uid", b[108:116])
	h.gid = n.read("gid", b[116:124])
	h.size = n.read("size", b[124:136])
	h.mtime = n.read("mtime", b[136:148])
	if h.dialect != dialectV7 {
		h.major = n.read("devmajor", b[329:337])
		h.minor = n.read("devminor", b[337:345])
		h.prefix = b.prefix(h.dialect, &n)
	}
	if h.flag == 'S' && h.dialect == dialectGNU {
		h.realSize = n.read("realsize", b[483:495])
	}
	return n.err
}

// dialect tells the formats apart by their magic.
func (b *rawBlock) dialect() tarDialect {
	switch magic := string(b[257:265]); {
	case magic == "ustar  \x00":
		return dialectGNU
	case magic[:6] != "ustar\x00":
		return dialectV7
	case string(b[508:]) == "tar\x00":
		return dialectStar
	}
	return dialectUstar
}

// prefix returns what comes before the name and a slash.
func (b *rawBlock) prefix(d tarDialect, n *fieldReader) []byte {
	switch d {
	case dialectUstar:
		return cString(b[345:500])
	case dialectStar:
		n.read("atime", b[476:488])
		n.read("ctime", b[488:500])
		return cString(b[345:476])
	}
	// GNU has no prefix. Go before 1.8 wrote one all the same, over the times
	// (go.dev/issue/12594): where these are no numbers, it is one.
	var times fieldReader
	for _, field := range [][]byte{b[345:357], b[357:369]} {
		if field[0] != 0 {
			times.read("time", field)
		}
	}
	if prefix := cString(b[345:500]); times.err != nil && isASCII(prefix) {
		return prefix
	}
	return nil
}

// checksumHolds compares the sum of all bytes, the checksum's own counted as
// spaces. Some old tars summed signed bytes.
func (b *rawBlock) checksumHolds() bool {
	want, ok := parseOctal(b[148:156])
	if !ok {
		return false
	}
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	for _, c := range b[148:156] {
		sum += ' ' - int64(c)
	}
	return sum == want || sum-b.signBits() == want
}

// signBits is how much more the sum of unsigned bytes is than that of signed.
func (b *rawBlock) signBits() int64 {
	var sum int64
	for i, c := range b {
		if c >= 0x80 && (i < 148 || i >= 156) {
			sum += 256
		}
	}
	return sum
}

// A fieldReader reads numbers and keeps the first error.
type fieldReader struct{ err error }

func (n *fieldReader) read(field string, b []byte) int64 {
	x, ok := parseNumber(b)
	if !ok && n.err == nil {
		n.err = fmt.Errorf("%s %q is not a number", field, b)
	}
	return x
}

// parseNumber reads a number in base 256, of which the first bit is a mark and
// the rest a two's complement, big end first, or in octal.
func parseNumber(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		return parseOctal(b)
	}
	var flip byte
	if b[0]&0x40 != 0 {
		flip = 0xff // negative: -1-x has the flipped bits of x
	}
	x := int64((b[0] ^ flip) & 0x7f)
	for _, c := range b[1:] {
		if x >= 1<<55 {
			return 0, false
		}
		x = x<<8 | int64(c^flip)
	}
	if flip != 0 {
		x = -1 - x
	}
	return x, true
}

// parseOctal reads digits that spaces and NULs may stand around. No digits at
// all are 0. What follows the first NUL behind the digits is ignored.
func parseOctal(b []byte) (int64, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	var x int64
	for _, c := range b {
		if c == 0 {
			break
		}
		if c < '0' || c > '7' {
			return 0, false
		}
		x = x<<3 | int64(c-'0') // 12 digits at most
	}
	return x, true
}

// cString returns what comes before the first NUL.
func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
