package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// memoryDir tells the test binary that it is the child of TestMemory, and
// where the image is.
const memoryDir = "IMGFS_TEST_MEMORY"

// TestMemory indexes images that are hard on memory, and reads from them, in a
// process of its own, whose peak it asks the kernel for. Indexing is to take at
// most 150 MiB. Where a window of 128 MiB is in them the collector's leave to
// let garbage grow as large as what is in use is what readers go over it by, and
// two layers side by side what indexing does.
func TestMemory(t *testing.T) {
	testenv.Slow(t)
	if os.Getenv("IMGFS_STACKS") == "" {
		t.Skip("it takes half a minute: make nightly, or IMGFS_STACKS=1, has it")
	}
	if testenv.Race {
		t.Skip("the race detector takes memory of its own")
	}
	const layerSize = 160 << 20
	tests := []struct {
		name   string
		layers int
		size   int
		args   []string
		// The most MiB: to index, and with reading.
		index, all int
	}{
		{"gzip", 6, 24 << 20, []string{"gzip", "-1"}, 150, 220},
		{"zstd", 3, layerSize, []string{"zstd", "-1", "-q"}, 150, 150},
		{"zstd with the window of level 19", 4, 48 << 20, []string{"zstd", "-1", "--zstd=wlog=23", "-q"}, 150, 170},
		{"zstd with windows of 32 MiB", 3, 100 << 20, []string{"zstd", "-1", "--long=25", "-q"}, 150, 200},
		{"zstd with a window of 128 MiB", 1, layerSize, []string{"zstd", "-1", "--long=27", "-q"}, 165, 250},
		{"zstd with windows of 128 MiB side by side", 3, layerSize, []string{"zstd", "-1", "--long=27", "-q"}, 190, 340},
		{"small zstd layers with windows of 128 MiB", 20, 5 << 20, []string{"zstd", "-1", "--long=27", "-q"}, 165, 250},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeImage(t, filepath.Join(dir, "image"), tt.layers, tt.size, tt.args)
			cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryChild$", "-test.v")
			cmd.Env = append(os.Environ(), memoryDir+"="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var index, all int
			if _, err := fmt.Sscanf(string(out[max(0, bytes.Index(out, []byte("peak "))):]), "peak %d %d", &index, &all); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%d MiB to index, %d MiB in all", index>>10, all>>10)
			if index > tt.index<<10 || all > tt.all<<10 {
				t.Errorf("%d MiB to index and %d MiB with reading, want at most %d and %d", index>>10, all>>10, tt.index, tt.all)
			}
		})
	}
}

// writeImage makes an OCI layout of an image whose layers a program packs.
func writeImage(t *testing.T, dir string, layers, size int, args []string) {
	t.Helper()
	var img sourcetest.Image
	for i := range layers {
		tarBytes := bigTar(t, size, i)
		cmd := exec.Command(args[0], append(args[1:], "-c")...)
		cmd.Stdin = bytes.NewReader(tarBytes)
		blob, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
			t.Skipf("%s is not installed", args[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		media := ocispec.MediaTypeImageLayerGzip
		if args[0] == "zstd" {
			media = ocispec.MediaTypeImageLayerZstd
		}
		img.Layers = append(img.Layers, sourcetest.Layer{Content: blob, MediaType: media, DiffID: digest.FromBytes(tarBytes)})
	}
	store := sourcetest.NewStore()
	if err := store.WriteLayout(dir, store.AddImage(img)); err != nil {
		t.Fatal(err)
	}
}

// bigTar returns a tar of files of 4 MiB whose names are the digests of what
// they hold: words with repetitions from all over it.
func bigTar(t *testing.T, size, layer int) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(layer), 5))
	var buf bytes.Buffer
	buf.Grow(size + 8<<20)
	w := tar.NewWriter(&buf)
	for i := 0; buf.Len() < size; i++ {
		p := make([]byte, 0, 4<<20)
		for len(p) < cap(p) {
			if have := buf.Bytes(); rng.IntN(2) == 0 && len(have) > 1<<20 {
				at := rng.IntN(len(have) - 1<<16)
				p = append(p, have[at:at+min(1+rng.IntN(1<<16), cap(p)-len(p))]...)
				continue
			}
			for range min(20_000, cap(p)-len(p)) {
				p = append(p, "etaoin shrdlu"[rng.IntN(13)])
			}
		}
		sum := sha256.Sum256(p)
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("l%d/%d-%x", layer, i, sum), Mode: 0o644, Size: int64(len(p))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestMemoryChild is the process that TestMemory measures.
func TestMemoryChild(t *testing.T) {
	dir := os.Getenv(memoryDir)
	if dir == "" {
		t.Skip("only TestMemory runs this")
	}
	src, err := ocilayout.Open(filepath.Join(dir, "image"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	disk, err := cache.Open(filepath.Join(dir, "cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	tree, err := image.New(t.Context(), img, &image.Options{Cache: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	index := peakMemory(t)
	readSome(t, t.Context(), tree)
	fmt.Printf("peak %d %d\n", index, peakMemory(t))
}

// readSome reads files here and there, several at a time, and checks them.
func readSome(t *testing.T, ctx context.Context, img *image.Image) {
	t.Helper()
	fsys := img.FS(ctx)
	names, err := iofs.Glob(fsys, "*/*")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	done := make(chan error)
	const readers = 4
	for range readers {
		var some []string
		for range 12 {
			some = append(some, names[rng.IntN(len(names))])
		}
		go func() {
			for _, name := range some {
				if err := checkFile(fsys, name); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// checkFile reads a file whose name ends in its digest.
func checkFile(fsys iofs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 128<<10)); err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); !strings.HasSuffix(name, sum) {
		return fmt.Errorf("%s: SHA-256 is %s", name, sum)
	}
	return nil
}

// peakMemory returns the most memory that the process has taken, in KiB.
func peakMemory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var n int
	if _, err := fmt.Sscan(line, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
