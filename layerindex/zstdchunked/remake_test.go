package zstdchunked_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// A parts is a zstd:chunked layer taken apart.
type parts struct {
	contents []byte // of the blob, before the frame of the TOC
	json     []byte
	split    []byte // the tar-split, nil for none
	first    bool   // annotations with the prefix of the first programs
	// how TOC and tar-split are compressed
	opts []zstd.EOption
}

// apart takes a fixture apart.
func apart(t testing.TB, name string) parts {
	t.Helper()
	l := toctest.Fixture(t, name)
	blob := l.Read(t).B
	a := annotated(t, l)
	var at, n, raw, kind int
	if _, err := fmt.Sscanf(a.ManifestPosition, "%d:%d:%d:%d", &at, &n, &raw, &kind); err != nil {
		t.Fatal(err)
	}
	p := parts{contents: blob[:at-8], json: decode(t, blob[at:at+n]), first: a.First}
	if a.TarSplitPosition != "" {
		var at, n, raw int
		if _, err := fmt.Sscanf(a.TarSplitPosition, "%d:%d:%d", &at, &n, &raw); err != nil {
			t.Fatal(err)
		}
		p.split = decode(t, blob[at:at+n])
	}
	return p
}

func annotated(t testing.TB, l toctest.Layer) zstdchunked.Annotations {
	t.Helper()
	a, err := zstdchunked.Annotated(l.Annotations)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func decode(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func encode(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, opts...)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// skippable returns a skippable frame.
func skippable(b []byte) []byte {
	head := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(b)))
	return append(head, b...)
}

// A made is a layer with its annotations.
type made struct {
	*toctest.Blob
	zstdchunked.Annotations
}

// make puts a layer together. The digest of the tar-split is in the TOC as that has it.
func (p parts) make(t testing.TB) made {
	t.Helper()
	stored := encode(t, p.json, p.opts...)
	blob := append(bytes.Clone(p.contents), skippable(stored)...)
	m := made{Annotations: zstdchunked.Annotations{
		ManifestChecksum: digest.FromBytes(stored).String(),
		ManifestPosition: fmt.Sprintf("%d:%d:%d:1", len(p.contents)+8, len(stored), len(p.json)),
		First:            p.first,
	}}
	if p.split != nil {
		split := encode(t, p.split, p.opts...)
		m.TarSplitPosition = fmt.Sprintf("%d:%d:%d", len(blob)+8, len(split), len(p.split))
		blob = append(blob, skippable(split)...)
	}
	m.Blob = toctest.NewBlob(append(blob, skippable(make([]byte, 64))...))
	return m
}

// A toc is a TOC as encoding/json has it.
type toc struct {
	Version        int              `json:"version"`
	Entries        []map[string]any `json:"entries"`
	TarSplitDigest string           `json:"tarSplitDigest,omitempty"`
}

// entry returns the first entry of a name.
func (x *toc) entry(name string) map[string]any {
	for _, e := range x.Entries {
		if e["name"] == name {
			return e
		}
	}
	return nil
}

// chunk returns the first further chunk of a name.
func (x *toc) chunk(name string) map[string]any {
	for _, e := range x.Entries {
		if e["name"] == name && e["type"] == "chunk" {
			return e
		}
	}
	return nil
}

// changed returns the layer with another TOC, and with another tar-split if split is not
// nil.
func (p parts) changed(t testing.TB, change func(*toc), split func([]byte) []byte) parts {
	t.Helper()
	var x toc
	d := json.NewDecoder(bytes.NewReader(p.json))
	d.UseNumber()
	if err := d.Decode(&x); err != nil {
		t.Fatal(err)
	}
	if split != nil {
		p.split = split(p.split)
	}
	if p.split != nil {
		x.TarSplitDigest = digest.FromBytes(encode(t, p.split, p.opts...)).String()
	} else {
		x.TarSplitDigest = ""
	}
	if change != nil {
		change(&x)
	}
	var err error
	if p.json, err = json.Marshal(x); err != nil {
		t.Fatal(err)
	}
	return p
}

// index makes the index of a layer.
func (m made) index() (*layerindex.Index, error) {
	return zstdchunked.Index(context.Background(), toctest.Of(m.B), m, &zstdchunked.Options{Annotations: m.Annotations})
}

// alone makes the index of a layer without its tar-split.
func (m made) alone() (*layerindex.Index, error) {
	m.TarSplitPosition = ""
	return m.index()
}
