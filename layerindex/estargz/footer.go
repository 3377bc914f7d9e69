package estargz

import (
	"bytes"
	"strconv"
)

// A footer is the empty gzip member that a layer ends with. Its header's extra field
// says where the TOC is.
type footer struct {
	size int64 // of the footer itself
	// toc is where the TOC begins in the blob. It is not there if external is true:
	// then the TOC is in an image of its own.
	toc      int64
	external bool
	legacy   bool // stargz, before eStargz
}

// The sizes of footers. They are compared with the end of the blob, the longest first.
const (
	footerSize   = 51
	legacySize   = 47
	externalSize = 46
	longest      = footerSize
)

const (
	footerMagic   = "STARGZ"
	externalMagic = "STARGZEXTERNALTOC"
	offsetDigits  = 16
)

// gzipExtra is how a member with an extra field begins: RFC 1952, 2.3.
var gzipExtra = []byte{0x1f, 0x8b, 8, 4}

// emptyMember is what follows the header: an empty stored block, checksum and length.
var emptyMember = []byte{1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}

// parseFooter finds the footer that a blob ends with, given its last bytes
// (stargz-snapshotter, docs/estargz.md, "Footer", and docs/external-toc.md).
func parseFooter(tail []byte) (footer, bool) {
	if extra, ok := extraOf(tail, footerSize); ok && len(extra) > 4 && string(extra[:4]) == "SG\x16\x00" {
		if toc, ok := tocOffset(extra[4:]); ok {
			return footer{size: footerSize, toc: toc}, true
		}
	}
	if extra, ok := extraOf(tail, legacySize); ok {
		if toc, ok := tocOffset(extra); ok {
			return footer{size: legacySize, toc: toc, legacy: true}, true
		}
	}
	if extra, ok := extraOf(tail, externalSize); ok && string(extra) == "SG\x11\x00"+externalMagic {
		return footer{size: externalSize, external: true}, true
	}
	return footer{}, false
}

// extraOf returns the extra field of a footer of a given size.
func extraOf(tail []byte, size int) ([]byte, bool) {
	if len(tail) < size {
		return nil, false
	}
	b := tail[len(tail)-size:]
	const header = 12 // with the length of the extra field
	extra := b[header : size-len(emptyMember)]
	return extra, bytes.HasPrefix(b, gzipExtra) && int(b[10])|int(b[11])<<8 == len(extra) && bytes.HasSuffix(b, emptyMember)
}

func tocOffset(b []byte) (int64, bool) {
	if len(b) != offsetDigits+len(footerMagic) || string(b[offsetDigits:]) != footerMagic || b[0] == '+' || b[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b[:offsetDigits]), 16, 64)
	return n, err == nil && n >= 0
}
