package tarball_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A sparseFile is a file of size bytes with runs of data at some offsets.
type sparseFile struct {
	size int64
	runs [][2]int64 // offset, size
}

func (f sparseFile) content() []byte {
	b := make([]byte, f.size)
	for i, run := range f.runs {
		for j := range b[run[0] : run[0]+run[1]] {
			b[run[0]+int64(j)] = byte(1 + (i+j)%255)
		}
	}
	return b
}

// sparseFiles have all kinds of maps: those that fit into an old GNU header, into
// one block behind it, and into several.
func sparseFiles() map[string]sparseFile {
	many := func(n int64) sparseFile {
		f := sparseFile{size: 2*n*8192 + 5000}
		for i := range n {
			f.runs = append(f.runs, [2]int64{i*16384 + 4096, 4096})
		}
		return f
	}
	return map[string]sparseFile{
		"plain":     {1000, [][2]int64{{0, 1000}}},
		"hole":      {1 << 20, nil},
		"end":       {1<<20 + 7, [][2]int64{{1 << 20, 7}}},
		"start":     {1 << 20, [][2]int64{{0, 4096}}},
		"middle":    {1 << 20, [][2]int64{{65536, 8192}}},
		"dir/four":  many(4),
		"dir/five":  many(5),
		"dir/some":  many(30),
		"dir/lots":  many(120),
		"z/last.js": {300_000, [][2]int64{{0, 4096}, {200_704, 4096}, {299_008, 992}}},
	}
}

// writeSparse writes the files with holes below dir.
func writeSparse(t *testing.T, dir string, files map[string]sparseFile) {
	t.Helper()
	for name, s := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		content := s.content()
		for _, run := range s.runs {
			if _, err := f.WriteAt(content[run[0]:run[0]+run[1]], run[0]); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(s.size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// checkSparse reads all of each file, and pieces of it.
func checkSparse(t *testing.T, a *tarball.Archive, files map[string]sparseFile) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, s := range files {
		want := s.content()
		r, err := a.Member(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) || r.Size() != s.size {
			t.Errorf("%s: %d bytes of %d are not what was packed; error %v", name, len(got), s.size, err)
		}
		for range 50 {
			off := rnd.Int64N(s.size)
			p := make([]byte, rnd.IntN(40_000))
			n, err := r.ReadAt(p, off)
			if end := min(off+int64(len(p)), s.size); int64(n) != end-off || !bytes.Equal(p[:n], want[off:end]) || (err == nil) != (n == len(p)) || err != nil && err != io.EOF {
				t.Errorf("%s: ReadAt of %d bytes at %d: %d bytes, error %v", name, len(p), off, n, err)
			}
		}
	}
}

// Sparse members are read, whoever packed them and however.
func TestSparseMembers(t *testing.T) {
	testenv.Slow(t)
	files, dir := sparseFiles(), t.TempDir()
	writeSparse(t, dir, files)
	packers := map[string][]string{
		"gnu":      {"tar", "--format=gnu", "-S"},
		"pax 0.0":  {"tar", "--format=pax", "-S", "--sparse-version=0.0"},
		"pax 0.1":  {"tar", "--format=pax", "-S", "--sparse-version=0.1"},
		"pax 1.0":  {"tar", "--format=pax", "-S", "--sparse-version=1.0"},
		"bsd pax":  {"bsdtar", "--format=pax"},
		"bsd gnu":  {"bsdtar", "--format=gnutar"},
		"longname": {"tar", "--format=gnu", "-S", "--transform=s,^,./" + strings.Repeat("long/../", 30) + ","},
	}
	for name, command := range packers {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(command[0])
			if err != nil {
				t.Skip(err)
			}
			archive := filepath.Join(t.TempDir(), "a.tar")
			args := append(command[1:len(command):len(command)], "-C", dir, "-cf", archive, ".")
			if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, out) // busybox has no such flags
			}
			packed, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			if command[0] == "tar" && len(packed) > 2<<20 {
				t.Fatalf("%d bytes: the holes are in the archive", len(packed))
			}
			for _, content := range [][]byte{packed, zstded(t, packed), gzipped(t, packed)} {
				_, opts := newTemp(t, int64(len(packed)))
				a, err := tarball.Open(t.Context(), write(t, content), opts)
				if err != nil {
					t.Fatal(err)
				}
				checkSparse(t, a, files)
				a.Close()
			}
		})
	}
}

