package build

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
)

// claim is what a truthful image says of a layer.
func claim(blob, tar []byte) layerindex.Layer {
	return layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(tar)}
}

func mustBuild(t testing.TB, blob, tar []byte, opts *Options) *layerindex.Index {
	t.Helper()
	x, err := Index(context.Background(), claim(blob, tar), bytes.NewReader(blob), opts)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// encoded returns the index file.
func encoded(t testing.TB, x *layerindex.Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	if n, err := x.WriteTo(&buf); err != nil || n != x.EncodedSize() {
		t.Fatalf("WriteTo = %d, %v; size %d", n, err, x.EncodedSize())
	}
	return buf.Bytes()
}

// settle waits until there are no more goroutines than before.
func settle(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
