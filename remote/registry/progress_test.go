package registry_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// What a read tells of is there and right at that moment, also when an answer
// breaks off and another goes on, and before the answer has ended.
func TestReadAtProgress(t *testing.T) {
	s := registrytest.New(t, nil)
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	b, ok := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)).(remote.ProgressBlob)
	if !ok {
		t.Fatal("the blob does not tell how far it is")
	}
	for _, tt := range []struct {
		name  string
		fault func(int) registrytest.Fault
	}{
		{"none", nil},
		{"broken", registrytest.Once(registrytest.Truncate(300_000))},
		{"reset", registrytest.Times(2, registrytest.Reset(200_000))},
		{"other range", registrytest.Once(registrytest.OtherRange(func(first, last int64) (int64, int64) { return first + 1, last }))},
		{"whole blob", registrytest.Once(registrytest.IgnoreRange())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const off = 1000
			s.Inject(registrytest.Blob, tt.fault)
			defer s.Inject(registrytest.Blob, nil)
			p := make([]byte, len(content)-off)
			told, calls := 0, 0
			n, err := b.ReadAtProgress(t.Context(), p, off, func(n int) {
				calls++
				if n < told || n > len(p) || !bytes.Equal(p[told:n], content[off+told:off+n]) {
					t.Errorf("told of %d bytes after %d: not so", n, told)
				}
				told = n
			})
			if n != len(p) || err != nil || !bytes.Equal(p, content[off:]) {
				t.Errorf("got %d bytes and error %v, or others than there are", n, err)
			}
			if told != len(p) || calls < 2 {
				t.Errorf("told %d times, of %d bytes at the end", calls, told)
			}
		})
	}
}
