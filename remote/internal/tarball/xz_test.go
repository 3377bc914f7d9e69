package tarball_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// The places in what xz writes: the size of the first block's header in its unit of 4
// bytes, and the size of its dictionary (the xz file format, 3.1 and 5.3.1).
const (
	xzHeader     = 12
	xzDictionary = xzHeader + 4
)

// withDictionary returns what xz wrote with another size of its dictionary.
func withDictionary(content []byte, size byte) []byte {
	content = bytes.Clone(content)
	content[xzDictionary] = size
	header := content[xzHeader : xzHeader+4*(int(content[xzHeader])+1)]
	end := len(header) - 4
	binary.LittleEndian.PutUint32(header[end:], crc32.ChecksumIEEE(header[:end]))
	return content
}

// The dictionary that a header claims is not made if it is too large, and an archive
// wrapped in xz is unpacked as far as any.
func TestXZBounds(t *testing.T) {
	small := filtered(t, example(t), "xz")
	if small[xzDictionary-1] != 1 {
		t.Fatalf("the program wrote another header: % x", small[:24])
	}
	huge, err := io.ReadAll(io.MultiReader(headerOf(t, "big", 9*mib), io.LimitReader(zeros{}, 9*mib)))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(small)
	damaged[len(small)/2] ^= 1
	for _, tt := range []struct {
		name    string
		content []byte
		says    string // "": it is read
	}{
		{"64 MiB", withDictionary(small, 28), ""},
		{"128 MiB", withDictionary(small, 30), ""},
		{"192 MiB", withDictionary(small, 31), "its xz dictionary is larger than the 128 MiB"},
		{"4 GiB", withDictionary(small, 40), "its xz dictionary is larger than the 128 MiB"},
		{"no size at all", withDictionary(small, 41), "xz: "},
		{"cut", small[:len(small)/2], "xz: "},
		{"cut in its header", small[:8], "xz: "},
		{"cut at its end", small[:len(small)-4], "xz: "},
		{"damaged", damaged, "xz: "},
		{"something behind it", append(bytes.Clone(small), "more"...), "xz: "},
		{"too big", filtered(t, huge, "xz"), "more than the 8388608 bytes allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, opts := newTemp(t, 100*mib)
			opts.MaxSize = 8 * mib
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a, err := tarball.Open(t.Context(), write(t, tt.content), opts)
			runtime.ReadMemStats(&after)
			switch {
			case err == nil && tt.says != "":
				t.Errorf("no error, want one with %q", tt.says)
			case err != nil && (tt.says == "" || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("error %v, want one with %q", err, tt.says)
			}
			if err == nil {
				a.Close()
			}
			if f.opened.Load() != f.closed.Load() {
				t.Error("the temporary file was not closed")
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 140*mib {
				t.Errorf("%d MiB were allocated", n/mib)
			}
		})
	}
}
