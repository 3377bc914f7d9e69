package tarscan

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// bsdTar returns whether there is bsdtar, of libarchive.
func bsdTar() bool {
	out, err := exec.Command("bsdtar", "--version").Output()
	return err == nil && bytes.HasPrefix(out, []byte("bsdtar "))
}

// bsdDifferences compares what we make of a tar with what bsdtar makes of it:
// bsdtar writes all that it has read into a plain pax archive, which keeps
// order, nanoseconds, targets, xattrs and holes.
func (s *scannedTar) bsdDifferences() []string {
	if s.err != nil {
		return nil
	}
	var total int64
	for i := range s.entries {
		total += s.entries[i].Size
	}
	if total > maxCompared {
		return nil // its holes would be written; TestScannerBigSparse has these
	}
	var again bytes.Buffer
	err := runTar("bsdtar", s.data, &again, "LC_ALL=C.UTF-8", "--options", "pax:hdrcharset=BINARY", "--format=pax", "-cf", "-", "@-")
	var diffs []string
	n := 0
	readErr := readGo(again.Bytes(), func(g goEntry, content io.Reader) error {
		if n++; n > len(s.entries) || len(diffs) > 0 {
			return nil
		}
		e := s.entries[n-1]
		e.Name, g.Name = strings.TrimRight(e.Name, "/"), strings.TrimRight(g.Name, "/")
		diff, err := compareGo(s.data, &e, g, content)
		if diff != "" {
			diffs = append(diffs, fmt.Sprintf("entry %d: %s", n, strings.Replace(diff, "archive/tar", "bsdtar", 1)))
		}
		return err
	})
	switch {
	case err != nil:
		diffs = append(diffs, fmt.Sprintf("bsdtar reads %d of %d entries and fails", n, len(s.entries)))
	case readErr != nil:
		diffs = append(diffs, fmt.Sprintf("what bsdtar writes of it is refused by archive/tar: %v", readErr))
	case n != len(s.entries):
		diffs = append(diffs, fmt.Sprintf("bsdtar reads %d entries, not %d", n, len(s.entries)))
	}
	return diffs
}
