package layertest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// TarOf writes the members of a layer as a tar in the pax format, block by
// block: archive/tar writes no sparse files, and not all of the numbers.
func TarOf(members []Member) []byte {
	var w bytes.Buffer
	for _, m := range members {
		body, stored := m.Data, ""
		records := []string{
			"hdrcharset", "BINARY", "path", m.Name,
			"uid", fmt.Sprint(m.UID), "gid", fmt.Sprint(m.GID), "mtime", paxTime(m.ModSec, m.ModNsec),
		}
		if m.Linkname != "" {
			records = append(records, "linkpath", m.Linkname)
		}
		for _, x := range m.Xattrs {
			records = append(records, "SCHILY.xattr."+x.Name, x.Value)
		}
		if m.Sparse != nil {
			records[2] = "GNU.sparse.name"
			records = append(records, "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", fmt.Sprint(m.Size))
			// The empty extent at the end is how GNU tar sees a hole there.
			stored = fmt.Sprintln(len(m.Sparse) + 1)
			for _, x := range m.Sparse {
				stored += fmt.Sprintf("%d\n%d\n", x.Off, x.Size)
			}
			stored += fmt.Sprintf("%d\n0\n", m.Size)
			body = padded(stored) + body
		}
		var pax strings.Builder
		for i := 0; i < len(records); i += 2 {
			pax.WriteString(paxRecord(records[i], records[i+1]))
		}
		tarHeader(&w, "pax", 'x', nil, pax.Len())
		w.WriteString(padded(pax.String()))
		tarHeader(&w, "name", byte(m.Type), &m, len(body))
		w.WriteString(padded(body))
	}
	w.Write(make([]byte, 1024))
	return w.Bytes()
}

// tarHeader writes a ustar header. What members have beyond type, mode and
// device is in records before it.
func tarHeader(w *bytes.Buffer, name string, flag byte, m *Member, size int) {
	b := make([]byte, 512)
	copy(b, name)
	var major, minor uint32
	mode := uint32(0o644)
	if m != nil {
		mode, major, minor = m.Mode, m.Major, m.Minor
	}
	copy(b[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c", mode, 0, 0, size, 0, flag))
	if flag == byte(layerindex.TypeLink) || flag == byte(layerindex.TypeSymlink) {
		copy(b[157:], "target")
	}
	copy(b[257:], "ustar\x0000")
	copy(b[329:], fmt.Sprintf("%07o\x00%07o\x00", major, minor))
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	w.Write(b)
}

// padded fills up to whole blocks.
func padded(s string) string { return s + string(make([]byte, -len(s)&511)) }

// paxTime writes seconds and nanoseconds, to be added, as one number.
func paxTime(sec int64, nsec uint32) string {
	if sec < 0 && nsec > 0 {
		return fmt.Sprintf("-%d.%09d", -sec-1, 1e9-nsec)
	}
	return fmt.Sprintf("%d.%09d", sec, nsec)
}

// paxRecord is "length key=value\n", where length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for len(fmt.Sprint(n))+len(rest) > n {
		n++
	}
	return fmt.Sprint(n) + rest
}
