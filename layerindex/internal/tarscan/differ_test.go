package tarscan

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A disagreement is one that Scanner and archive/tar are allowed to have.
// docs/semantics.md lists them, under the same names, with their reasons.
type disagreement string

const (
	agreed         disagreement = ""
	slashDirectory disagreement = "slash"
	strangeType    disagreement = "type"
	strangeOwner   disagreement = "owner"
	strangeDevice  disagreement = "device"
	strangeName    disagreement = "name"
	strangeTime    disagreement = "time"
	hugeSize       disagreement = "size"
)

// FuzzScannerAgrees composes tars and holds Scanner against archive/tar: both
// read the same entries, with the same contents, or both refuse the tar after
// the same entries, but for the disagreements that are listed.
func FuzzScannerAgrees(f *testing.F) {
	samples.SeedBytes(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{samples.Chooser{Data: data}}
		tarBytes := c.compose()
		if _, diff := compareReaders(tarBytes); diff != "" {
			t.Errorf("%s\ntar: %s", diff, withoutZeros(tarBytes))
		}
	})
}

// TestScannerAgrees is FuzzScannerAgrees with fixed tars, IMGFS_TARS of them,
// and sees to it that many are read by both.
func TestScannerAgrees(t *testing.T) {
	testenv.Slow(t)
	n := 5000
	if s := os.Getenv("IMGFS_TARS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	verdicts := map[string]int{}
	for seed := range n {
		tarBytes := composed(seed)
		allowed, diff := compareReaders(tarBytes)
		if diff != "" {
			t.Errorf("seed %d: %s\ntar: %s", seed, diff, withoutZeros(tarBytes))
		}
		if _, err := scanTar(tarBytes, 0, nil); err == nil && allowed == agreed {
			verdicts["read"]++
		}
		verdicts[string(allowed)]++
	}
	t.Logf("of %d tars: %v", n, verdicts)
	if verdicts["read"] < n/8 {
		t.Errorf("%d of %d tars are read and compared in full, want an eighth", verdicts["read"], n)
	}
}

// composed is a tar made of a seed.
func composed(seed int) []byte {
	b := make([]byte, 400)
	rng := rand.New(rand.NewPCG(uint64(seed), 13))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return (&chooser{samples.Chooser{Data: b}}).compose()
}

// withoutZeros quotes a tar with its runs of zeros left out.
func withoutZeros(b []byte) string {
	var s strings.Builder
	for part := range bytes.SplitSeq(b, []byte("\x00\x00")) {
		if len(part) > 0 {
			fmt.Fprintf(&s, "%q ", part)
		}
	}
	return s.String()
}

// compareReaders says how Scanner and archive/tar differ on a tar: by what is
// allowed, or, as text, by more.
func compareReaders(data []byte) (disagreement, string) {
	ours, err := scanTar(data, 0, nil)
	i, allowed := 0, agreed
	var diff string
	goErr := readHeaders(data, func(h *tar.Header, content io.Reader) error {
		g := convertGo(h)
		if i == len(ours) {
			i++
			if err == nil {
				diff = fmt.Sprintf("archive/tar has one more entry: %q", h.Name)
			} else if allowed = refusedFor(h); allowed == agreed {
				if err := drained(content); err != nil || h.Size > maxCompared {
					return cmp.Or(err, errStop) // archive/tar refuses it too, a little later
				}
				diff = fmt.Sprintf("refused after %d entries, %v; archive/tar reads %q", len(ours), err, h.Name)
			}
			return errStop
		}
		e := ours[i]
		if allowed = readOtherwise(h, &e); allowed == slashDirectory {
			g.Type = layerindex.TypeDir
		}
		var readErr error
		if diff, readErr = compareGo(data, &e, g, content); diff != "" {
			diff = fmt.Sprintf("entry %d: %s", i+1, diff)
			return errStop
		}
		i++
		return readErr
	})
	switch {
	case diff != "" || errors.Is(goErr, errStop):
		return allowed, diff
	case goErr == nil && err != nil:
		return agreed, fmt.Sprintf("refused after %d entries, %v; archive/tar reads %d", len(ours), err, i)
	case goErr != nil && err == nil:
		return agreed, fmt.Sprintf("read, %d entries; archive/tar refuses it after %d: %v", len(ours), i, goErr)
	case i < len(ours):
		return agreed, fmt.Sprintf("%d entries, %v; archive/tar refuses it after %d: %v", len(ours), err, i, goErr)
	}
	return allowed, ""
}

var errStop = errors.New("nothing behind this is compared")

// readHeaders hands on what archive/tar makes of a tar but for global headers.
func readHeaders(data []byte, each func(*tar.Header, io.Reader) error) error {
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && h.Typeflag != tar.TypeXGlobalHeader {
			err = each(h, r)
		}
		if err != nil {
			return err
		}
	}
}

