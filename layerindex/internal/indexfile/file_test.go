package indexfile

import (
	"bytes"
	"testing"
)

// TestFileInPieces reads the file that is in memory from everywhere.
func TestFileInPieces(t *testing.T) {
	file := make([]byte, 1000)
	for i := range file {
		file[i] = byte(i * i)
	}
	var p joined
	for rest := file; len(rest) > 0; {
		n := min(len(rest), 7)
		p.add(bytes.NewReader(rest[:n]), int64(n))
		p.add(bytes.NewReader(nil), 0)
		rest = rest[n:]
	}
	for off := range len(file) + 1 {
		for _, n := range []int{0, 1, 6, 7, 8, 100, len(file)} {
			b := make([]byte, n)
			got, err := p.ReadAt(b, int64(off))
			want, wantErr := bytes.NewReader(file).ReadAt(make([]byte, n), int64(off))
			if n == 0 {
				want, wantErr = 0, nil
			}
			if got != want || err != wantErr || !bytes.Equal(b[:got], file[off:off+got]) {
				t.Fatalf("%d bytes at %d: %d, %v, want %d, %v", n, off, got, err, want, wantErr)
			}
		}
	}
}
