package soci

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
)

// FuzzZtoc changes ztocs that SOCI has made. Each gives an index that is valid, or an
// error that says that the ztoc is not.
func FuzzZtoc(f *testing.F) {
	samples := fixtures(f)
	f.Add(uint8(0), []byte{0, 0, 0, 1})
	f.Add(uint8(1), []byte{96, 0, 0, 0xff, 112, 0, 1, 3})
	f.Add(uint8(2), []byte{144, 0, 4, 7, 16, 0, 0, 1})
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		s := samples[int(which)%len(samples)]
		z := bytes.Clone(s.ztoc)
		// Windows are most of a ztoc, and the least that can be wrong with it.
		from, size := windowsOf(s.ztoc)
		for ; len(changes) >= 4; changes = changes[4:] {
			at := int(binary.LittleEndian.Uint16(changes)) % (len(z) - size)
			if at >= from {
				at += size
			}
			z[(at+int(changes[2]))%len(z)] ^= changes[3]
		}
		x, err := Index(context.Background(), s.layer(), z, &Options{Budget: layerindex.NewBudget(1<<20, nil), First: []SpanRange{{0, 1}, {-1, 1 << 30}}})
		if err != nil {
			for _, want := range []error{layerindex.ErrIndex, layerindex.ErrLossy, layerindex.ErrMetadata, layerindex.ErrEntries} {
				if errors.Is(err, want) {
					return
				}
			}
			t.Fatal(err)
		}
		if err := x.Verify(context.Background()); err != nil {
			t.Fatalf("the index is not valid: %v", err)
		}
		r := reader.New(x, memory(s.blob), nil)
		defer r.Close()
		p := make([]byte, 3000)
		for off := int64(0); off < x.Size(); off += x.Size()/8 + 1 {
			_, _ = r.ReadAt(context.Background(), p, off)
		}
	})
}

// windowsOf returns where in a ztoc the second checkpoint's window begins, and how many
// bytes come to the end of the last one.
func windowsOf(z []byte) (from, size int) {
	f := newBuffer(z)
	info := f.root().table(ztocInfo)
	points := info.bytes(infoCheckpoints)
	if len(points) < pointsHeader+2*pointSize {
		return 0, 0
	}
	pos, _ := info.field(infoCheckpoints)
	from = int(f.follow(pos)) + 4 + pointsHeader + pointSize + 17
	return from, len(points) - pointsHeader - pointSize - 17
}

// FuzzDocuments: a manifest or a prefetch document of a stranger is read or refused.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":2}]}`))
	f.Add([]byte(manifestV1))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if m, err := ParseIndex(doc); err == nil {
			for layer, files := range m.Layers {
				if layer == "" || files.Ztoc.Digest.Validate() != nil || files.Ztoc.Size < 0 || files.Ztoc.Size > MaxZtoc {
					t.Errorf("%s: %+v", layer, files)
				}
			}
		} else if !errors.Is(err, ErrManifest) {
			t.Error(err)
		}
		if list, err := ParsePrefetch(doc); err == nil {
			for _, r := range list {
				if r.First < 0 || r.Last < r.First {
					t.Errorf("%+v", r)
				}
			}
		} else if !errors.Is(err, ErrManifest) {
			t.Error(err)
		}
	})
}
