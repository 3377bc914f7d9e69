//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// forgeLayer puts into a cache what says that a layer has other files: an index
// and a blob file that fit each other, as docs/index-format.md has them.
func forgeLayer(t *testing.T, dir string, honest indexRow, name, content string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob := gzipOf(t, b.Bytes())
	blob = append(blob, make([]byte, honest.Size-int64(len(blob)))...)
	x, err := build.Index(t.Context(), layerindex.Layer{Digest: digest.FromBytes(blob), Size: honest.Size, DiffID: digest.FromBytes(b.Bytes())}, bytes.NewReader(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := chunksOf(x)
	if err != nil {
		t.Fatal(err)
	}
	var index bytes.Buffer
	if _, err := x.WriteTo(&index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cacheFile(dir, "indexes", honest.Digest), renamedIndex(t, index.Bytes(), honest), 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := cache.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	rec, err := cache.Blobs.Record(claimedBlob{honest.Digest, honest.Size})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rec.Write(blob)
	if err := errors.Join(err, rec.Commit(chunks)); err != nil {
		t.Fatal(err)
	}
}

// renamedIndex makes an index file that of another layer, with the checksum of
// its header right.
func renamedIndex(t *testing.T, b []byte, l indexRow) []byte {
	t.Helper()
	for at, d := range map[int]digest.Digest{24: l.Digest, 56: l.DiffID} {
		if _, err := hex.Decode(b[at:at+32], []byte(d.Encoded())); err != nil {
			t.Fatal(err)
		}
	}
	end := binary.LittleEndian.Uint32(b[12:])
	sum := sha256.Sum256(b[:end-32])
	copy(b[end-32:], sum[:])
	return b
}

// A claimedBlob is what somebody says of a blob.
type claimedBlob struct {
	digest digest.Digest
	size   int64
}

func (b claimedBlob) Digest() digest.Digest { return b.digest }
func (b claimedBlob) Size() int64           { return b.size }

func (b claimedBlob) ReadAt(context.Context, []byte, int64) (int, error) {
	return 0, errors.New("there is none")
}

// What cache verify finds out of an index that lies is removed with it, and the
// next command has the image.
func TestCacheVerifyForgedIndex(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	big := parsed[[]indexRow](t, "index", "-q", "--json", cache, image)[1]
	want := succeed(t, "cat", "-q", cache, image, "noise")
	for name, lie := range map[string]func(t *testing.T){
		"of other files": func(t *testing.T) { forgeLayer(t, dir, big, "noise", "forged") },
		"of chunks that cannot be": func(t *testing.T) {
			b, err := os.ReadFile(cacheFile(dir, "indexes", big.Digest))
			if err != nil {
				t.Fatal(err)
			}
			binary.LittleEndian.PutUint32(b[20:], 32<<20)
			if err := os.WriteFile(cacheFile(dir, "indexes", big.Digest), renamedIndex(t, b, big), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			lie(t)
			r := invoke(t, "cache", "verify", cache)
			if r.code != cli.ExitFailure || !strings.Contains(r.stdout, "removed: index of "+big.Digest.String()+": ") {
				t.Errorf("cache verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			if out := succeed(t, "cache", "verify", cache); !strings.HasSuffix(out, ": all are as they should be\n") {
				t.Errorf("the second time: %q", out)
			}
			if got := succeed(t, "cat", "-q", cache, image, "noise"); got != want {
				t.Errorf("then the file has %d bytes, want %d", len(got), len(want))
			}
		})
	}
}

// The same without cache verify: whoever opens the image finds out that the
// index cannot be used.
func TestOpenWithUselessIndex(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	row := parsed[[]indexRow](t, "index", "-q", "--json", cache, image)[0]
	want := succeed(t, "ls", "-q", cache, image)
	b, err := os.ReadFile(cacheFile(dir, "indexes", row.Digest))
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[20:], 1<<30)
	if err := os.WriteFile(cacheFile(dir, "indexes", row.Digest), renamedIndex(t, b, row), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := succeed(t, "ls", "-q", cache, image); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
