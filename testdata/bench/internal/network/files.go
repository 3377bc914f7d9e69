package network

import (
	"archive/tar"
	"bufio"
	"bytes"
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

	"github.com/klauspost/compress/gzip"
)

// A file is a regular file of a mounted image.
type file struct {
	name string // from the root of the image, without a slash before it
	size int64
}

// files lists the regular files of a mount, by their names.
func (m *mount) files() ([]file, error) {
	out, err := m.b.output(m.b.ctx, "find", m.dir, "-type", "f", "-printf", `%s %P\0`)
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
func (img *image) compressedSize(name string) (int64, error) {
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

// A byteCounter counts what a decoder has taken; with ReadByte that is no more
// than it needs.
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

// readCommand makes this program one that reads the files whose names come on
// its standard input, one after the other with a pause between, and prints the
// nanoseconds that each took. A process of its own can be ended while it waits for a mount.
const readCommand = "read-files"

func runRead(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	pause, err := time.ParseDuration(strings.Join(args, " "))
	names, readErr := io.ReadAll(stdin)
	if err := errors.Join(err, readErr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	for name := range strings.SplitSeq(string(names), "\x00") {
		begun := time.Now()
		if _, err := os.ReadFile(name); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		fmt.Fprintln(stdout, time.Since(begun).Nanoseconds())
		time.Sleep(pause)
	}
	return 0
}

// read reads files in a process of its own, which does nothing between them for
// a time, and returns how long each took.
func (m *mount) read(files []file, pause time.Duration) ([]time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		names = append(names, m.dir+"/"+f.name)
	}
	cmd := m.b.command(m.b.ctx, self, "net", readCommand, pause.String())
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(strings.Join(names, "\x00")), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("reading small files: %w\n%s", err, &stderr)
	}
	var took []time.Duration
	for _, text := range strings.Fields(string(out)) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Duration(n))
	}
	return took, nil
}
