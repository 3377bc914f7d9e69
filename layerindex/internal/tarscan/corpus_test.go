package tarscan

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// sharedCorpus returns the folder of archives that other projects made.
func sharedCorpus() (string, error) {
	dir := testenv.Shared("corpora")
	_, err := os.Stat(filepath.Join(dir, "tar", "INDEX.tsv"))
	return dir, err
}

// An archive is a tar of others.
type archive struct {
	name, path string
	row        []string // of INDEX.tsv, if it is there
}

// goArchives are those that archive/tar is tested with.
func goArchives(t *testing.T) []archive {
	var list []archive
	for _, path := range goVectors(t) {
		list = append(list, archive{name: "go/" + filepath.Base(path), path: path})
	}
	return list
}

// corpusArchives are those of five other projects and, of the images that
// others made, the single layers.
func corpusArchives(t *testing.T, dir string) []archive {
	index, err := os.ReadFile(filepath.Join(dir, "tar", "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var list []archive
	for line := range strings.Lines(string(index)) {
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		path := filepath.Join(dir, filepath.FromSlash(row[0]))
		if _, err := os.Stat(path); os.IsNotExist(err) {
			t.Logf("%s: missing", row[0])
		} else if !strings.HasSuffix(row[0], ".json") { // node-tar's expectations
			list = append(list, archive{row[0], path, row})
		}
	}
	for _, pattern := range []string{"claircore/*/*.tar", "claircore/*/*.layer", "claircore/tarfs/known/*.tar", "fanal/opq*.tar", "grootfs/hacked.tar", "jib/extraction/*compressed.*"} {
		paths, _ := filepath.Glob(filepath.Join(dir, "images", filepath.FromSlash(pattern)))
		for _, path := range paths {
			name, _ := filepath.Rel(dir, path)
			list = append(list, archive{name: filepath.ToSlash(name), path: path})
		}
	}
	return list
}

// TestScannerCorpus: the archives that archive/tar is tested with and those of
// other projects give the entries and contents that archive/tar, GNU tar and
// bsdtar read. testdata/scanner-corpus.golden says where not, and why.
func TestScannerCorpus(t *testing.T) {
	testenv.Slow(t)
	gnu, bsd := gnuTar(), bsdTar()
	if gnu == "" || !bsd {
		t.Logf("to compare with: GNU tar %q, bsdtar %v", gnu, bsd)
	}
	skipped := gnu == "" || !bsd
	archives := goArchives(t)
	if dir, err := sharedCorpus(); err == nil {
		archives = append(archives, corpusArchives(t, dir)...)
	} else {
		t.Logf("no archives of other projects: %v", err)
		skipped = true
	}
	g := openGolden(t, "scanner-corpus.golden")
	known := map[[32]byte][]string{} // many archives are there twice
	for _, a := range archives {
		data, ok := decoded(t, a.path)
		if !ok {
			t.Logf("%s: nothing to decompress it with", a.name)
			skipped = true
			continue
		}
		ours := scanned(data)
		diffs, ok := known[sha256.Sum256(data)]
		if !ok {
			diffs = ours.goDifferences()
			if gnu != "" {
				diffs = append(diffs, ours.gnuDifferences(t, gnu)...)
			}
			if bsd {
				diffs = append(diffs, ours.bsdDifferences()...)
			}
			known[sha256.Sum256(data)] = slices.Clip(diffs)
		}
		if a.row != nil {
			diffs = append(diffs, ours.bsdCount(a.row)...)
		}
		g.check(t, a.name, diffs)
	}
	g.finish(t, skipped)
}

// bsdCount compares the number of entries with what INDEX.tsv has of bsdtar,
// where that had nothing to say.
func (s *scannedTar) bsdCount(row []string) []string {
	verdict, _ := strings.CutPrefix(row[len(row)-1], "bsd: ")
	n, message, _ := strings.Cut(verdict, " ")
	if s.err != nil || message != "" || n == strconv.Itoa(len(s.entries)) {
		return nil
	}
	return []string{fmt.Sprintf("bsdtar lists %s, not %d", n, len(s.entries))}
}

// gnuTar returns the command of GNU tar, if there is one.
func gnuTar() string {
	for _, name := range []string{"tar", "gtar"} {
		if out, err := exec.Command(name, "--version").Output(); err == nil && bytes.Contains(out, []byte("GNU tar")) {
			return name
		}
	}
	return ""
}

// runTar runs a tar command on data. Arguments before the first that begins
// with a dash are added to its environment.
func runTar(command string, data []byte, stdout io.Writer, args ...string) error {
	env := append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	for !strings.HasPrefix(args[0], "-") {
		env, args = append(env, args[0]), args[1:]
	}
	cmd := exec.Command(command, args...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout = bytes.NewReader(data), stdout
	return cmd.Run()
}

// gnuDifferences compares what we make of a tar with GNU tar's list and, all
// contents in a row, with what it extracts.
func (s *scannedTar) gnuDifferences(t *testing.T, command string) []string {
	ours := s.entries
	var list bytes.Buffer
	err := runTar(command, s.data, &list, "--numeric-owner", "--full-time", "--quoting-style=escape", "-P", "-tvf", "-")
	lines := strings.SplitAfter(list.String(), "\n")
	lines = lines[:len(lines)-1]
	switch {
	case err != nil && s.err == nil:
		return []string{fmt.Sprintf("GNU tar lists %d and fails", len(lines))}
	case err == nil && s.err != nil:
		return []string{fmt.Sprintf("GNU tar lists %d", len(lines))}
	case err != nil:
		return nil
	case len(lines) != len(ours):
		return []string{fmt.Sprintf("GNU tar lists %d, not %d", len(lines), len(ours))}
	}
	var total int64
	for i := range ours {
		if got, want := gnuLine(&ours[i]), gnuFields(t, lines[i], &ours[i]); got != want {
			return []string{fmt.Sprintf("entry %d: %s, GNU tar %s", i+1, got, want)}
		}
		total += ours[i].Size
	}
	if total > maxCompared {
		return nil
	}
	return s.gnuContents(command)
}

func (s *scannedTar) gnuContents(command string) []string {
	var readers []io.Reader
	for i := range s.entries {
		if e := &s.entries[i]; e.Type == layerindex.TypeReg {
			readers = append(readers, scannedContent(s.data, e))
		}
	}
	pipe, extracted := io.Pipe()
	same := make(chan bool)
	go func() {
		ok, _ := sameContent(io.MultiReader(readers...), pipe)
		pipe.Close()
		same <- ok
	}()
	err := runTar(command, s.data, extracted, "-P", "-xOf", "-")
	extracted.Close()
	switch ok := <-same; {
	case err != nil:
		return []string{"GNU tar does not extract all"}
	case !ok:
		return []string{"contents are not what GNU tar extracts"}
	}
	return nil
}

// gnuFields takes a line of GNU tar's list apart: permissions, owner, size or
// device, day, time, name.
func gnuFields(t *testing.T, line string, e *layerindex.Entry) string {
	m := regexp.MustCompile(`^(\S+) (\S+) +(\S+) (\S+) (\S+) +(.*)\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("GNU tar lists %q", line)
	}
	if m[1][0] == 'C' {
		m[1] = "-" + m[1][1:]
	}
	if e.Type != layerindex.TypeReg && e.Type != layerindex.TypeChar && e.Type != layerindex.TypeBlock {
		m[3] = "0" // GNU tar shows the field of the header
	}
	if !timeShown(e) {
		m[4], m[5] = "", ""
	}
	return strings.Join([]string{m[1], m[2], m[3], m[4], m[5], strings.TrimRight(m[6], "/")}, " ")
}

// gnuLine is the line that GNU tar would list e with.
func gnuLine(e *layerindex.Entry) string {
	letter := map[layerindex.Type]string{layerindex.TypeReg: "-", layerindex.TypeLink: "h", layerindex.TypeSymlink: "l", layerindex.TypeChar: "c", layerindex.TypeBlock: "b", layerindex.TypeDir: "d", layerindex.TypeFifo: "p"}[e.Type]
	perm := []byte("rwxrwxrwx")
	for i := range perm {
		if e.Mode>>(8-i)&1 == 0 {
			perm[i] = '-'
		}
	}
	for i, bit := range []uint32{0o4000, 0o2000, 0o1000} {
		if e.Mode&bit != 0 {
			at := i*3 + 2
			perm[at] = map[bool]string{true: "sst", false: "SST"}[perm[at] == 'x'][i]
		}
	}
	size := strconv.FormatInt(e.Size, 10)
	if e.Type == layerindex.TypeChar || e.Type == layerindex.TypeBlock {
		size = fmt.Sprintf("%d,%d", e.Major, e.Minor)
	}
	when := " "
	if timeShown(e) {
		when = time.Unix(e.ModSec, int64(e.ModNsec)).UTC().Format("2006-01-02 15:04:05.999999999")
	}
	name := strings.TrimRight(gnuEscape(e.Name), "/")
	switch e.Type {
	case layerindex.TypeSymlink:
		name = gnuEscape(e.Name) + " -> " + strings.TrimRight(gnuEscape(e.Linkname), "/")
	case layerindex.TypeLink:
		name = gnuEscape(e.Name) + " link to " + strings.TrimRight(gnuEscape(e.Linkname), "/")
	}
	return fmt.Sprintf("%s%s %d/%d %s %s %s", letter, perm, e.UID, e.GID, size, when, name)
}

// timeShown: GNU tar shows times beyond these as numbers.
func timeShown(e *layerindex.Entry) bool { return e.ModSec > -1<<40>>5 && e.ModSec < 1<<37 }

func gnuEscape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch i := strings.IndexByte("\a\b\f\n\r\t\v\\", c); {
		case i >= 0:
			b.WriteString(`\` + string(`abfnrtv\`[i]))
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
