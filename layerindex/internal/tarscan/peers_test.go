package tarscan

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/klauspost/compress/zstd"
)

var updateScanner = flag.Bool("update-scanner", false, "rewrite testdata/scanner-*.golden; reasons are kept, new ones have to be written")

// A goEntry is an entry as archive/tar reads it, in our terms.
type goEntry struct {
	layerindex.Entry
	flag byte
	odd  string // why a difference from it is meant: empty for most
}

// maxCompared bounds the contents that tests compare byte by byte: sparse files
// of some archives have 60 GB of holes. TestScannerBigSparse compares these.
const maxCompared = 4 << 20

// readGo reads a tar with archive/tar and hands each entry and its content to
// each. Global headers, which archive/tar hands on, are left out.
func readGo(data []byte, each func(goEntry, io.Reader) error) error {
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := each(convertGo(h), r); err != nil {
			return err
		}
	}
}

func convertGo(h *tar.Header) goEntry {
	g := goEntry{flag: h.Typeflag, Entry: layerindex.Entry{
		Name: h.Name, Type: layerindex.Type(h.Typeflag), Mode: uint32(h.Mode & 07777), UID: uint32(h.Uid), GID: uint32(h.Gid),
		ModSec: h.ModTime.Unix(), ModNsec: uint32(h.ModTime.Nanosecond()),
	}}
	switch h.Typeflag {
	case tar.TypeCont, tar.TypeGNUSparse:
		g.Type = layerindex.TypeReg
	case tar.TypeLink, tar.TypeSymlink:
		g.Linkname = h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		g.Major, g.Minor = uint32(h.Devmajor), uint32(h.Devminor)
		if h.Devmajor>>32 != 0 || h.Devminor>>32 != 0 {
			g.odd = "device number"
		}
	}
	if g.Type == layerindex.TypeReg {
		g.Size = h.Size
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok {
			g.Xattrs = append(g.Xattrs, layerindex.Xattr{Name: name, Value: h.PAXRecords[key]})
		}
		if strings.HasPrefix(key, "GNU.sparse.") {
			g.odd = "sparse"
		}
	}
	g.oddities(h)
	return g
}

// oddities tells what Scanner says it reads in another way than archive/tar.
func (g *goEntry) oddities(h *tar.Header) {
	long := isLong(h.Name) || len(g.Linkname) > maxTarget
	for part := range strings.SplitSeq(h.Name, "/") {
		long = long || len(part) > maxNamePart
	}
	switch {
	case h.Typeflag == tar.TypeGNUSparse:
		g.odd = "sparse"
	case !strings.ContainsRune("01234567", rune(h.Typeflag)):
		g.odd = "typeflag"
	case long:
		g.odd = "long name"
	case h.Uid < 0 || h.Gid < 0 || !isOwner(int64(h.Uid)) || !isOwner(int64(h.Gid)):
		g.odd = "owner"
	case g.ModSec > 1<<62 || g.ModSec < -1<<62:
		g.odd = "time" // archive/tar's wraps around
	case g.Type == layerindex.TypeReg && g.Size == 0 && strings.HasSuffix(h.Name, "/"):
		g.odd = "directory by its name"
	}
}

// A scannedTar is a tar and what we make of it.
type scannedTar struct {
	data    []byte
	entries []layerindex.Entry
	err     error
}

func scanned(data []byte) *scannedTar {
	entries, err := scanTar(data, 0, nil)
	return &scannedTar{data, entries, err}
}

