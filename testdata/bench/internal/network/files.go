package network

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/klauspost/compress/gzip"
)

// A file is a regular file of a mounted image.
type file struct {
	name string // from the root of the image, without a slash before it
	size int64
}

// files lists the regular files of a mount, by their names.
func (b *bench) files(m *runner.Mount) ([]file, error) {
	out, err := b.Output("find", m.Dir, "-type", "f", "-printf", `%s %P\0`)
	if err != nil {
		return nil, err
	}
	return parseFiles(out)
}

func parseFiles(out string) ([]file, error) {
	var files []file
	for entry := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		size, name, ok := strings.Cut(entry, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("find printed %q", entry)
		}
		files = append(files, file{name, n})
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// nearest returns the file whose size is nearest to size.
func nearest(files []file, size int64) (file, error) {
	if len(files) == 0 {
		return file{}, errors.New("the image has no files")
	}
	distance := func(f file) int64 { return max(f.size-size, size-f.size) }
	return slices.MinFunc(files, func(a, b file) int { return int(distance(a) - distance(b)) }), nil
}

// smallOnes chooses n files of at most 16 KiB, always the same.
func smallOnes(files []file, n int) []file {
	small := slices.DeleteFunc(slices.Clone(files), func(f file) bool { return f.size == 0 || f.size > 16<<10 })
	r := rand.New(rand.NewPCG(4, 20))
	r.Shuffle(len(small), func(i, j int) { small[i], small[j] = small[j], small[i] })
	return small[:min(n, len(small))]
}

// compressedSize returns how many bytes of a layer's blob a file takes: those
// that a decoder reads between the file's first byte and its last, give or
// take the 32 KiB that it decodes at a time.
func compressedSize(img *labimage.Image, name string) (int64, error) {
	for _, l := range slices.Backward(img.Manifest.Layers) {
		n, err := extent(img.Blob(l.Digest), name)
		if err != nil || n > 0 {
			return n, err
		}
	}
	return 0, fmt.Errorf("no layer has %s as a regular file", name)
}

// extent is compressedSize in one layer; 0 if that does not have the file.
func extent(layer, name string) (int64, error) {
	f, err := os.Open(layer)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := &byteCounter{r: bufio.NewReaderSize(f, 1<<20)}
	z, err := gzip.NewReader(in)
	if err != nil {
		return 0, err
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", layer, err)
		}
		if h.Typeflag != tar.TypeReg || path.Join("/", h.Name) != "/"+name {
			continue
		}
		begin := in.n
		_, err = io.Copy(io.Discard, t)
		return in.n - begin, err
	}
}

// A byteCounter counts the bytes that a decoder has taken. Because of ReadByte the
// decoder takes no more than it needs.
type byteCounter struct {
	r *bufio.Reader
	n int64
}

func (c *byteCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *byteCounter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// read reads files in a process of its own, which does nothing between them for
// a time.
func (b *bench) read(m *runner.Mount, files []file, pause time.Duration) (runner.Reading, error) {
	return b.Read(m.Dir, each(files, func(f file) string { return f.name }), "each", pause.String())
}
