package network

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "net" && os.Args[2] == readCommand {
		os.Exit(runRead(os.Args[3:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// needs skips the test where a program is missing, or fails it where all must
// be there.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", p)
		}
		t.Skipf("%s is not installed", p)
	}
}

// TestDiskUsage compares with du, which has holes, hard links and directories
// to count right.
func TestDiskUsage(t *testing.T) {
	needs(t, "du")
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

func TestParsing(t *testing.T) {
	if got, err := parsePeak("Name:\timgfs\nVmPeak:\t 9 kB\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n"); err != nil || got != 12345<<10 {
		t.Errorf("peak: got %d and error %v", got, err)
	}
	if _, err := parsePeak("Name:\timgfs\n"); err == nil {
		t.Error("a status without VmHWM has a peak")
	}
	table := "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /tmp/b rw - fuse x rw\n3 1 0:3 / /tmp/b/c rw - fuse x rw\n4 1 0:4 / /tmp/bb rw - fuse x rw\n"
	if got, want := mountsBelow(table, "/tmp/b"), []string{"/tmp/b/c", "/tmp/b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("mounts: got %q, want %q", got, want)
	}
	files, err := parseFiles("12 b c\x000 a\nx\x00")
	if want := []file{{"a\nx", 0}, {"b c", 12}}; err != nil || !reflect.DeepEqual(files, want) {
		t.Errorf("files: got %v and error %v, want %v", files, err, want)
	}
	if _, err := parseFiles("twelve b\x00"); err == nil {
		t.Error("a file of twelve bytes")
	}
	got, err := fetchedBy(`{"total":{"asked":5,"fetched":304,"requests":3},"layers":[{"fetched":304}]}`)
	if want := (count{3, 304}); err != nil || got != want {
		t.Errorf("stats: got %v and error %v, want %v", got, err, want)
	}
	if _, err := fetchedBy(`{"layers":[]}`); err == nil {
		t.Error("stats without a total have one")
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
	text := func() io.Reader { return io.LimitReader(newProse(7), 3<<20) }
	layout := filepath.Join(t.TempDir(), "layout")
	other := func(a *labimage.Archive) error { return a.Copy("before", 1<<20, newProse(8)) }
	_, err := labimage.Write(layout, func(a *labimage.Archive) error {
		if err := other(a); err != nil {
			return err
		}
		if err := a.Copy("./dir/big", 3<<20, text()); err != nil {
			return err
		}
		return a.File("after", "x")
	}, other)
	if err != nil {
		t.Fatal(err)
	}
	img, err := openImage("a/b:latest", "", layout)
	if err != nil {
		t.Fatal(err)
	}
	var alone bytes.Buffer
	z := gzip.NewWriter(&alone)
	if _, err := io.Copy(z, text()); err != nil {
		t.Fatal(err)
	}
	z.Close()
	got, err := img.compressedSize("dir/big")
	if want := int64(alone.Len()); err != nil || got < want*9/10 || got > want*11/10 {
		t.Errorf("got %d and error %v, want about %d", got, err, want)
	}
	if _, err := img.compressedSize("big"); err == nil {
		t.Error("a file that is in no layer has a size")
	}
}

func TestFillingCheck(t *testing.T) {
	f := &filling{image: image{name: "x"}, sums: map[string]string{}}
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

func TestRows(t *testing.T) {
	value := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		f    figure
		want string
	}{
		{figure{Name: "a", Unit: "kB", Value: value(262.144), Most: value(400)}, "a | 262 kB | ≤ 400 kB | yes | "},
		{figure{Name: "a", Unit: "kB", Value: value(401), Most: value(400), Note: "n"}, "a | 401 kB | ≤ 400 kB | **no** | n"},
		{figure{Name: "a", Unit: "B", Value: value(0), Most: value(0)}, "a | 0 B | ≤ 0 B | yes | "},
		{figure{Name: "a", Value: value(3)}, "a | 3 |  |  | "},
		{figure{Name: "a", Unit: "s", Value: value(0.012345)}, "a | 0.0123 s |  |  | "},
		{figure{Name: "a", Unit: "B", Missing: "no stats", Most: value(0)}, "a | no stats | ≤ 0 B | unknown | "},
	} {
		if got := strings.Join(c.f.cells(), " | "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-only", "other", "x"}, {"-runs", "0", "x"}, {"-mbps", "0", "x"}, {"x", "y"}} {
		var out bytes.Buffer
		if code := Run(context.Background(), args, nil, &out, &out); code != 2 {
			t.Errorf("%q: exit code %d, want 2\n%s", args, code, &out)
		}
	}
}
