package labimage

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Compression makes a layer's blob of its tar.
type Compression struct {
	mediaType string
	writer    func(w io.Writer) (io.WriteCloser, error)
}

var defaultGzip = gzipLevel(gzip.DefaultCompression)

// FastGzip is quick, for layers whose decoding is not measured.
var FastGzip = gzipLevel(gzip.BestSpeed)

// OtherGzip compresses about as well as most layers are, into other bytes.
var OtherGzip = gzipLevel(5)

func gzipLevel(level int) Compression {
	return Compression{ocispec.MediaTypeImageLayerGzip, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) }}
}

// UsualGzip is how most layers are compressed: by zlib's code at level 6, if
// there is the program gzip, and else by Go code at that level.
func UsualGzip() Compression {
	if _, err := exec.LookPath("gzip"); err != nil {
		return gzipLevel(6)
	}
	return program(context.Background(), ocispec.MediaTypeImageLayerGzip, "gzip", "-6n")
}

// WideZstd is zstd with a window of 128 MiB. The program does not learn the
// length of the tar, so its frame has the whole window. It is killed when ctx
// ends.
func WideZstd(ctx context.Context) Compression {
	return program(ctx, ocispec.MediaTypeImageLayerZstd, "zstd", "-q", "-c", "-3", "--long=27")
}

// program compresses with a program that goes from its input to its output.
func program(ctx context.Context, mediaType, name string, args ...string) Compression {
	return Compression{mediaType, func(w io.Writer) (io.WriteCloser, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout, cmd.Stderr = w, os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		return &runningProgram{in, cmd}, cmd.Start()
	}}
}

// A runningProgram is a program's standard input; Close waits for its end.
type runningProgram struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func (p *runningProgram) Close() error {
	return errors.Join(p.WriteCloser.Close(), p.cmd.Wait())
}

// write compresses the output of fill into a blob of the layout at dir.
func (c Compression) write(dir string, fill func(z io.Writer) error) (ocispec.Descriptor, error) {
	return writeBlob(dir, c.mediaType, func(w io.Writer) error {
		z, err := c.writer(w)
		if err != nil {
			return err
		}
		return errors.Join(fill(z), z.Close())
	})
}

// Repack makes dir a layout of the same image with its gzip layers in another
// compression, and opens it.
func (img *Image) Repack(dir string, c Compression) (*Image, error) {
	return img.RepackSome(dir, c, func(int) bool { return true })
}

// RepackSome is Repack of the layers that some is true of, by their number from 0. The
// others stay as they are.
func (img *Image) RepackSome(dir string, c Compression, some func(layer int) bool) (*Image, error) {
	if err := makeBlobs(dir); err != nil {
		return nil, err
	}
	manifest := img.Manifest
	manifest.Layers = nil
	for i, l := range img.Manifest.Layers {
		var desc ocispec.Descriptor
		var err error
		if some(i) {
			desc, err = c.repack(dir, img.Blob(l.Digest))
		} else {
			desc, err = writeBlob(dir, l.MediaType, func(w io.Writer) error { return copyFile(w, img.Blob(l.Digest)) })
		}
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, desc)
	}
	_, err := writeBlob(dir, img.Manifest.Config.MediaType, func(w io.Writer) error {
		return copyFile(w, img.Blob(img.Manifest.Config.Digest))
	})
	if err != nil {
		return nil, err
	}
	if _, err := writeManifest(dir, manifest); err != nil {
		return nil, err
	}
	return Open(dir)
}

// repack compresses one gzip layer anew.
func (c Compression) repack(dir, gzipped string) (ocispec.Descriptor, error) {
	f, err := os.Open(gzipped)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	r, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return c.write(dir, func(z io.Writer) error {
		_, err := io.Copy(z, r)
		return err
	})
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
