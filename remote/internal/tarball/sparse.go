package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The bounds of sparse members: the extents of all members of an archive, 24
// bytes each in memory, and the bytes of one map. archive/tar takes no longer
// ones.
const (
	maxExtents = 1 << 20
	maxMap     = 1 << 20
)

// A sparseMap is the content of a sparse member: a file of size bytes that is
// zeros but for its extents.
type sparseMap struct {
	file    io.ReaderAt
	size    int64
	extents []extent // rising, none empty
}

// An extent is a run of bytes that are in the archive.
type extent struct {
	off, size int64 // in the file
	at        int64 // in the archive
}

func (e extent) end() int64 { return e.off + e.size }

// ReadAt implements io.ReaderAt.
func (m *sparseMap) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), m.size-off)]
	i, _ := slices.BinarySearchFunc(m.extents, off, func(e extent, off int64) int {
		if e.end() <= off {
			return -1
		}
		return 1
	})
	for n := 0; n < len(want); {
		at, rest := off+int64(n), want[n:]
		switch {
		case i == len(m.extents):
			clear(rest)
			n = len(want)
		case at < m.extents[i].off:
			hole := rest[:min(int64(len(rest)), m.extents[i].off-at)]
			clear(hole)
			n += len(hole)
		default:
			e := m.extents[i]
			got, err := m.file.ReadAt(rest[:min(int64(len(rest)), e.end()-at)], e.at+at-e.off)
			n += got
			if err == io.EOF && at+int64(got) < e.end() {
				err = io.ErrUnexpectedEOF
			}
			if err != nil && err != io.EOF {
				return n, err
			}
			i++
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// add adds an extent that is stored behind the others.
func (m *sparseMap) add(off, size int64) error {
	end, at := int64(0), int64(0) // at counts from the first stored byte
	if n := len(m.extents); n > 0 {
		end, at = m.extents[n-1].end(), m.extents[n-1].at+m.extents[n-1].size
	}
	if off < end || size < 0 || off > m.size || size > m.size-off {
		return fmt.Errorf("its map has %d bytes at %d, which do not fit behind %d in a file of %d bytes", size, off, end, m.size)
	}
	switch {
	case size == 0:
	case len(m.extents) == maxExtents:
		return fmt.Errorf("its map has more than %d extents", maxExtents)
	default:
		m.extents = append(m.extents, extent{off: off, size: size, at: at})
	}
	return nil
}

// stored returns how many bytes of the file the archive has.
func (m *sparseMap) stored() int64 {
	if n := len(m.extents); n > 0 {
		return m.extents[n-1].at + m.extents[n-1].size
	}
	return 0
}

// isSparse reports whether archive/tar takes a member for a sparse file.
func isSparse(h *tar.Header) bool {
	return h.Typeflag == tar.TypeGNUSparse || paxSparse(h) != ""
}

// paxSparse returns the version of GNU's pax formats that a sparse member has,
// and "" if it has none. archive/tar makes a map of format 0.1 out of the records
// of 0.0.
func paxSparse(h *tar.Header) string {
	version := h.PAXRecords["GNU.sparse.major"] + "." + h.PAXRecords["GNU.sparse.minor"]
	switch {
	case version == "1.0", version == "0.0", version == "0.1":
		return version
	case version == "." && h.PAXRecords["GNU.sparse.map"] != "":
		return "0.1"
	}
	return ""
}

// readSparse returns the map of a sparse member, whose first header begins at
// start and whose data begin at data, and how many bytes of data there are. file
// has all that comes before.
func readSparse(file io.ReaderAt, h *tar.Header, start, data int64) (m *sparseMap, stored int64, err error) {
	header, at, err := ownHeader(file, start, data)
	if err != nil {
		return nil, 0, err
	}
	if stored, err = bodySize(h, header); err != nil {
		return nil, 0, err
	}
	m = &sparseMap{file: file, size: h.Size}
	body := at + blockSize
	switch version := paxSparse(h); {
	case h.Typeflag == tar.TypeGNUSparse:
		err = m.readGNU(file, header, body, data)
	case version == "1.0":
		stored -= data - body
		err = m.readText(io.NewSectionReader(file, body, data-body))
	case data == body:
		err = m.readList(h.PAXRecords["GNU.sparse.map"])
	default:
		err = errMap
	}
	if err == nil && (stored < 0 || m.stored() > stored) {
		err = fmt.Errorf("its map tells of %d bytes, and %d are there", m.stored(), max(stored, 0))
	}
	if err != nil {
		return nil, 0, err
	}
	for i := range m.extents {
		m.extents[i].at += data
	}
	return m, stored, nil
}

var errMap = errors.New("its map is not where it should be")

// ownHeader returns the header of a member that begins at start and whose data
// begin at data, and where it is: behind those that only describe it.
func ownHeader(file io.ReaderAt, start, data int64) (*[blockSize]byte, int64, error) {
	var b [blockSize]byte
	for at := start; at >= 0 && at < data; {
		if _, err := file.ReadAt(b[:], at); err != nil {
			return nil, 0, err
		}
		switch b[156] {
		case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			n, err := parseNumber(b[124:136])
			if err != nil || n < 0 || n > maxMap {
				return nil, 0, errMap
			}
			at += blockSize + padded(n)
		default:
			return &b, at, nil
		}
	}
	return nil, 0, errMap
}

// bodySize returns the size of what follows a member's headers.
func bodySize(h *tar.Header, header *[blockSize]byte) (int64, error) {
	if text := h.PAXRecords["size"]; text != "" {
		return strconv.ParseInt(text, 10, 64)
	}
	return parseNumber(header[124:136])
}

// readGNU reads the map of GNU's old format: four extents in the header, and 21
// in each block between it, at body, and the data.
func (m *sparseMap) readGNU(file io.ReaderAt, header *[blockSize]byte, body, data int64) error {
	b := *header
	extents, more := b[386:482], b[482]
	for {
		for ; len(extents) >= 24 && extents[0] != 0; extents = extents[24:] {
			off, err := parseNumber(extents[:12])
			if err != nil {
				return err
			}
			size, err := parseNumber(extents[12:24])
			if err != nil {
				return err
			}
			if err := m.add(off, size); err != nil {
				return err
			}
		}
		if more == 0 || body >= data {
			break
		}
		if _, err := file.ReadAt(b[:], body); err != nil {
			return err
		}
		body += blockSize
		extents, more = b[:504], b[504]
	}
	if more != 0 || body != data {
		return errMap
	}
	return nil
}

// readText reads a map of format 1.0: how many extents there are, then offset and
// size of each, with a line feed behind each number.
func (m *sparseMap) readText(r *io.SectionReader) error {
	if r.Size() > maxMap {
		return errMap
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	next := func() (int64, error) {
		number, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			return 0, errMap
		}
		text = rest
		return strconv.ParseInt(string(number), 10, 64)
	}
	count, err := next()
	for ; err == nil && count > 0; count-- {
		var off, size int64
		if off, err = next(); err == nil {
			size, err = next()
		}
		if err == nil {
			err = m.add(off, size)
		}
	}
	return err
}

// readList reads a map of format 0.1: offsets and sizes with commas between them.
func (m *sparseMap) readList(list string) error {
	if list == "" {
		return nil
	}
	numbers := strings.Split(list, ",")
	for ; len(numbers) >= 2; numbers = numbers[2:] {
		off, err := strconv.ParseInt(numbers[0], 10, 64)
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(numbers[1], 10, 64)
		if err != nil {
			return err
		}
		if err := m.add(off, size); err != nil {
			return err
		}
	}
	return nil
}

// padded returns n rounded up to whole blocks.
func padded(n int64) int64 { return n + -n&(blockSize-1) }

// parseNumber reads a number of a header in base 256, whose first bit is a mark,
// or in octal. None of those that it reads is below zero.
func parseNumber(field []byte) (int64, error) {
	if field[0]&0x80 == 0 {
		text, _, _ := bytes.Cut(bytes.Trim(field, " \x00"), []byte{0})
		if len(text) == 0 {
			return 0, nil
		}
		return strconv.ParseInt(string(text), 8, 64)
	}
	n := int64(field[0] & 0x7f)
	for _, c := range field[1:] {
		if n > math.MaxInt64>>8 {
			return 0, errMap
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}
