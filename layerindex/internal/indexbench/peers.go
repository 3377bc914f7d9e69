package main

import (
	"bufio"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
)

// A peer decodes gzip files.
type peer interface {
	name() string
	// missing says why the peer cannot be run here, "" if it can.
	missing() string
	// decode writes what the file at path holds to w; to io.Discard as
	// cheaply as can be.
	decode(ctx context.Context, path string, w io.Writer) error
	// who is whose CPU time decode takes, for getrusage.
	who() int
}

var (
	_ peer = library{}
	_ peer = program{}
)

// ourDecoder and ourIndexer are what the others are compared with.
var (
	ourDecoder = library{"imgfs", func(w io.Writer, f *os.File) error {
		d, err := gzip.Resume(f, codec.Checkpoint{Start: true})
		if err != nil {
			return err
		}
		return drain(w, d)
	}}
	ourIndexer = library{"imgfs with checkpoints", func(w io.Writer, f *os.File) error {
		return drain(w, gzip.NewIndexer(f, nil))
	}}
)

// The peers. zlib-ng's program is minigzip, and is called so that no other
// zlib's is taken for it.
var (
	klauspost  = library{"klauspost gzip", klauspostDecode}
	standard   = library{"compress/gzip", standardDecode}
	libdeflate = program{"libdeflate-gzip", []string{"libdeflate-gzip", "-dc"}}
	zlibNG     = program{"zlib-ng", []string{"minigzip-ng", "-d"}}
	isal       = program{"igzip", []string{"igzip", "-dc"}}
	gnuGzip    = program{"GNU gzip", []string{"gzip", "-dc"}}
)

// A library decodes in this process.
type library struct {
	label string
	run   func(w io.Writer, f *os.File) error
}

func (l library) name() string  { return l.label }
func (library) missing() string { return "" }
func (library) who() int        { return syscall.RUSAGE_SELF }

func (l library) decode(_ context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.run(w, f)
}

// drain writes all output of a decoder.
func drain(w io.Writer, d codec.Decoder) error {
	for {
		p, err := d.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		if x, ok := d.(codec.Indexer); ok {
			x.Checkpoints()
		}
	}
}

func klauspostDecode(w io.Writer, f *os.File) error {
	r, err := kgzip.NewReader(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

func standardDecode(w io.Writer, f *os.File) error {
	r, err := stdgzip.NewReader(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 256<<10))
	return err
}

// A program decodes its standard input.
type program struct {
	label string
	args  []string
}

func (p program) name() string { return p.label }
func (program) who() int       { return syscall.RUSAGE_CHILDREN }

func (p program) missing() string {
	if _, err := exec.LookPath(p.args[0]); errors.Is(err, exec.ErrNotFound) {
		return p.args[0] + " is not here"
	} else if err != nil {
		return err.Error()
	}
	return ""
}

func (p program) decode(ctx context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Stdin, cmd.Stderr = f, os.Stderr
	if w != io.Discard { // else the null device, without a pipe
		cmd.Stdout = w
	}
	return cmd.Run()
}
