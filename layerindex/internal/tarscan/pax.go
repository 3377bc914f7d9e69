package tarscan

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/stringpool"
)

const xattrPrefix = "SCHILY.xattr."

// A paxHeader is the extended header that stands before an entry. The slices
// lie in body. Of records with the same keyword the last counts, and an empty
// one leaves what the entry's own header says, as in archive/tar. Only an
// xattr may be empty.
type paxHeader struct {
	body           []byte
	path, linkpath []byte
	size, uid, gid []byte
	mtime          []byte
	atime, ctime   []byte // checked, and otherwise of no use
	sparse         paxSparse
	xattrs         []layerindex.Xattr // sorted by name, no name twice
}

// reset makes h the empty header and keeps its memory.
func (h *paxHeader) reset() {
	*h = paxHeader{body: h.body[:0], xattrs: h.xattrs[:0]}
}

// parse reads the records of body. It returns the offset in body of the
// record that an error is about.
func (h *paxHeader) parse(text *stringpool.Pool) (int, error) {
	for rest := h.body; len(rest) > 0; {
		key, value, after, err := nextRecord(rest)
		if err == nil {
			err = h.set(key, value, text)
		}
		if err != nil {
			return len(h.body) - len(rest), err
		}
		rest = after
	}
	h.xattrs = sortXattrs(h.xattrs)
	return 0, nil
}

// set takes one record. What a value means is not looked at before an entry
// needs it: a later record or header may replace it.
func (h *paxHeader) set(key, value []byte, text *stringpool.Pool) error {
	switch string(key) {
	case "path":
		h.path = value
		return refuseNUL(key, value)
	case "linkpath":
		h.linkpath = value
		return refuseNUL(key, value)
	case "uname", "gname":
		return refuseNUL(key, value)
	case "size":
		h.size = value
	case "uid":
		h.uid = value
	case "gid":
		h.gid = value
	case "mtime":
		h.mtime = value
	case "atime":
		h.atime = value
	case "ctime":
		h.ctime = value
	default:
		if name, ok := bytes.CutPrefix(key, []byte(xattrPrefix)); ok {
			h.xattrs = append(h.xattrs, layerindex.Xattr{Name: text.Shared(name), Value: text.Shared(value)})
			return nil
		}
		return h.sparse.set(key, value)
	}
	return nil
}

// nextRecord splits "LENGTH KEY=VALUE\n" off b. LENGTH is decimal and counts
// the whole record.
func nextRecord(b []byte) (key, value, rest []byte, err error) {
	length, _, ok := bytes.Cut(b, []byte(" "))
	n, numErr := strconv.ParseInt(string(length), 10, 64)
	if !ok || numErr != nil || n > int64(len(b)) || n < int64(len(length))+2 {
		return nil, nil, nil, errors.New("malformed pax record: its length is not that of a record")
	}
	record, rest := b[len(length)+1:n], b[n:]
	record, ok = bytes.CutSuffix(record, []byte("\n"))
	if !ok {
		return nil, nil, nil, errors.New("malformed pax record: no line feed at its end")
	}
	key, value, ok = bytes.Cut(record, []byte("="))
	if !ok || len(key) == 0 || bytes.IndexByte(key, 0) >= 0 {
		return nil, nil, nil, errors.New("malformed pax record: its keyword is missing or has a NUL")
	}
	return key, value, rest, nil
}

func refuseNUL(key, value []byte) error {
	if bytes.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("NUL in the pax record %s", key)
	}
	return nil
}

// sortXattrs sorts by name and keeps the last of those with the same name.
func sortXattrs(x []layerindex.Xattr) []layerindex.Xattr {
	if len(x) < 2 {
		return x
	}
	slices.SortStableFunc(x, func(a, b layerindex.Xattr) int { return strings.Compare(a.Name, b.Name) })
	kept := x[:1]
	for _, a := range x[1:] {
		if last := &kept[len(kept)-1]; last.Name == a.Name {
			*last = a
		} else {
			kept = append(kept, a)
		}
	}
	return kept
}

// numbers puts the header's numbers over those of an entry's own header.
func (h *paxHeader) numbers(to *tarHeader) error {
	if err := paxNumber("size", h.size, &to.size); err != nil {
		return err
	}
	if err := paxNumber("uid", h.uid, &to.uid); err != nil {
		return err
	}
	return paxNumber("gid", h.gid, &to.gid)
}

func paxNumber(key string, value []byte, to *int64) error {
	if len(value) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return fmt.Errorf("pax record %s: %q is not a number", key, clip(value))
	}
	*to = n
	return nil
}

// times puts the header's time of modification over that of an entry's own
// header. The other times must be times too, as for archive/tar.
func (h *paxHeader) times(e *layerindex.Entry) error {
	for _, t := range []struct {
		key   string
		value []byte
	}{{"atime", h.atime}, {"ctime", h.ctime}, {"mtime", h.mtime}} {
		if len(t.value) == 0 {
			continue
		}
		sec, nsec, err := parseTime(t.value)
		if t.key != "mtime" && errors.Is(err, errTimeRange) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pax record %s: %w", t.key, err)
		}
		if t.key == "mtime" {
			e.ModSec, e.ModNsec = sec, nsec
		}
	}
	return nil
}

var errTimeRange = errors.New("time is out of range")

// parseTime reads seconds with any number of decimals, of which nine count.
func parseTime(value []byte) (sec int64, nsec uint32, err error) {
	whole, decimals, _ := bytes.Cut(value, []byte("."))
	sec, err = strconv.ParseInt(string(whole), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is not a time", clip(value))
	}
	for i, unit := 0, uint32(1e8); i < len(decimals); i, unit = i+1, unit/10 {
		c := decimals[i]
		if c < '0' || c > '9' {
			return 0, 0, fmt.Errorf("%q is not a time", clip(value))
		}
		nsec += uint32(c-'0') * unit
	}
	if whole[0] == '-' && nsec > 0 {
		if sec == math.MinInt64 {
			return 0, 0, fmt.Errorf("%w: %q", errTimeRange, clip(value))
		}
		sec, nsec = sec-1, 1e9-nsec
	}
	return sec, nsec, nil
}

// clip shortens foreign bytes for an error message.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
