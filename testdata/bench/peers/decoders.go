// Package peers runs the decoders of gzip that imgfs is measured beside, as
// libraries and as programs.
package peers

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	kgzip "github.com/klauspost/compress/gzip"
)

// A Decoder decodes gzip files.
type Decoder struct {
	Name string
	// library decodes in this process; nil if args start a program that decodes
	// its standard input.
	library func(w io.Writer, f *os.File) error
	args    []string
}

// The decoders. zlib-ng's program is minigzip; it must be installed under
// another name, so that no other zlib's is taken for it.
var (
	Klauspost  = Library("klauspost gzip", klauspost)
	Standard   = Library("compress/gzip", standard)
	Libdeflate = Decoder{Name: "libdeflate-gzip", args: []string{"libdeflate-gzip", "-dc"}}
	ZlibNG     = Decoder{Name: "zlib-ng", args: []string{"minigzip-ng", "-d"}}
	Isal       = Decoder{Name: "igzip", args: []string{"igzip", "-dc"}}
	GNU        = Decoder{Name: "GNU gzip", args: []string{"gzip", "-dc"}}
	Zstd       = Decoder{Name: "zstd", args: []string{"zstd", "-dcq", "--long=27"}} // of zstd files
)

// Library returns a decoder that is a function of this process: run writes the
// decoded content of f to w.
func Library(name string, run func(w io.Writer, f *os.File) error) Decoder {
	return Decoder{Name: name, library: run}
}

// Missing says why the decoder cannot be run here; "" if it can.
func (d *Decoder) Missing() string {
	if d.library != nil {
		return ""
	}
	if _, err := exec.LookPath(d.args[0]); errors.Is(err, exec.ErrNotFound) {
		return d.args[0] + " is not here"
	} else if err != nil {
		return err.Error()
	}
	return ""
}

// Who returns the argument of getrusage for the CPU time of Decode.
func (d *Decoder) Who() int {
	if d.library != nil {
		return syscall.RUSAGE_SELF
	}
	return syscall.RUSAGE_CHILDREN
}

// Decode writes the decoded content of the file at path to w. Writing to
// io.Discard is as cheap as possible. If ctx ends, a program is killed.
func (d *Decoder) Decode(ctx context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if d.library != nil {
		return d.library(w, f)
	}
	cmd := exec.CommandContext(ctx, d.args[0], d.args[1:]...)
	cmd.Stdin, cmd.Stderr = f, os.Stderr
	if w != io.Discard { // else the null device, without a pipe
		cmd.Stdout = w
	}
	return cmd.Run()
}

func klauspost(w io.Writer, f *os.File) error {
	r, err := kgzip.NewReader(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

func standard(w io.Writer, f *os.File) error {
	r, err := gzip.NewReader(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 256<<10))
	return err
}
