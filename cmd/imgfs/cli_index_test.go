//go:build linux

package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func zstdOf(t *testing.T, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(content, nil)
}

// TestIndex has a layer of each compression.
func TestIndex(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	store := sourcetest.NewStore()
	var img sourcetest.Image
	var want []indexRow
	for i, c := range []struct {
		codec     string
		mediaType string
		pack      func(*testing.T, []byte) []byte
	}{
		{"tar", ocispec.MediaTypeImageLayer, func(_ *testing.T, p []byte) []byte { return p }},
		{"gzip", ocispec.MediaTypeImageLayerGzip, gzipOf},
		{"zstd", ocispec.MediaTypeImageLayerZstd, zstdOf},
	} {
		var headers []tar.Header
		for n := range 10 * (i + 1) {
			headers = append(headers, tar.Header{Name: fmt.Sprintf("%s-%d", c.codec, n)})
		}
		content := tarOf(t, headers...)
		blob := c.pack(t, content)
		img.Layers = append(img.Layers, sourcetest.Layer{Content: blob, MediaType: c.mediaType, DiffID: digest.FromBytes(content)})
		want = append(want, indexRow{Digest: digest.FromBytes(blob), DiffID: digest.FromBytes(content), Codec: c.codec,
			Size: int64(len(blob)), TarSize: int64(len(content)), Entries: len(headers), Spans: 1,
			Index: image.IndexUse{Origin: "imgfs", Vouched: image.VouchedHere}})
	}
	name := publishStore(reg, store, store.AddImage(img))
	cache := t.TempDir()
	for _, obtained := range []string{"built", "loaded", "loaded"} {
		var rows []indexRow
		if err := json.Unmarshal([]byte(succeed(t, "index", "--json", "--cache-dir", cache, name)), &rows); err != nil {
			t.Fatal(err)
		}
		if len(rows) != len(want) {
			t.Fatalf("got %d rows, want %d", len(rows), len(want))
		}
		for i, w := range want {
			w.Obtained = obtained
			st, err := os.Stat(filepath.Join(cache, "indexes", "sha256", w.Digest.Encoded()))
			if err != nil {
				t.Fatal(err)
			}
			w.IndexBytes = st.Size()
			if w.Fetched = 0; obtained == "built" {
				w.Fetched = w.Size
			}
			if rows[i] != w {
				t.Errorf("layer %d: got %+v, want %+v", i, rows[i], w)
			}
			want[i] = w
		}
	}
	table := succeed(t, "index", "--bytes", "--cache-dir", cache, name)
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	if got, want := strings.Fields(lines[0]), "[LAYER SIZE TAR ENTRIES SPANS INDEX OBTAINED BY]"; fmt.Sprint(got) != want {
		t.Errorf("got heading %v, want %s", got, want)
	}
	for i, w := range want {
		row := fmt.Sprint([]any{w.Digest, w.Size, w.TarSize, w.Entries, w.Spans, w.IndexBytes, w.Obtained, w.Index.Origin})
		if got := fmt.Sprint(strings.Fields(lines[1+i])); got != row {
			t.Errorf("row %d: got %s, want %s", i, got, row)
		}
	}
	for _, line := range lines {
		if len(line) != len(lines[0])-len("BY")+len("imgfs") && line != lines[0] {
			t.Errorf("the columns do not stand below each other:\n%s", table)
			break
		}
	}
}
