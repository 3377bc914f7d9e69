package gzip

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// The flags of a header: RFC 1952, 2.3.1. FTEXT is only a hint.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 0xe0
)

const (
	magic0, magic1 = 0x1f, 0x8b
	deflate        = 8
)

// nextMember reads the header of a member. It returns false if there is none:
// at the end of the file, or at something else that GNU gzip ignores.
func (s *stream) nextMember() (bool, error) {
	s.start = codec.Checkpoint{In: s.inf.In(), Out: s.inf.Out(), Start: true}
	c0, err := s.inf.ReadByte()
	if err == io.EOF && s.stage == behind {
		return false, nil
	}
	if err != nil {
		return false, s.endError(err)
	}
	if c0 == 0 && s.stage == behind {
		return false, nil
	}
	c1, err := s.inf.ReadByte()
	if err != nil {
		return false, s.endError(err)
	}
	switch {
	case c0 == magic0 && c1 == magic1:
		return true, s.readHeader()
	case s.stage == first:
		return false, s.fault(errMagic)
	case c0 == magic0 && isOld(c1):
		return false, s.fault(errOld)
	}
	return false, nil
}

// isOld tells whether c is the second magic byte of a format before gzip: pack,
// compress, an early gzip, lzh.
func isOld(c byte) bool { return c == 0x1e || c == 0x9d || c == 0x9e || c == 0xa0 }

// A headerReader reads bytes of a header and keeps their CRC. It remembers the
// first error, and returns zeros from then on.
type headerReader struct {
	s   *stream
	crc uint32
	err error
}

func (h *headerReader) byte() byte {
	if h.err != nil {
		return 0
	}
	var p [1]byte
	if p[0], h.err = h.s.inf.ReadByte(); h.err != nil {
		return 0
	}
	h.crc = crc32.Update(h.crc, crc32.IEEETable, p[:])
	return p[0]
}

func (h *headerReader) uint16() uint16 {
	lo := h.byte()
	return uint16(lo) | uint16(h.byte())<<8
}

// skip skips n bytes.
func (h *headerReader) skip(n int) {
	for ; n > 0 && h.err == nil; n-- {
		h.byte()
	}
}

// skipString skips bytes up to and with a zero.
func (h *headerReader) skipString() {
	for h.byte() != 0 && h.err == nil {
	}
}

// readHeader reads what is behind the magic bytes: RFC 1952, 2.3.
func (s *stream) readHeader() error {
	h := headerReader{s: s, crc: crc32.ChecksumIEEE([]byte{magic0, magic1})}
	method, flags := h.byte(), h.byte()
	if h.err == nil && method != deflate {
		return s.fault(errMethod)
	}
	if h.err == nil && flags&flagReserved != 0 {
		return s.fault(errFlags)
	}
	h.skip(6) // time, extra flags, system
	if flags&flagExtra != 0 {
		h.skip(int(h.uint16()))
	}
	if flags&flagName != 0 {
		h.skipString()
	}
	if flags&flagComment != 0 {
		h.skipString()
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(h.crc)
		if got := h.uint16(); h.err == nil && got != want {
			return s.fault(errHeader)
		}
	}
	if h.err != nil {
		return s.endError(h.err)
	}
	return nil
}

// readTrailer reads the end of a member, and checks it if all of the member's
// output was seen.
func (s *stream) readTrailer() error {
	var p [8]byte
	for i := range p {
		var err error
		if p[i], err = s.inf.ReadByte(); err != nil {
			return s.endError(err)
		}
	}
	if !s.whole {
		return nil
	}
	s.sum()
	if binary.LittleEndian.Uint32(p[:]) != s.crc {
		return s.fault(errChecksum)
	}
	if binary.LittleEndian.Uint32(p[4:]) != s.size {
		return s.fault(errLength)
	}
	return nil
}
