package dockerarchive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
)

// A countedFile counts what is read of it, and calls hook first.
type countedFile struct {
	*os.File
	read atomic.Int64
	hook func(off int64)
}

func (f *countedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.hook != nil {
		f.hook(off)
	}
	n, err := f.File.ReadAt(p, off)
	f.read.Add(int64(n))
	return n, err
}

// counting returns options whose temporary file counts.
func counting(t *testing.T) (*countedFile, *remote.ArchiveOptions) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f := &countedFile{File: file}
	return f, &remote.ArchiveOptions{NewTemp: func() (remote.TempFile, error) { return f, nil }}
}

// imageOf is an archive with one layer's member for each of n diff_ids.
func imageOf(t *testing.T, member string, n int) []byte {
	t.Helper()
	var names []string
	var diffIDs []digest.Digest
	for i := range n {
		names = append(names, `"l.tar"`)
		diffIDs = append(diffIDs, digest.FromString(fmt.Sprint(i)))
	}
	return tarOf(t, entry{name: "l.tar", content: member}, entry{name: "c.json", content: configOf(diffIDs...)},
		entry{name: "manifest.json", content: `[{"Config":"c.json","Layers":[` + strings.Join(names, ",") + `]}]`})
}

// A compressed layer may have as many bytes as it is allowed.
func TestMaxSize(t *testing.T) {
	layer := layerTar(t, strings.Repeat("x", 1<<20))
	size := int64(len(layer))
	for name, packed := range map[string]string{"gzip": zipped(t, layer), "zstd": zstded(t, layer)} {
		file := write(t, imageOf(t, packed, 1))
		for _, tt := range []struct {
			most int64
			want error
		}{{0, nil}, {size, nil}, {size - 1, remote.ErrTooBig}} {
			src, err := dockerarchive.Open(t.Context(), file, "", &remote.ArchiveOptions{MaxSize: tt.most})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%s, at most %d of %d bytes: got error %v, want %v", name, tt.most, size, err, tt.want)
			}
			if err == nil {
				src.Close()
				continue
			}
			if d := digest.FromString("0").String(); !strings.Contains(err.Error(), d) || !strings.Contains(err.Error(), fmt.Sprint(tt.most)) {
				t.Errorf("%s: error %q does not say %s and %d", name, err, d, tt.most)
			}
		}
	}
}

// A member that many layers name is read once.
func TestMemberIsReadOnce(t *testing.T) {
	packed := zipped(t, layerTar(t, strings.Repeat("some text ", 100_000)))
	f, opts := counting(t)
	src, err := dockerarchive.Open(t.Context(), write(t, []byte(zipped(t, string(imageOf(t, packed, 1000))))), "", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if n, most := f.read.Load(), int64(2*len(packed)+1<<20); n > most {
		t.Errorf("%d bytes were read of a member of %d, want at most %d with the rest", n, len(packed), most)
	}
	img, err := remote.Open(t.Context(), src, "")
	if err != nil || len(img.Layers) != 1000 {
		t.Fatalf("%v", err)
	}
	if got := content(t, img.Layers[999].Blob); got != packed {
		t.Errorf("the last layer has %d bytes, want %d", len(got), len(packed))
	}
}

// Reading a compressed layer ends with the context, though all input is there.
func TestMeasureInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	packed := zstded(t, layerTar(t, strings.Repeat("x", 32<<20)))
	f, opts := counting(t)
	f.hook = func(off int64) {
		if off == 512 { // the layer is the first member
			cancel()
		}
	}
	if _, err := dockerarchive.Open(ctx, write(t, []byte(zipped(t, string(imageOf(t, packed, 1))))), "", opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}
