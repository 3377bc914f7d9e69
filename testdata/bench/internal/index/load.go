package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// LoadCommand is the argument that makes this program load an image, in a process
// of its own, and print time and memory: load CACHE LAYOUT.
const LoadCommand = "load"

// loaded is the result of LoadCommand.
type loaded struct {
	Seconds float64 `json:"seconds"`
	Heap    int64   `json:"heap"` // bytes in use because of it, after a collection
	Inodes  int     `json:"inodes"`
}

// The image of a million entries.
const (
	millionLayers = 10
	layerEntries  = 100_000
)

// load measures loading the lab's node image, and one of a million entries.
func (b *bench) load() error {
	if b.Corpora == "" {
		b.Add(figures.Figure{Name: "node: time", Unit: "ms", Missing: noCorpora, AtMost: figures.Most(120)},
			figures.Figure{Name: "node: heap", Unit: "MB", Missing: noCorpora, AtMost: figures.Most(25)})
	} else if err := b.loadImage("node", filepath.Join(b.Corpora, "built", "node"), 120, 25); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	var layers []labimage.Layer
	for i := range millionLayers {
		layers = append(layers, labimage.Many(i, layerEntries))
	}
	b.Logf("making an image of a million entries")
	million := filepath.Join(b.Dir, "million")
	if _, err := labimage.WriteAs(million, labimage.FastGzip, layers...); err != nil {
		return err
	}
	if err := b.loadImage("a million entries", million, 1000, 150); err != nil {
		return fmt.Errorf("a million entries: %w", err)
	}
	return nil
}

// loadImage makes the indexes of an image, and measures loading them.
func (b *bench) loadImage(name, layout string, wantMs, wantMB float64) error {
	disk := filepath.Join(b.Dir, "load")
	defer os.RemoveAll(disk)
	b.Logf("indexing %s", name)
	entries, err := indexInto(b.Ctx, disk, layout)
	if err != nil {
		return err
	}
	var ms, heap []float64
	var r loaded
	for range b.Runs {
		if r, err = b.loadCold(disk, layout); err != nil {
			return err
		}
		ms, heap = append(ms, r.Seconds*1e3), append(heap, float64(r.Heap)/1e6)
	}
	label := fmt.Sprintf("%s (%d entries, %d inodes)", name, entries, r.Inodes)
	b.Add(figures.Figure{Name: label + ": time", Unit: "ms", Ours: figures.Median(ms), AtMost: &wantMs},
		figures.Figure{Name: label + ": heap", Unit: "MB", Ours: figures.Median(heap), AtMost: &wantMB})
	return nil
}

// loadCold loads an image in a new process, when its indexes have left the
// page cache (except where the file system has no other place for them).
func (b *bench) loadCold(disk, layout string) (loaded, error) {
	var r loaded
	if err := dropPages(filepath.Join(disk, "indexes")); err != nil {
		return r, err
	}
	program, err := os.Executable()
	if err != nil {
		return r, err
	}
	out, err := b.Output(program, LoadCommand, disk, layout)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// dropPages has the kernel forget the content of all files below dir.
func dropPages(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return runner.DropPages(f)
	})
}

// indexInto fills a cache directory with the indexes of an image, and returns
// how many entries those have.
func indexInto(ctx context.Context, dir, layout string) (int, error) {
	img, err := image.Open(ctx, "oci:"+layout, &image.Options{CacheDir: dir})
	if err != nil {
		return 0, err
	}
	entries := 0
	for _, l := range img.Layers() {
		entries += l.Index.NumEntries()
	}
	return entries, img.Close()
}

// RunLoad runs LoadCommand and returns the exit code.
func RunLoad(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: bench load CACHE LAYOUT")
		return 2
	}
	r, err := loadOnce(ctx, args[0], args[1])
	if err == nil {
		err = json.NewEncoder(stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench load:", err)
		return 1
	}
	return 0
}

// loadOnce loads and merges an image whose layers have been indexed.
func loadOnce(ctx context.Context, dir, layout string) (loaded, error) {
	var r loaded
	resolved, err := image.Resolve(ctx, "oci:"+layout, &image.Options{CacheDir: dir})
	if err != nil {
		return r, err
	}
	before, begun := heapInUse(), time.Now()
	layers, err := resolved.OpenLayers(ctx, nil)
	if err != nil {
		return r, errors.Join(err, resolved.Close())
	}
	img, err := layers.Merge(ctx)
	if err != nil {
		return r, err
	}
	r.Seconds = time.Since(begun).Seconds()
	r.Heap = heapInUse() - before
	r.Inodes = img.Tree().Len()
	for _, l := range img.Layers() {
		if l.Built {
			err = errors.New("an index was made again")
		}
	}
	return r, errors.Join(err, img.Close())
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
