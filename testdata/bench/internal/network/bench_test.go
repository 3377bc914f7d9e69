package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) { os.Exit(runnertest.Main(m.Run)) }

// TestDiskUsage compares with du, which has holes, hard links and directories
// to count right.
func TestDiskUsage(t *testing.T) {
	runnertest.Needs(t, "du")
	dir := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	write("one", make([]byte, 100_000))
	write("sub/two", make([]byte, 1))
	write("hole", nil)
	if err := os.Truncate(filepath.Join(dir, "hole"), 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "sub/again")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("du", "-s", "-B1", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	got, err := diskUsage(dir)
	if err != nil || got != want {
		t.Errorf("got %d and error %v, du says %d", got, err, want)
	}
}

// TestSampler: the most that was there counts, also when it is gone.
func TestSampler(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	s := sample(t.Context(), dir, time.Hour) // looks once at the beginning
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s.samples != 1 || s.most < 1<<20 {
		t.Errorf("%d samples, the most %d; want one of at least a MiB", s.samples, s.most)
	}
}

func TestChunkSize(t *testing.T) {
	cache := t.TempDir()
	if _, err := chunkSize(cache); err == nil {
		t.Error("an empty cache directory has a chunk size")
	}
	dir := filepath.Join(cache, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	footer := make([]byte, 64)
	copy(footer, "imgfsblb\x01\x00\x00\x00\x00\x00\x02\x00")
	if err := os.WriteFile(filepath.Join(dir, "ab"), append(make([]byte, 4100), footer...), 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err := chunkSize(cache); err != nil || got != 128<<10 {
		t.Errorf("got %d and error %v, want %d", got, err, 128<<10)
	}
}

func TestParseFiles(t *testing.T) {
	files, err := parseFiles("12 b c\x000 a\nx\x00")
	if want := []file{{"a\nx", 0}, {"b c", 12}}; err != nil || !reflect.DeepEqual(files, want) {
		t.Errorf("got %v and error %v, want %v", files, err, want)
	}
	if _, err := parseFiles("twelve b\x00"); err == nil {
		t.Error("a file of twelve bytes")
	}
}

func TestChoice(t *testing.T) {
	files := []file{{"empty", 0}, {"a", 10}, {"b", 100}, {"c", 16 << 10}, {"d", 17 << 10}, {"e", 1 << 30}}
	for size, want := range map[int64]string{0: "empty", 54: "a", 56: "b", 1 << 40: "e"} {
		if got, err := nearest(files, size); err != nil || got.name != want {
			t.Errorf("nearest to %d: %s and error %v, want %s", size, got.name, err, want)
		}
	}
	if _, err := nearest(nil, 1); err == nil {
		t.Error("a file of no files")
	}
	first, again := smallOnes(files, 10), smallOnes(files, 10)
	if len(first) != 3 || !reflect.DeepEqual(first, again) {
		t.Errorf("small files: %v, then %v", first, again)
	}
	for _, f := range first {
		if f.size == 0 || f.size > 16<<10 {
			t.Errorf("small files: %v", f)
		}
	}
}

// TestCompressedSize: a file's share of a layer is about what it takes packed
// alone.
func TestCompressedSize(t *testing.T) {
	var text []byte
	for i := 0; len(text) < 3<<20; i++ {
		text = fmt.Appendln(text, "line", i*i)
	}
	other := func(a *labimage.Archive) error { return a.File("before", string(text[1<<20:2<<20])) }
	img, err := labimage.WriteAs(t.TempDir(), labimage.FastGzip, func(a *labimage.Archive) error {
		return errors.Join(other(a), a.File("./dir/big", string(text)), a.File("after", "x"))
	}, other)
	if err != nil {
		t.Fatal(err)
	}
	var alone bytes.Buffer
	z, err := gzip.NewWriterLevel(&alone, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	z.Close()
	got, err := compressedSize(img, "dir/big")
	if want := int64(alone.Len()); err != nil || got < want*9/10 || got > want*11/10 {
		t.Errorf("got %d and error %v, want about %d", got, err, want)
	}
	if _, err := compressedSize(img, "big"); err == nil {
		t.Error("a file that is in no layer has a size")
	}
}

func TestFillingCheck(t *testing.T) {
	f := &filling{image: &image{name: "x"}, sums: map[string]string{}}
	if _, err := labimage.Write(t.TempDir(), f.layer(3, 5<<20)); err != nil {
		t.Fatal(err)
	}
	print := func() string {
		var s strings.Builder
		for name, sum := range f.sums {
			s.WriteString(sum + "  /m/" + name + "\n")
		}
		return s.String()
	}
	whole := print()
	if err := f.check(whole, "/m"); err != nil {
		t.Error(err)
	}
	_, less, _ := strings.Cut(whole, "\n")
	if err := f.check(less, "/m"); err == nil {
		t.Error("a missing file was not noticed")
	}
	flipped := []byte(whole)
	flipped[0] ^= 1
	if err := f.check(string(flipped), "/m"); err == nil {
		t.Error("another digest was not noticed")
	}
}
