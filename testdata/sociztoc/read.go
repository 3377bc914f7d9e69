package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/awslabs/soci-snapshotter/ztoc"
	"github.com/awslabs/soci-snapshotter/ztoc/compression"
	"github.com/opencontainers/go-digest"
)

// An entry is one line of what read prints.
type entry struct {
	Name string `json:"name"` // quoted, as JSON has no words for all names
	Type string `json:"type"`
	Size int64  `json:"size"`
	Sum  string `json:"sum"` // SHA-256 of the content
}

// read reads a ztoc with SOCI's code and compares the digests of its spans with the
// layer, and each entry with its header in the layer, as the snapshotter does at the
// first open of a file.
func read(layer, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	z, err := ztoc.Unmarshal(bytes.NewReader(b))
	if err != nil {
		return err
	}
	blob, err := os.ReadFile(layer)
	if err != nil {
		return err
	}
	if err := checkSpans(z, blob); err != nil {
		return err
	}
	w := json.NewEncoder(os.Stdout)
	for i := range z.FileMetadata {
		e := &z.FileMetadata[i]
		if err := checkHeader(z, blob, e); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		content, err := extract(z, blob, e.UncompressedOffset, e.UncompressedSize)
		if err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		if err := w.Encode(entry{fmt.Sprintf("%q", e.Name), e.Type, int64(len(content)), fmt.Sprintf("%x", sha256.Sum256(content))}); err != nil {
			return err
		}
	}
	return nil
}

// checkSpans compares the digests of the spans with the layer.
func checkSpans(z *ztoc.Ztoc, blob []byte) error {
	zinfo, err := z.Zinfo()
	if err != nil {
		return err
	}
	defer zinfo.Close()
	if zinfo.MaxSpanID() != z.MaxSpanID || len(z.SpanDigests) != int(z.MaxSpanID)+1 || int(z.CompressedArchiveSize) != len(blob) {
		return fmt.Errorf("spans up to %d and %d, %d digests, a layer of %d bytes", zinfo.MaxSpanID(), z.MaxSpanID, len(z.SpanDigests), z.CompressedArchiveSize)
	}
	if err := zinfo.VerifyHeader(bytes.NewReader(blob)); err != nil {
		return err
	}
	for i, want := range z.SpanDigests {
		n := compression.SpanID(i)
		start, end := zinfo.StartCompressedOffset(n), zinfo.EndCompressedOffset(n, z.CompressedArchiveSize)
		if got := digest.FromBytes(blob[start:end]); got != want {
			return fmt.Errorf("span %d: %s, want %s", i, got, want)
		}
	}
	return nil
}

// extract returns a range of the uncompressed layer.
func extract(z *ztoc.Ztoc, blob []byte, off, size compression.Offset) ([]byte, error) {
	one := *z
	one.FileMetadata = []ztoc.FileMetadata{{Name: "x", UncompressedOffset: off, UncompressedSize: size}}
	return one.ExtractFile(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), "x")
}

// checkHeader compares an entry with the header before its content.
func checkHeader(z *ztoc.Ztoc, blob []byte, e *ztoc.FileMetadata) error {
	b, err := extract(z, blob, e.TarHeaderOffset, e.UncompressedOffset-e.TarHeaderOffset)
	if err != nil {
		return err
	}
	r := bytes.NewReader(b)
	h, err := tar.NewReader(r).Next()
	if err != nil {
		return fmt.Errorf("header at %d: %w", e.TarHeaderOffset, err)
	}
	if r.Len() != 0 {
		return fmt.Errorf("%d bytes behind the header", r.Len())
	}
	if e.Name != h.Name || e.Linkname != h.Linkname || int64(e.UncompressedSize) != h.Size || !e.ModTime.Equal(h.ModTime) ||
		e.FileMode().Perm() != h.FileInfo().Mode().Perm() || e.UID != h.Uid || e.GID != h.Gid || e.Uname != h.Uname || e.Gname != h.Gname ||
		e.Devmajor != h.Devmajor || e.Devminor != h.Devminor || !maps.Equal(e.PAXHeaders, h.PAXRecords) {
		return fmt.Errorf("%+v, the header has %+v", e, h)
	}
	return nil
}
