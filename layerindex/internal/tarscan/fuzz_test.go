package tarscan

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
)

// FuzzScanner holds any input against archive/tar: both read the same, or both
// refuse it, but for the disagreements that are listed. Whatever the input, the size of the pieces
// makes no difference, and what is handed on lies within it.
func FuzzScanner(f *testing.F) {
	features, _ := featureTar()
	f.Add(features, uint16(512))
	for _, c := range refusals() {
		var w rawTar
		c.tar(&w)
		f.Add(w.Bytes(), uint16(100))
	}
	for _, n := range []string{"9223372036854775807", "9223372036854775296", "9223372036854775808", "4611686018427387904"} {
		for _, records := range [][]string{
			{"size", n},
			{"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "f", "GNU.sparse.realsize", n},
			{"GNU.sparse.size", n, "GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,1," + n + ",1"},
			{"GNU.sparse.size", n, "GNU.sparse.numblocks", "1", "GNU.sparse.map", "1," + n},
		} {
			var w rawTar
			w.pax(records...)
			w.entry(rawHeader{name: "f", flag: '0', magic: magicUstar, mode: "644"}, "1\n0\n"+n+"\n")
			w.end()
			f.Add(w.Bytes(), uint16(100))
		}
	}
	for _, path := range goVectors(f) {
		if filepath.Ext(path) != ".bz2" { // big, for what they are
			data, _ := decoded(f, path)
			f.Add(data, uint16(1))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		data = mendChecksums(data)
		ours, err := scanTar(data, 0, nil)
		again, againErr := scanTar(data, int(piece), nil)
		if !reflect.DeepEqual(ours, again) || !reflect.DeepEqual(err, againErr) {
			t.Errorf("whole: %+v, %v\npieces of %d: %+v, %v", ours, err, piece, again, againErr)
		}
		var format *layerindex.FormatError
		if err != nil && (!errors.As(err, &format) || !errors.Is(err, layerindex.ErrTar) || format.Off < 0 || format.Off > int64(len(data))) {
			t.Errorf("error %v of a tar of %d bytes", err, len(data))
		}
		for i := range ours {
			checkEntry(t, &ours[i], int64(len(data)))
		}
		if _, diff := compareReaders(data); diff != "" {
			t.Error(diff)
		}
	})
}

// mendChecksums returns a copy of data in which the blocks that have the form
// of a checksum in its place have the right one: else hardly any change to a
// header would get past it.
func mendChecksums(data []byte) []byte {
	data = bytes.Clone(data)
	for b := data; len(b) >= blockSize; b = b[blockSize:] {
		if field := b[148:156]; string(field[6:]) == "\x00 " && field[0] == '0' {
			copy(field, "        ")
			sum := 0
			for _, c := range b[:blockSize] {
				sum += int(c)
			}
			copy(field, fmt.Sprintf("%06o\x00 ", sum))
		}
	}
	return data
}

// checkEntry checks what holds for any entry of a tar of n bytes.
func checkEntry(t *testing.T, e *layerindex.Entry, n int64) {
	stored, end := e.Size, int64(0)
	if e.Sparse != nil {
		stored = 0
		for _, x := range e.Sparse {
			if x.Size <= 0 || x.Off < end || x.Off+x.Size > e.Size {
				t.Errorf("%q of %d bytes: extents %v", e.Name, e.Size, e.Sparse)
			}
			end, stored = x.Off+x.Size, stored+x.Size
		}
	}
	if e.Size < 0 || e.Off < 0 || stored > n-e.Off || e.Type != layerindex.TypeReg && (e.Size != 0 || e.Off != 0) {
		t.Errorf("%c %q of %d bytes, %d stored at %d of %d", e.Type, e.Name, e.Size, stored, e.Off, n)
	}
	if e.ModNsec > 999999999 || e.Mode > 07777 || e.HasDigest != (e.Type == layerindex.TypeReg && e.Sparse == nil) {
		t.Errorf("entry %+v", e)
	}
}

func BenchmarkScanner(b *testing.B) {
	for _, c := range []struct {
		name        string
		files, size int
	}{{"small", 20000, 700}, {"big", 4, 64 << 20}} {
		data := benchmarkTar(b, c.files, c.size)
		for _, opts := range []*Options{{NoDigests: true}, {}} {
			name := c.name + "/digests"
			if opts.NoDigests {
				name = c.name + "/plain"
			}
			b.Run(name, func(b *testing.B) {
				benchmarkReads(b, data, c.files, func() {
					s := New(func(*layerindex.Entry) error { return nil }, opts)
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 256<<10)
						if _, err := s.Write(rest[:n]); err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
		b.Run(c.name+"/archive-tar", func(b *testing.B) {
			benchmarkReads(b, data, c.files, func() {
				r := tar.NewReader(struct{ io.Reader }{bytes.NewReader(data)})
				for _, err := r.Next(); !errors.Is(err, io.EOF); _, err = r.Next() {
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func benchmarkReads(b *testing.B, data []byte, files int, read func()) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(files), "ns/entry")
}

func benchmarkTar(b *testing.B, files, size int) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := make([]byte, size)
	for i := range files {
		h := &tar.Header{Name: fmt.Sprintf("usr/share/doc/package-%d/file-%d", i%100, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size),
			ModTime: time.Unix(1700000000, 0)}
		if err := w.WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}
