package tarball_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/remote/internal/tarball"
)

func file(name, content string) (tar.Header, string) {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content
}

func link(typeflag byte, name, target string) (tar.Header, string) {
	return tar.Header{Typeflag: typeflag, Name: name, Linkname: target, Mode: 0o777}, ""
}

// tarOf writes a tar with add.
func tarOf(t *testing.T, fill func(add func(tar.Header, string))) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	fill(func(h tar.Header, content string) {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// example has each oddity that Member handles.
func example(t *testing.T) []byte {
	return tarOf(t, func(add func(tar.Header, string)) {
		add(link(tar.TypeDir, "dir/", ""))
		add(file("a", "first"))
		add(file("./dir/b", "bee"))
		add(file("/abs", "absolute"))
		add(file("../../up", "up"))
		add(file(strings.Repeat("long/", 60)+"name", "long"))
		add(file("empty", ""))
		add(file("a", "last"))
		add(link(tar.TypeSymlink, "dir/one/layer.tar", "../two/layer.tar"))
		add(file("dir/two/layer.tar", "layer"))
		add(link(tar.TypeSymlink, "rooted", "/dir/b"))
		add(link(tar.TypeSymlink, "outside", "../../../../dir/b"))
		add(link(tar.TypeLink, "hard", "dir/b"))
		add(link(tar.TypeSymlink, "twice", "hard"))
		add(link(tar.TypeSymlink, "loop", "pool"))
		add(link(tar.TypeSymlink, "pool", "loop"))
		add(link(tar.TypeSymlink, "dangling", "nowhere"))
		add(link(tar.TypeFifo, "fifo", ""))
		add(file("z", strings.Repeat("z", 10_000)))
	})
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	// Two members, as pigz and concatenation make them.
	for _, part := range [][]byte{content[:1000], content[1000:]} {
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func zstded(t *testing.T, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(content, nil)
}

func filtered(t *testing.T, content []byte, command string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("%s is not installed", command)
	}
	cmd := exec.Command(command, append(args, "-c")...)
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMember(t *testing.T) {
	plain := example(t)
	for _, c := range []struct {
		name    string
		content func(t *testing.T) []byte
	}{
		{"plain", func(*testing.T) []byte { return plain }},
		{"gzip", func(t *testing.T) []byte { return gzipped(t, plain) }},
		{"zstd", func(t *testing.T) []byte { return zstded(t, plain) }},
		{"zstd after a skippable frame", func(t *testing.T) []byte {
			return append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), zstded(t, plain)...)
		}},
		{"bzip2", func(t *testing.T) []byte { return filtered(t, plain, "bzip2") }},
		{"xz", func(t *testing.T) []byte { return filtered(t, plain, "xz") }},
		{"xz with a filter", func(t *testing.T) []byte { return filtered(t, plain, "xz", "--x86", "--lzma2") }},
		{"xz in two streams", func(t *testing.T) []byte {
			return append(filtered(t, plain[:1000], "xz", "-C", "sha256"), filtered(t, plain[1000:], "xz", "-C", "crc32")...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			a, err := tarball.Open(t.Context(), write(t, c.content(t)), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
				t.Errorf("the temporary file has a name: %v, error %v", left, err)
			}
			checkExample(t, a)
		})
	}
}

func checkExample(t *testing.T, a *tarball.Archive) {
	t.Helper()
	for name, want := range map[string]string{
		"a": "last", "./a": "last", "/a": "last", "dir/b": "bee", "dir//b": "bee", "abs": "absolute", "up": "up",
		strings.Repeat("long/", 60) + "name": "long", "empty": "",
		"dir/one/layer.tar": "layer", "dir/two/layer.tar": "layer", "rooted": "bee", "outside": "bee", "hard": "bee", "twice": "bee",
		"z": strings.Repeat("z", 10_000),
	} {
		r, err := a.Member(name)
		if err != nil {
			t.Errorf("Member(%q): %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want || r.Size() != int64(len(want)) {
			t.Errorf("Member(%q): got %.20q, size %d, error %v, want %.20q", name, got, r.Size(), err, want)
		}
	}
	for _, name := range []string{"", "b", "dir", "loop", "dangling", "fifo", "../../../etc/passwd"} {
		if _, err := a.Member(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Member(%q): got error %v, want %v", name, err, fs.ErrNotExist)
		}
	}
}

// TestMembersOfOtherTypes: what is in an archive and is no file is named as what it is.
// A type that nobody defined is a file, as for archive/tar.
func TestMembersOfOtherTypes(t *testing.T) {
	t.Parallel()
	type entry struct {
		typeflag byte
		content  string
	}
	entries := map[string]entry{
		"directory": {typeflag: tar.TypeDir}, "char": {typeflag: tar.TypeChar}, "block": {typeflag: tar.TypeBlock}, "pipe": {typeflag: tar.TypeFifo},
		"dump": {'D', "Yfile\x00\x00"}, "rest": {'M', "rest"}, "volume": {'V', ""}, "old": {'N', "old"},
		"unknown": {'Z', "content"}, "contiguous": {tar.TypeCont, "content"},
	}
	content := tarOf(t, func(add func(tar.Header, string)) {
		for name, e := range entries {
			add(tar.Header{Typeflag: e.typeflag, Name: name, Mode: 0o644, Size: int64(len(e.content))}, e.content)
		}
		add(link(tar.TypeSymlink, "link", "pipe"))
	})
	says := map[string]string{
		"directory": "is a directory", "char": "is a device", "block": "is a device", "pipe": "is a named pipe", "link": "is a named pipe",
		"dump": "is GNU tar's list of a directory", "rest": "is the rest of a file of another volume", "volume": "is the name of a volume", "old": "is GNU tar's list of old names",
	}
	for kind, content := range map[string][]byte{"plain": content, "gzip": gzipped(t, content)} {
		a, err := tarball.Open(t.Context(), write(t, content), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for name, want := range says {
			if _, err := a.Member(name); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, tarball.ErrNotFile) || err.Error() != fmt.Sprintf("%q %s in the archive, not a file", name, want) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
		for _, name := range []string{"unknown", "contiguous"} {
			r, err := a.Member(name)
			if err != nil {
				t.Errorf("%s, %s: %v", kind, name, err)
				continue
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != "content" {
				t.Errorf("%s, %s: %q, %v", kind, name, got, err)
			}
		}
		if _, err := a.Member("nothing"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, tarball.ErrNotFile) {
			t.Errorf("%s, nothing: %v", kind, err)
		}
	}
}

func TestOpenPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Skipf("cannot make a fifo: %v", err)
	}
	content := example(t)
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(name, content, 0) }()
	a, err := tarball.Open(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	checkExample(t, a)
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// manyMembers is a tar of 65,537 empty files, made from one header.
func manyMembers(t *testing.T) []byte {
	header := tarOf(t, func(add func(tar.Header, string)) { add(file("00000", "")) })[:512]
	var sum int
	if _, err := fmt.Sscanf(string(header[148:154]), "%o", &sum); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	for i := range 1<<16 + 1 {
		name := fmt.Sprintf("%05d", i)
		n := sum
		for _, c := range name {
			n += int(c - '0')
		}
		copy(header, name)
		copy(header[148:], fmt.Sprintf("%06o", n))
		buf.Write(header)
	}
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

func TestOpenErrors(t *testing.T) {
	plain := example(t)
	// Its one member says that it is a terabyte.
	var huge bytes.Buffer
	if err := tar.NewWriter(&huge).WriteHeader(&tar.Header{Name: "x", Size: 1 << 40, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	huge.WriteString("short")
	flipped := gzipped(t, plain)
	flipped[len(flipped)-6] ^= 1
	for name, content := range map[string][]byte{
		"text":            []byte(strings.Repeat("not a tar\n", 200)),
		"cut":             plain[:len(plain)-8000],
		"cut in a header": plain[:700],
		"huge member":     huge.Bytes(),
		"gzip of text":    gzipped(t, []byte(strings.Repeat("not a tar\n", 200))),
		"cut gzip":        gzipped(t, plain)[:300],
		"damaged gzip":    flipped,
		"cut zstd":        zstded(t, plain)[:300],
		"xz":              append([]byte("\xfd7zXZ\x00"), make([]byte, 100)...),
	} {
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		if a, err := tarball.Open(t.Context(), write(t, content), nil); err == nil {
			a.Close()
			t.Errorf("%s: no error", name)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, error %v", name, left, err)
		}
	}
	if _, err := tarball.Open(t.Context(), filepath.Join(t.TempDir(), "absent"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: got error %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := tarball.Open(t.Context(), t.TempDir(), nil); err == nil {
		t.Error("a directory: no error")
	}
}

func TestOpenManyMembers(t *testing.T) {
	_, err := tarball.Open(t.Context(), write(t, manyMembers(t)), nil)
	if err == nil || !strings.Contains(err.Error(), "more than 65536 members") {
		t.Errorf("got error %v, want one for the number of members", err)
	}
}

func TestOpenEmpty(t *testing.T) {
	for _, content := range [][]byte{nil, make([]byte, 1024)} {
		a, err := tarball.Open(t.Context(), write(t, content), nil)
		if err != nil {
			t.Errorf("%d zeros: %v", len(content), err)
			continue
		}
		defer a.Close()
		if _, err := a.Member("x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d zeros: got error %v, want %v", len(content), err, fs.ErrNotExist)
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, content := range [][]byte{example(t), gzipped(t, example(t))} {
		if _, err := tarball.Open(ctx, write(t, content), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	}
}

// TestNotCompressed has tars whose first name begins like what is compressed.
func TestNotCompressed(t *testing.T) {
	for _, name := range []string{"BZh91", "BZh91AY&SY", "\x1f\x8b\x08x", "\x28\xb5\x2f\xfdx", "\x50\x2a\x4d\x18", "\xfd7zXZ", "\x04\x22\x4d\x18", "LZIP"} {
		plain := tarOf(t, func(add func(tar.Header, string)) {
			h, content := file(name, "x")
			h.Format = tar.FormatGNU
			add(h, content)
		})
		r, compressed, err := tarball.Decompress(t.Context(), bytes.NewReader(plain))
		if err != nil || compressed {
			t.Errorf("%q: got compressed %v, error %v", name, compressed, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q: got %d bytes and error %v, want %d", name, len(got), err, len(plain))
		}
		r.Close()
		a, err := tarball.Open(t.Context(), write(t, plain), nil)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if _, err := a.Member(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		a.Close()
	}
}

// TestGNUTar has names and links as GNU tar writes them.
func TestGNUTar(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("tar is not installed")
	}
	dir := t.TempDir()
	long := strings.Repeat("n", 120)
	for _, name := range []string{"x", long} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "x"), filepath.Join(dir, "y")); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax", "ustar"} {
		archive := filepath.Join(t.TempDir(), "a.tar")
		if out, err := exec.Command(gnu, "--format="+format, "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", format, err, out)
			continue
		}
		a, err := tarball.Open(t.Context(), archive, nil)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		defer a.Close()
		for name, want := range map[string]string{"x": "x", "y": "x", long: long} {
			r, err := a.Member(name)
			if err != nil {
				t.Errorf("%s: %v", format, err)
				continue
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != want {
				t.Errorf("%s: %.10s…: got %q and error %v, want %q", format, name, got, err, want)
			}
		}
	}
}
