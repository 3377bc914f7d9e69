package zstd

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestDecodeFrame decodes frames that say how long they are and such that do not, into
// room for all, for less, and for more; whatever else is around them.
func TestDecodeFrame(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, size := range []int{1, 100, 5000, 127 << 10, 300_000, 3 << 20} {
		data := text(size)
		for name, frame := range map[string][]byte{
			"sized":      encode(t, data, zstd.WithSingleSegment(true)),
			"with a sum": encode(t, data, zstd.WithEncoderCRC(true)),
			"streamed":   streamed(t, data),
			"wide":       encode(t, data, zstd.WithWindowSize(8<<20)),
		} {
			around := slices.Concat(skippable(3, "toc"), frame, encode(t, []byte("next")), []byte("garbage"))
			for _, src := range [][]byte{frame, around} {
				for _, want := range []int{0, 1, size / 2, size - 1, size, size + 1, size + 100_000} {
					for _, room := range []int{0, 10, 64 << 10, 1 << 20} {
						dst := make([]byte, want, want+room)
						n, err := DecodeFrame(dst, src)
						if n != min(want, size) || err != nil || !bytes.Equal(dst[:n], data[:n]) {
							t.Fatalf("%s of %d bytes to %d with room for %d more: %d, %v", name, size, want, room, n, err)
						}
					}
				}
			}
		}
	}
}

// TestDecodeFrameRefuses: what is wrong or not all there is an error.
func TestDecodeFrameRefuses(t *testing.T) {
	t.Parallel()
	data := text(400_000)
	good := encode(t, data, zstd.WithEncoderCRC(true))
	for name, c := range map[string]struct {
		src  []byte
		want error
	}{
		"empty":              {nil, io.ErrUnexpectedEOF},
		"header cut":         {good[:5], io.ErrUnexpectedEOF},
		"block header cut":   {good[:10], io.ErrUnexpectedEOF},
		"cut":                {good[:len(good)-1], io.ErrUnexpectedEOF},
		"skippable alone":    {skippable(0, "abc"), io.ErrUnexpectedEOF},
		"skippable cut":      {skippable(0, "abc")[:10], io.ErrUnexpectedEOF},
		"skippable of 4 GiB": {[]byte("\x50\x2a\x4d\x18\xff\xff\xff\xff abc"), io.ErrUnexpectedEOF},
		"no frame":           {[]byte("this is not zstd"), codec.ErrFormat},
		"dictionary":         {[]byte("\x28\xb5\x2f\xfd\x21\x07\x01\x01\x00\x00x"), codec.ErrFormat},
		"window of 3.75 TiB": {[]byte("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"), codec.ErrFormat},
		"reserved block":     {[]byte("\x28\xb5\x2f\xfd\x20\x01\x0f\x00\x00x"), codec.ErrFormat},
		"wrong sum":          {flip(good, -1), codec.ErrFormat},
	} {
		for _, room := range []int{len(data), len(data) + 1000} {
			n, err := DecodeFrame(make([]byte, len(data)+1, room+1), c.src)
			if !errors.Is(err, c.want) || n > len(data) || n < 0 {
				t.Errorf("%s: %d, %v; want %v", name, n, err, c.want)
			}
		}
	}
}

// TestDecodeFrameAllocations: a small frame that asks for a large window takes none.
func TestDecodeFrameAllocations(t *testing.T) {
	data := text(20_000)
	frame := streamed(t, data)
	dst := make([]byte, len(data), len(data)+64)
	// The collector takes decoders that are kept, and the next frame makes one.
	least := uint64(math.MaxUint64)
	for range 100 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := DecodeFrame(dst, frame); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	if least > 1<<20 {
		t.Errorf("%d bytes allocated for a frame of %d", least, len(data))
	}
}
