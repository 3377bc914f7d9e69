package layerindex

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What makes and reads indexes imports this package: tests of what is inside it
// get at that by way of hooks_test.go.
var (
	BuildForTest  func(ctx context.Context, l Layer, src io.Reader, opts *OptionsForTest) (*Index, error)
	ReaderForTest func(x *Index, blob []byte) LayerForTest
)

// OptionsForTest are build.Options.
type OptionsForTest struct {
	ChunkSize, SpanSize, MaxSize int64
	NoDigests                    bool
	Budget                       *Budget
	Progress                     func(in int64)
}

// A LayerForTest is what tests need of a reader.Reader.
type LayerForTest interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Close() error
}

type buildOptions = OptionsForTest

// claim is what a truthful image says of a layer.
func claim(blob, tar []byte) Layer {
	return Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(tar)}
}

func mustBuild(t testing.TB, blob, tar []byte, opts *buildOptions) *Index {
	t.Helper()
	x, err := BuildForTest(context.Background(), claim(blob, tar), bytes.NewReader(blob), opts)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
