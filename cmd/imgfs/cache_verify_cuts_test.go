//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/opencontainers/go-digest"
)

// A bytesBlob is a blob in memory.
type bytesBlob []byte

func (b bytesBlob) Digest() digest.Digest { return digest.FromBytes(b) }

func (b bytesBlob) Size() int64 { return int64(len(b)) }

func (b bytesBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return copy(p, b[off:]), nil
}

// TestCacheVerifyCuts has a layer that is cached by the cuts of an index that others made: it is
// compared with that index, as long as it is there.
func TestCacheVerifyCuts(t *testing.T) {
	alone(t)
	tar := make([]byte, 200<<10)
	rand.NewChaCha8([32]byte{3}).Read(tar)
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(tar)
	z.Close()
	blob := bytesBlob(buf.Bytes())
	w := layerindex.NewWriter(nil)
	if err := w.AddCheckpoints([]layerindex.Checkpoint{{Start: true}}); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{10, 100_001}, {100_000, blob.Size()}} {
		if err := w.AddProof(layerindex.Proof{Off: r[0], Size: r[1] - r[0], Sum: sha256.Sum256(blob[r[0]:r[1]])}); err != nil {
			t.Fatal(err)
		}
	}
	x, err := w.Finish(layerindex.Summary{
		Codec: layerindex.Gzip, Blob: sha256.Sum256(blob), BlobSize: blob.Size(), DiffID: sha256.Sum256(tar), TarSize: int64(len(tar)),
		Proof: layerindex.ProofBlob, Origin: layerindex.OriginSOCI,
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	disk, err := cache.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := indexes.Key(digest.FromString("a ztoc"))
	if err := indexes.New(disk.Indexes()).SaveKey(t.Context(), x, key); err != nil {
		t.Fatal(err)
	}
	cuts, err := reader.NewProver(x)
	if err != nil {
		t.Fatal(err)
	}
	b, err := disk.Blobs.Blob(blob, cuts)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.ReadAt(t.Context(), make([]byte, 150_000), 10); n != 150_000 || err != nil {
		t.Fatalf("ReadAt() = %d, %v", n, err)
	}
	disk.Close()
	verify := func() verifyReport {
		t.Helper()
		return parsed[verifyReport](t, "cache", "verify", "--json", "--cache-dir="+dir)
	}
	if got := verify(); len(got.Wrong) != 0 || len(got.Unknown) != 0 || got.Blobs != 1 || got.Bytes != blob.Size()-10 || got.Indexes != 1 {
		t.Errorf("got %+v of what is as it should be", got)
	}
	flipByte(t, cacheFile(dir, "blobs", blob.Digest())+"-"+blobs.Key(cuts), 150_000)
	if out := invoke(t, "cache", "verify", "--cache-dir="+dir).stdout; !bytes.Contains([]byte(out), []byte("1 of 2 chunks are not what the index says")) {
		t.Errorf("got %q of a damaged cut", out)
	}
	if got := verify(); len(got.Wrong) != 0 || got.Bytes != 100_001-10 {
		t.Errorf("got %+v of the other cut", got)
	}
	list := parsed[cacheList](t, "cache", "ls", "--json", "--cache-dir="+dir)
	if len(list.Other) != 1 || list.Other[0].Digest != blob.Digest() || list.Other[0].Cached != 100_001-10 || list.Other[0].Index == 0 || len(list.Foreign) != 0 {
		t.Errorf("listed as %+v", list)
	}
	if err := os.Remove(cacheFile(dir, "indexes", blob.Digest()) + "-" + key); err != nil {
		t.Fatal(err)
	}
	if got := verify(); len(got.Wrong) != 0 || len(got.Unknown) != 1 || got.Unknown[0] != blob.Digest() {
		t.Errorf("got %+v without an index", got)
	}
}
