package gzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// programs are encoders that may be installed.
var programs = [][]string{
	{"gzip", "-1"}, {"gzip", "-6"}, {"gzip", "-9"}, {"gzip", "--rsyncable"},
	{"pigz"}, {"pigz", "-i"}, {"pigz", "-0"}, {"pigz", "-1"}, {"pigz", "-R"},
	{"bgzip"}, {"igzip"}, {"igzip", "-0"},
	{"libdeflate-gzip", "-1"}, {"libdeflate-gzip", "-12"},
	{"zopfli", "-c", "--i1", "/dev/stdin"},
}

// encodings calls f with p as each encoder writes it.
func encodings(t *testing.T, p []byte, f func(t *testing.T, file []byte)) {
	run := func(name string, open func(io.Writer) (io.WriteCloser, error)) {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			w, err := open(&buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			f(t, buf.Bytes())
		})
	}
	for level := stdgzip.HuffmanOnly; level <= 9; level++ {
		run(fmt.Sprint("std", level), func(w io.Writer) (io.WriteCloser, error) {
			return stdgzip.NewWriterLevel(w, level)
		})
	}
	for level := kgzip.StatelessCompression; level <= 9; level++ {
		run(fmt.Sprint("klauspost", level), func(w io.Writer) (io.WriteCloser, error) {
			return kgzip.NewWriterLevel(w, level)
		})
	}
	for _, args := range programs {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatal(err)
				}
				t.Skipf("%s is not installed", args[0])
			}
			cmd := exec.Command(args[0], args[1:]...)
			// A file, because zopfli asks its input for its length.
			in := filepath.Join(t.TempDir(), "in")
			if err := os.WriteFile(in, p, 0o600); err != nil {
				t.Fatal(err)
			}
			stdin, err := os.Open(in)
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			cmd.Stdin = stdin
			file, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			f(t, file)
		})
	}
}

func TestEncoders(t *testing.T) {
	testenv.Slow(t)
	want := text(inflatetest.Scale(800_000), 1)
	d := new(Decoder)
	encodings(t, want, func(t *testing.T, file []byte) {
		got, cps, err := index(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
		}
		checkCheckpoints(t, d, file, want, cps)
	})
}
