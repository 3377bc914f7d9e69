package packages

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Tags and types of rpm's headers: rpmtag.h of rpm.
const (
	tagName    = 1000
	tagVersion = 1001
	tagRelease = 1002
	tagEpoch   = 1003
	tagArch    = 1022

	typeInt32  = 4
	typeString = 6
)

// The bounds of a header. rpm itself takes as many tags, and 256 MiB of data.
const (
	maxTags = 1 << 16
	maxData = 64 << 20
)

// parseHeader returns the package of a header as rpm's databases have it: the number of
// tags and the bytes of data, an entry of 16 bytes a tag, and the data.
func parseHeader(blob []byte) (Package, error) {
	bad := func(what string) (Package, error) { return Package{}, fmt.Errorf("%w: header: %s", ErrFormat, what) }
	if len(blob) < 8 {
		return bad("too short")
	}
	tags, size := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	if tags == 0 || tags > maxTags || size > maxData || 8+16*tags+size > int64(len(blob)) {
		return bad(fmt.Sprintf("%d tags and %d bytes of data in %d bytes", tags, size, len(blob)))
	}
	data := blob[8+16*tags:][:size]
	var name, version, release, arch, epoch string
	texts := map[uint32]*string{tagName: &name, tagVersion: &version, tagRelease: &release, tagArch: &arch}
	for i := range tags {
		e := blob[8+16*i:]
		tag, typ, off := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:]), int64(binary.BigEndian.Uint32(e[8:]))
		text, wanted := texts[tag]
		if !wanted && tag != tagEpoch {
			continue
		}
		switch {
		case wanted && typ == typeString && off < size:
			end := bytes.IndexByte(data[off:], 0)
			if end < 0 {
				return bad("a text without an end")
			}
			*text = string(data[off : off+int64(end)])
		case !wanted && typ == typeInt32 && off+4 <= size:
			epoch = fmt.Sprintf("%d:", binary.BigEndian.Uint32(data[off:]))
		default:
			return bad(fmt.Sprintf("tag %d of type %d at byte %d", tag, typ, off))
		}
	}
	if name == "" || version == "" || release == "" {
		return bad("no name, version or release")
	}
	return Package{Name: name, Version: epoch + version + "-" + release, Arch: arch}, nil
}
