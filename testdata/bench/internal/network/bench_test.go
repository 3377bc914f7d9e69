package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) { os.Exit(runnertest.Main(m.Run)) }

// TestSample: the most that was there counts, also when it is gone.
func TestSample(t *testing.T) {
	looked := make(chan bool, 1)
	end := sample(t.Context(), func() int64 { looked <- true; return 7 })
	<-looked
	if most, samples := end(); most != 7 || samples != 1 {
		t.Errorf("got %d of %d samples, want 7 of one", most, samples)
	}
}

// TestRoundTrips: requests at the same time take one round trip.
func TestRoundTrips(t *testing.T) {
	for _, c := range []struct {
		want int
		all  []exchange // from, to
	}{
		{0, nil},
		{1, []exchange{{Begun: 0, End: 9}}},
		{1, []exchange{{Begun: 0, End: 9}, {Begun: 1, End: 5}, {Begun: 2}}},
		{2, []exchange{{Begun: 0, End: 9}, {Begun: 1, End: 5}, {Begun: 5, End: 8}}},
		{4, []exchange{{Begun: 0, End: 2}, {Begun: 2, End: 20}, {Begun: 3, End: 4}, {Begun: 5, End: 6}, {Begun: 6, End: 30}}},
	} {
		if got := roundTrips(c.all); got != c.want {
			t.Errorf("%v: got %d, want %d", c.all, got, c.want)
		}
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