// goDifferences returns the first difference to archive/tar, and the verdicts
// where they are not twice that all is well.
func (s *scannedTar) goDifferences() []string {
	var diffs []string
	n := 0
	goErr := readGo(s.data, func(g goEntry, content io.Reader) error {
		if n++; n > len(s.entries) {
			_, err := io.CopyN(io.Discard, content, maxCompared)
			return notEOF(err)
		}
		diff, err := compareGo(s.data, &s.entries[n-1], g, content)
		if diff != "" && len(diffs) == 0 {
			diffs = append(diffs, fmt.Sprintf("entry %d: %s", n, diff))
		}
		return err
	})
	switch {
	case s.err != nil && goErr == nil:
		diffs = append(diffs, fmt.Sprintf("refused after %d of %d entries: %v", len(s.entries), n, s.err))
	case s.err == nil && goErr != nil:
		diffs = append(diffs, fmt.Sprintf("read, %d entries; archive/tar after %d: %v", len(s.entries), n, goErr))
	case s.err != nil:
		diffs = append(diffs, fmt.Sprintf("refused, also by archive/tar, after %d entries: %v", len(s.entries), s.err))
	case n != len(s.entries):
		diffs = append(diffs, fmt.Sprintf("%d entries, archive/tar %d", len(s.entries), n))
	}
	return diffs
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// compareGo reports how our entry differs, and an error of reading content.
func compareGo(data []byte, ours *layerindex.Entry, g goEntry, content io.Reader) (string, error) {
	type plain struct {
		name, link                       string
		typ                              layerindex.Type
		mode, uid, gid, nsec, major, min uint32
		size, sec                        int64
		xattrs                           string
	}
	of := func(e *layerindex.Entry) plain {
		return plain{e.Name, e.Linkname, e.Type, e.Mode, e.UID, e.GID, e.ModNsec, e.Major, e.Minor, e.Size, e.ModSec, fmt.Sprintf("%q", e.Xattrs)}
	}
	if got, want := of(ours), of(&g.Entry); got != want {
		return fmt.Sprintf("%q, archive/tar %q", fmt.Sprint(got), fmt.Sprint(want)), nil
	}
	if g.Type != layerindex.TypeReg || g.Size > maxCompared {
		return "", nil
	}
	same, err := sameContent(scannedContent(data, ours), content)
	if err != nil {
		return "", err
	}
	if !same {
		return fmt.Sprintf("content of %q differs", ours.Name), nil
	}
	return "", nil
}

// sameContent compares to the end of both. The error is that of reading want.
func sameContent(got, want io.Reader) (bool, error) {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(want, b)
		m, _ := io.ReadFull(got, a)
		if !bytes.Equal(a[:m], b[:n]) {
			return false, nil
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && n < len(b) && m == n {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// A golden is a file of lines "name, difference, reason", tab between.
type golden struct {
	path string
	want map[string]string // "name\tdifference" to reason
	seen map[string]bool
}

func openGolden(t *testing.T, name string) *golden {
	g := &golden{path: filepath.Join("testdata", name), want: map[string]string{}, seen: map[string]bool{}}
	b, err := os.ReadFile(g.path)
	if err != nil && !*updateScanner {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if i := strings.LastIndexByte(line, '\t'); i >= 0 && line[0] != '#' {
			g.want[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	return g
}

// check holds the differences of one archive against the golden file.
func (g *golden) check(t *testing.T, name string, diffs []string) {
	for _, d := range diffs {
		key := name + "\t" + strings.ToValidUTF8(strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(d), "?")
		g.seen[key] = true
		if reason := g.want[key]; reason == "" || reason == "?" {
			t.Errorf("a difference without a reason: %s", key)
		}
	}
}

// finish reports what the golden file has and no archive showed; with skipped,
// some archives were not looked at.
func (g *golden) finish(t *testing.T, skipped bool) {
	if *updateScanner {
		g.write(t)
		return
	}
	for key := range g.want {
		if !g.seen[key] && !skipped {
			t.Errorf("no longer a difference: %s", key)
		}
	}
}

func (g *golden) write(t *testing.T) {
	var b strings.Builder
	b.WriteString("# archive, difference from what others read, reason; see scanner_peers_test.go\n")
	for _, key := range slices.Sorted(maps.Keys(g.seen)) {
		reason := g.want[key]
		if reason == "" {
			reason = "?"
		}
		fmt.Fprintf(&b, "%s\t%s\n", key, reason)
	}
	if err := os.MkdirAll("testdata", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// decoded reads an archive and undoes its compression by the bytes it begins
// with. It reports false if no decoder is there.
func decoded(t testing.TB, path string) ([]byte, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader
	switch ext := filepath.Ext(path); {
	case ext == ".base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		if r, err = gzip.NewReader(bytes.NewReader(b)); err != nil {
			return b, true
		}
	case bytes.HasPrefix(b, []byte("BZh")):
		r = bzip2.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")), ext == ".zst": // may begin with a skippable frame
		d, err := zstd.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		r = d
	case bytes.HasPrefix(b, []byte("\x1f\x9d")):
		return filtered(b, "gzip", "-dc")
	case bytes.HasPrefix(b, []byte("\xfd7zXZ")):
		return filtered(b, "xz", "-dc")
	default:
		return b, true
	}
	out, _ := io.ReadAll(io.LimitReader(r, 9<<20)) // one is 40 MB of zeros; what a damaged one gives is a tar that ends early
	return out, true
}

func filtered(b []byte, name string, args ...string) ([]byte, bool) {
	if _, err := exec.LookPath(name); err != nil {
		return nil, false
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, _ := cmd.Output()
	return out, true
}

// goVectors returns the archives that archive/tar is tested with.
func goVectors(t testing.TB) []string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no go command to find archive/tar's test archives with")
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src", "archive", "tar", "testdata")
	files, _ := filepath.Glob(filepath.Join(dir, "*.tar*"))
	if len(files) == 0 {
		t.Skipf("%s has no archives", dir)
	}
	return files
}
