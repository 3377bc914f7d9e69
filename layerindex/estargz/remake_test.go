package estargz_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/opencontainers/go-digest"
)

// A parts is an eStargz layer taken apart.
type parts struct {
	contents []byte // of the blob, before the TOC
	json     []byte
}

// apart takes a layer with a footer of 51 bytes apart.
func apart(t testing.TB, blob []byte) parts {
	t.Helper()
	at, err := strconv.ParseInt(string(blob[len(blob)-51+16:][:16]), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob[at : len(blob)-51]))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return parts{blob[:at], text}
}

// A toc is a TOC as encoding/json has it.
type toc struct {
	Version int              `json:"version"`
	Entries []map[string]any `json:"entries"`
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

// chunk returns further chunk number i of a name.
func (x *toc) chunk(name string, i int) map[string]any {
	for _, e := range x.Entries {
		if e["name"] == name && e["type"] == "chunk" {
			if i == 0 {
				return e
			}
			i--
		}
	}
	return nil
}

// changed returns the layer with another TOC.
func (p parts) changed(t testing.TB, change func(*toc)) parts {
	t.Helper()
	var x toc
	d := json.NewDecoder(bytes.NewReader(p.json))
	d.UseNumber()
	if err := d.Decode(&x); err != nil {
		t.Fatal(err)
	}
	change(&x)
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return parts{p.contents, text}
}

// digest is what an annotation would say.
func (p parts) digest() digest.Digest { return digest.FromBytes(p.json) }

// blob puts a layer together.
func (p parts) blob(t testing.TB) *toctest.Blob {
	t.Helper()
	return p.named(t, "stargz.index.json", footer(t, len(p.contents)))
}

// legacy puts a layer together as stargz was.
func (p parts) legacy(t testing.TB) *toctest.Blob {
	t.Helper()
	return p.named(t, "stargz.index.json", emptyMember(t, fmt.Appendf(nil, "%016xSTARGZ", len(p.contents))))
}

func (p parts) named(t testing.TB, name string, footer []byte) *toctest.Blob {
	t.Helper()
	return toctest.NewBlob(append(append(bytes.Clone(p.contents), tarOf(t, name, p.json)...), footer...))
}

// tarOf returns a tar of one file, compressed.
func tarOf(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func footer(t testing.TB, at int) []byte {
	t.Helper()
	return emptyMember(t, fmt.Appendf([]byte("SG\x16\x00"), "%016xSTARGZ", at))
}

// emptyMember returns an empty gzip member with an extra field.
func emptyMember(t testing.TB, extra []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	z.Extra = extra
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
