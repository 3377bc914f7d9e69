package layerindex_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/indexes"
)

// Build the index of a layer, store it, and read a file of the layer by it.
func Example() {
	ctx := context.Background()
	blob, layer := exampleLayer()
	dir, err := os.MkdirTemp("", "imgfs-example-*")
	check(err)
	defer os.RemoveAll(dir)
	files, err := beneath.Open(dir, nil)
	check(err)
	defer files.Close()
	store := indexes.New(files)

	x, err := build.Index(ctx, layer, bytes.NewReader(blob), nil)
	check(err)
	check(store.Save(ctx, x))

	x, err = store.Load(ctx, layer)
	check(err)
	defer x.Close()
	r := reader.New(x, memory(blob), nil)
	defer r.Close()
	entries, err := x.Entries()
	check(err)
	for e := range entries {
		content := make([]byte, e.Size)
		_, err := r.ReadAt(ctx, content, e.Off)
		check(err)
		fmt.Printf("%s: %s", e.Name, content)
	}
	// Output:
	// etc/hostname: example
	// etc/motd: hello
}

// exampleLayer returns a layer of two files.
func exampleLayer() ([]byte, layerindex.Layer) {
	var blob bytes.Buffer
	diffID := digest.SHA256.Digester()
	z := gzip.NewWriter(&blob)
	w := tar.NewWriter(io.MultiWriter(z, diffID.Hash()))
	for _, file := range [][2]string{{"etc/hostname", "example\n"}, {"etc/motd", "hello\n"}} {
		check(w.WriteHeader(&tar.Header{Name: file[0], Mode: 0o644, Size: int64(len(file[1]))}))
		_, err := io.WriteString(w, file[1])
		check(err)
	}
	check(errors.Join(w.Close(), z.Close()))
	return blob.Bytes(), layerindex.Layer{Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len()), DiffID: diffID.Digest()}
}

// memory is a blob in memory. That of a registry must be checked by its chunks
// (Index.ChunkSums) first: remote/cache does that.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