// paxSparseMember is a member of format 1.0 or 0.1 that says what records and map
// say, with data behind it.
func paxSparseMember(name string, records map[string]string, body string) []byte {
	var text strings.Builder
	for _, key := range []string{"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.numblocks", "GNU.sparse.map"} {
		if value, ok := records[key]; ok {
			n := len(key) + len(value) + 3
			for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
				n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
			}
			fmt.Fprintf(&text, "%d %s=%s\n", n, key, value)
		}
	}
	var buf bytes.Buffer
	for _, part := range []struct {
		flag          byte
		name, content string
	}{{'x', "x", text.String()}, {'0', name, body}} {
		// The writer of archive/tar writes no such records.
		block := make([]byte, 512)
		copy(block, part.name)
		copy(block[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c", 0o644, 0, 0, len(part.content), 0, part.flag))
		copy(block[257:], "ustar\x0000")
		setChecksum(block)
		buf.Write(block)
		buf.WriteString(part.content)
		buf.Write(make([]byte, -len(part.content)&511))
	}
	return buf.Bytes()
}

// setChecksum gives a header the checksum that it should have.
func setChecksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// text10 is a map of format 1.0 in whole blocks.
func text10(numbers ...int64) string {
	var s strings.Builder
	for _, n := range numbers {
		fmt.Fprintln(&s, n)
	}
	s.Write(make([]byte, -s.Len()&511))
	return s.String()
}

func records10(size string) map[string]string {
	return map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": size}
}

// A sparse member may say that it is of any size. It takes no room, the others can
// be read, and it is refused by name where it is needed, if it is too big.
func TestSparseMemberClaims(t *testing.T) {
	const huge = 1 << 60
	member := paxSparseMember("huge", records10(fmt.Sprint(int64(huge))), text10(2, 0, 4, huge-3, 3)+"headend")
	archive := append(member, tarOf(t, func(add func(tar.Header, string)) { add(file("small", "content")) })...)
	for _, content := range [][]byte{archive, zstded(t, archive)} {
		for _, limit := range []int64{0, 1 << 20, -1} {
			f, opts := newTemp(t, 1<<20)
			opts.MaxSize = limit
			a, err := tarball.Open(t.Context(), write(t, content), opts)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if n := f.written.Load(); n > int64(len(archive)) {
				t.Errorf("%d bytes were unpacked", n)
			}
			small, err := a.Member("small")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(small); string(got) != "content" {
				t.Errorf("got %q, %v", got, err)
			}
			r, err := a.Member("huge")
			if limit >= 0 {
				if !errors.Is(err, remote.ErrTooBig) || !strings.Contains(err.Error(), `"huge"`) {
					t.Errorf("got error %v, want %v that names it", err, remote.ErrTooBig)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 10)
			if n, err := r.ReadAt(p, huge-8); n != 8 || err != io.EOF || string(p[:n]) != "\x00\x00\x00\x00\x00end" {
				t.Errorf("the end: %q, error %v", p[:n], err)
			}
		}
	}
}

// starSparse is a sparse file as star wrote them before pax.
func starSparse() []byte {
	b := paxSparseMember("star", nil, "")[512:1024]
	b[156] = 'S'
	copy(b[508:], "tar\x00")
	setChecksum(b)
	return b
}

// A map that tells of more than there is, or is none, is refused, by name where
// archive/tar takes it.
func TestSparseMemberErrors(t *testing.T) {
	list := func(numbers, m string) map[string]string {
		return map[string]string{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.realsize": "1000", "GNU.sparse.numblocks": numbers, "GNU.sparse.map": m}
	}
	for name, tt := range map[string]struct {
		member []byte
		want   string
	}{
		"less than it says": {paxSparseMember("short", records10("1000"), text10(1, 0, 500)+"data"), `sparse file "short"`},
		"none of it":        {paxSparseMember("none", list("1", "0,500"), ""), `sparse file "none"`},
		"over the end":      {paxSparseMember("over", records10("1000"), text10(1, 600, 500)+strings.Repeat("d", 500)), `member "over" at byte 0`},
		"below zero":        {paxSparseMember("GNUSparseFile.1/below", records10("1000"), text10(1, -1, 4)+"data"), `sparse file "GNUSparseFile.1/below" at byte 0`},
		"backwards":         {paxSparseMember("back", list("2", "500,4,0,4"), "datadata"), `member "back" at byte 0`},
		"no map":            {paxSparseMember("nomap", records10("1000"), "data"), `member "nomap" at byte 0`},
		"of star":           {starSparse(), `sparse file "star" at byte 0`},
	} {
		t.Run(name, func(t *testing.T) {
			archive := append(tt.member, make([]byte, 1024)...)
			for _, content := range [][]byte{archive, zstded(t, archive)} {
				a, err := tarball.Open(t.Context(), write(t, content), nil)
				if err == nil {
					a.Close()
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got error %v, want one with %q", err, tt.want)
				}
			}
		})
	}
}

// The maps of all members together are bounded.
func TestSparseMemberExtents(t *testing.T) {
	var numbers []int64
	for i := range int64(60_000) {
		numbers = append(numbers, 2*i, 1)
	}
	const members = 18
	numbers = append([]int64{int64(len(numbers) / 2)}, numbers...)
	text := text10(numbers...) + strings.Repeat("d", 60_000)
	var archive []byte
	for i := range members {
		archive = append(archive, paxSparseMember(fmt.Sprint("m", i), records10("1000000"), text)...)
	}
	_, err := tarball.Open(t.Context(), write(t, append(archive, make([]byte, 1024)...)), nil)
	if err == nil || !strings.Contains(err.Error(), `"m17": with it, sparse files have more than`) {
		t.Errorf("got error %v, want one that names the last member", err)
	}
}

// A hard link is the file that has its target's name when it comes; contiguous
// files are files.
func TestLinksInOrder(t *testing.T) {
	content := tarOf(t, func(add func(tar.Header, string)) {
		add(file("a", "first"))
		add(link(tar.TypeLink, "b", "a"))
		add(file("a", "second"))
		add(link(tar.TypeLink, "a", "a"))
		h, body := file("cont", "contiguous")
		h.Typeflag = tar.TypeCont
		add(h, body)
		add(link(tar.TypeLink, "early", "late"))
		add(file("late", "third"))
	})
	a, err := tarball.Open(t.Context(), write(t, content), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for name, want := range map[string]string{"a": "second", "b": "first", "cont": "contiguous", "early": "third"} {
		r, err := a.Member(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); string(got) != want {
			t.Errorf("%s: %q, error %v; want %q", name, got, err, want)
		}
	}
}

// FuzzMembers compares the members of any archive with what archive/tar reads of it.
func FuzzMembers(f *testing.F) {
	name := func(h *tar.Header) string { return strings.TrimPrefix(filepath.Clean("/"+h.Name), "/") }
	for _, seed := range [][]byte{
		paxSparseMember("a", records10("600"), text10(2, 100, 4, 596, 4)+"datamore"),
		append(paxSparseMember("a", records10("9"), text10(1, 8, 1)+"x"), paxSparseMember("b", records10("7"), text10(0))...),
	} {
		f.Add(seed)
	}
	for _, format := range []string{"gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"} {
		dir := f.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "s"), []byte("start"), 0o644); err != nil {
			f.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "s"), 100_000); err != nil {
			f.Fatal(err)
		}
		args := append([]string{"-S", "-C", dir, "-cf", "-", "."}, strings.Fields("--format="+format)...)
		if b, err := exec.Command("tar", args...).Output(); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		archive = bytes.Clone(archive)
		for at := 0; at+512 <= len(archive); at += 512 {
			if b := archive[at : at+512]; string(b[257:262]) == "ustar" {
				setChecksum(b)
			}
		}
		const most = 1 << 20
		type content struct {
			text []byte
			err  error
		}
		want := map[string]content{}
		links := false
		tr := tar.NewReader(bytes.NewReader(archive))
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			switch h.Typeflag {
			case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
				if len(h.Name) > 4096 || len(h.Linkname) > 4096 {
					return // not kept
				}
				text, err := io.ReadAll(io.LimitReader(tr, most))
				want[name(h)] = content{text, err}
			case tar.TypeLink, tar.TypeSymlink:
				links = true
			}
		}
		a, err := tarball.Open(t.Context(), write(t, archive), &remote.ArchiveOptions{MaxSize: -1})
		if err != nil || links {
			return
		}
		defer a.Close()
		for name, w := range want {
			r, err := a.Member(name)
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			got, err := io.ReadAll(io.LimitReader(r, most))
			if w.err == nil && (err != nil || !bytes.Equal(got, w.text)) {
				t.Errorf("%q: %d bytes, %v; archive/tar reads %d", name, len(got), err, len(w.text))
			}
		}
	})
}