// drained reads a content to its end, as far as that is sensible.
func drained(content io.Reader) error {
	_, err := io.CopyN(io.Discard, content, maxCompared)
	return notEOF(err)
}

// refusedFor tells why Scanner may refuse an entry that archive/tar reads.
func refusedFor(h *tar.Header) disagreement {
	g := convertGo(h)
	long := len(h.Name) > maxName || len(g.Linkname) > maxTarget
	for part := range strings.SplitSeq(h.Name, "/") {
		long = long || len(part) > maxNamePart
	}
	switch {
	case !strings.ContainsRune("01234567S", rune(h.Typeflag)):
		return strangeType
	case !isOwner(int64(h.Uid)) || !isOwner(int64(h.Gid)):
		return strangeOwner
	case (g.Type == layerindex.TypeChar || g.Type == layerindex.TypeBlock) && (h.Devmajor>>32 != 0 || h.Devminor>>32 != 0):
		return strangeDevice
	case long || strings.IndexByte(h.Name, 0) >= 0:
		return strangeName
	case g.ModSec > 1<<62 || g.ModSec < -1<<62:
		return strangeTime
	case h.Size > 1<<63-1-maxCompared:
		return hugeSize
	}
	return agreed
}

// readOtherwise tells why Scanner may make something else of an entry that
// archive/tar reads too.
func readOtherwise(h *tar.Header, ours *layerindex.Entry) disagreement {
	switch {
	case (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont) && h.Size == 0 && strings.HasSuffix(h.Name, "/") && ours.Type == layerindex.TypeDir:
		return slashDirectory
	}
	return agreed
}

// TestDisagreementsListed: docs/semantics.md has a row for each disagreement,
// a tar of its kind shows it, and there are no others.
func TestDisagreementsListed(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "semantics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "### Where archive/tar reads another tree")
	section, _, _ = strings.Cut(section, "\n## ")
	listed := map[disagreement]bool{}
	for line := range strings.Lines(section) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| ") && name != "kind" {
			listed[disagreement(name)] = true
		}
	}
	shown := map[disagreement]func(*rawTar){
		slashDirectory: func(w *rawTar) { w.header(rawHeader{name: "d/", flag: '0'}) },
		strangeType:    func(w *rawTar) { w.header(rawHeader{name: "d", flag: 'Z'}) },
		strangeOwner:   func(w *rawTar) { w.header(rawHeader{name: "a", uid: base256(-1<<31-1, 8)}) },
		strangeDevice:  func(w *rawTar) { w.header(rawHeader{name: "a", flag: '3', magic: magicUstar, minor: base256(-1, 8)}) },
		strangeName:    func(w *rawTar) { w.pax("path", strings.Repeat("n", 256)); w.header(rawHeader{name: "a"}) },
		strangeTime:    func(w *rawTar) { w.pax("mtime", "-9223372036854775808.5"); w.header(rawHeader{name: "a"}) },
		hugeSize:       func(w *rawTar) { w.header(rawHeader{name: "a", size: base256(1<<63-1, 12)}) },
	}
	for kind, compose := range shown {
		var w rawTar
		compose(&w)
		w.end()
		if got, diff := compareReaders(w.Bytes()); got != kind || diff != "" {
			t.Errorf("%s: got %q, %s", kind, got, diff)
		}
		if !listed[kind] {
			t.Errorf("docs/semantics.md does not list %q", kind)
		}
	}
	for kind := range listed {
		if shown[kind] == nil {
			t.Errorf("docs/semantics.md lists %q, which no tar shows", kind)
		}
	}
}
