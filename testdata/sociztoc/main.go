// Command sociztoc makes the ztoc of a gzip layer with SOCI's own builder at
// its default span of 4 MiB, and prints how many seconds it took and how many
// bytes the ztoc has, as JSON. It is a module of its own because SOCI needs
// cgo and zlib (libz.a) and much else; testdata/bench compiles it for comparison.
//
//	sociztoc LAYER.tar.gz
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/awslabs/soci-snapshotter/ztoc"
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
	if len(args) != 1 {
		return fmt.Errorf("usage: sociztoc LAYER.tar.gz")
	}
	begun := time.Now()
	z, err := ztoc.NewBuilder("sociztoc").BuildZtoc(args[0], spanSize)
	if err != nil {
		return err
	}
	_, desc, err := ztoc.Marshal(z)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Seconds float64 `json:"seconds"`
		Bytes   int64   `json:"bytes"`
	}{time.Since(begun).Seconds(), desc.Size})
}
