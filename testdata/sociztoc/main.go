// Command sociztoc makes and reads ztocs with SOCI's own code. It is a module of its own
// because SOCI needs cgo and zlib (libz.a) and much else. testdata/bench compiles it for
// comparison, and so do the tests of layerindex/soci.
//
//	sociztoc LAYER               makes a ztoc at SOCI's default span of 4 MiB, and prints
//	                             as JSON how many seconds it took and how many bytes it has
//	sociztoc make SPAN LAYER OUT makes a ztoc into a file
//	sociztoc read LAYER ZTOC     checks a ztoc against its layer as SOCI's snapshotter
//	                             does, and prints each entry as JSON
//	sociztoc index MANIFEST      prints what the manifest of a SOCI index says, as JSON
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/awslabs/soci-snapshotter/soci"
	"github.com/awslabs/soci-snapshotter/ztoc"
	"github.com/awslabs/soci-snapshotter/ztoc/compression"
)

// spanSize is what soci create uses unless told otherwise.
const spanSize = 4 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sociztoc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1:
		return measure(args[0])
	case len(args) == 4 && args[0] == "make":
		span, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		b, err := build(args[2], span)
		if err != nil {
			return err
		}
		return os.WriteFile(args[3], b, 0o666)
	case len(args) == 3 && args[0] == "read":
		return read(args[1], args[2])
	case len(args) == 2 && args[0] == "index":
		return index(args[1])
	}
	return errors.New("usage: sociztoc LAYER | make SPAN LAYER OUT | read LAYER ZTOC | index MANIFEST")
}

func measure(layer string) error {
	begun := time.Now()
	b, err := build(layer, spanSize)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Seconds float64 `json:"seconds"`
		Bytes   int     `json:"bytes"`
	}{time.Since(begun).Seconds(), len(b)})
}

// build makes the ztoc of a layer, which is a tar or compressed with gzip.
func build(layer string, span int64) ([]byte, error) {
	f, err := os.Open(layer)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 2)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	algorithm := compression.Uncompressed
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		algorithm = compression.Gzip
	}
	z, err := ztoc.NewBuilder("sociztoc").BuildZtoc(layer, span, ztoc.WithCompression(algorithm))
	if err != nil {
		return nil, err
	}
	r, _, err := ztoc.Marshal(z)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func index(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var x soci.Index
	if err := soci.UnmarshalIndex(b, &x); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(x)
}
