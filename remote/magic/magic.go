// Package magic says what a file is, by its first bytes.
package magic

import (
	"bytes"
	"strconv"
)

// HeadSize is how many bytes of a file tell all that Of knows. Fewer do as well,
// and tell less.
const HeadSize = 66 << 10

// A Format is what a file turns out to be. The zero Format is unknown.
type Format struct {
	// Name says it in words: "gzip" of a compression, and otherwise with its
	// article, "a squashfs file system".
	Name string
	// Compression says that the file is something else, compressed.
	Compression bool
}

// String returns what a file of the format is, in words.
func (f Format) String() string {
	if f.Compression {
		return "data compressed with " + f.Name
	}
	return f.Name
}

// block is the unit of a tar.
const block = 512

// A signature are the bytes that a format has at an offset.
type signature struct {
	off   int
	bytes string
	Format
}

func compression(name, magic string) signature {
	return signature{0, magic, Format{name, true}}
}

// signatures are looked at in their order: what begins with them comes first, and
// of those the longer ones.
var signatures = []signature{
	compression("gzip", "\x1f\x8b"),
	compression("zstd", "\x28\xb5\x2f\xfd"),
	compression("xz", "\xfd7zXZ\x00"),
	compression("bzip2", "BZh"),
	compression("lz4", "\x04\x22\x4d\x18"),
	compression("lz4", "\x02\x21\x4c\x18"),
	compression("lzma", "\x5d\x00\x00"),
	compression("lzip", "LZIP"),
	compression("lzop", "\x89LZO\x00\r\n\x1a\n"),
	compression("lrzip", "LRZI"),
	compression("compress", "\x1f\x9d"),
	compression("pack", "\x1f\x1e"),
	compression("snappy", "\xff\x06\x00\x00sNaPpY"),
	compression("zlib", "\x78\x01"),
	compression("zlib", "\x78\x5e"),
	compression("zlib", "\x78\x9c"),
	compression("zlib", "\x78\xda"),
	{0, "PK\x03\x04", Format{"a zip archive", false}},
	{0, "PK\x05\x06", Format{"a zip archive", false}},
	{0, "7z\xbc\xaf\x27\x1c", Format{"a 7z archive", false}},
	{0, "Rar!\x1a\x07", Format{"a rar archive", false}},
	{0, "070701", Format{"a cpio archive", false}},
	{0, "070702", Format{"a cpio archive", false}},
	{0, "070707", Format{"a cpio archive", false}},
	{0, "\xc7\x71", Format{"a cpio archive", false}},
	{0, "!<arch>\n", Format{"an ar archive, as Debian's packages are", false}},
	{0, "\xed\xab\xee\xdb", Format{"an RPM package", false}},
	{0, "hsqs", Format{"a squashfs file system", false}},
	{0, "sqsh", Format{"a squashfs file system", false}},
	{0, "XFSB", Format{"an XFS file system", false}},
	{0, "QFI\xfb", Format{"a disk image of QEMU (qcow2)", false}},
	{0, "KDMV", Format{"a disk image of VMware", false}},
	{0, "vhdxfile", Format{"a disk image of Hyper-V", false}},
	{0, "conectix", Format{"a disk image of Hyper-V", false}},
	{0, "\x7fELF", Format{"an ELF program", false}},
	{0, "version https://git-lfs.github.com/spec/", Format{"a pointer of Git LFS, in place of the file (git lfs pull)", false}},
	{0, "<!DOCTYPE", Format{"an HTML page", false}},
	{0, "<!doctype", Format{"an HTML page", false}},
	{0, "<html", Format{"an HTML page", false}},
	{0, "{", Format{"a JSON document", false}},
	{0, "[", Format{"a JSON document", false}},
	{32, "SIF_MAGIC", Format{"a Singularity image file (SIF)", false}},
	{0x8001, "CD001", Format{"an ISO 9660 image", false}},
	{1024, "\xe2\xe1\xf5\xe0", Format{"an EROFS file system", false}},
	{0x438, "\x53\xef", Format{"an ext2, ext3 or ext4 file system", false}},
	{0x10040, "_BHRfS_M", Format{"a btrfs file system", false}},
	{512, "EFI PART", Format{"a disk image with partitions", false}},
	{510, "\x55\xaa", Format{"a disk image", false}},
	{0, "#!", Format{"a script", false}},
}

// Of returns the format of what begins with head, of which HeadSize bytes are
// enough. A tar is none of them: ask IsTar first, as the name of a tar's first
// member may be the magic of anything.
func Of(head []byte) Format {
	if isSkippable(head) {
		return Format{"zstd", true}
	}
	for _, s := range signatures {
		if len(head) >= s.off && bytes.HasPrefix(head[s.off:], []byte(s.bytes)) {
			return s.Format
		}
	}
	return Format{}
}

// isSkippable tells whether a skippable frame of zstd comes first (RFC 8878, section
// 3.1.2), as pzstd writes them. lz4 has the same.
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}

// IsTar reports whether head begins with a tar header: whether its checksum is
// right, which is the sum of its bytes, with the field itself as spaces. Some
// programs take the bytes as signed.
func IsTar(head []byte) bool {
	if len(head) < block {
		return false
	}
	const field, end = 148, 156
	text, _, _ := bytes.Cut(bytes.Trim(head[field:end], " \x00"), []byte{0})
	want, err := strconv.ParseInt(string(text), 8, 32)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range head[:block] {
		if field <= i && i < end {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}
