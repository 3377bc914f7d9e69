package gzip

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestBlocks: checkpoints at blocks alone begin behind the first header, are as far
// apart as asked for and known before their windows are, and decoding goes on from them.
func TestBlocks(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	const step = 100 << 10
	long, empty := text(3<<20, 5), zip(t, nil)
	named := append([]byte{magic0, magic1, deflate, flagName, 0, 0, 0, 0, 0, 3, 'n', 'a', 'm', 'e', 0}, zip(t, long)[10:]...)
	for name, c := range map[string]struct {
		file, want []byte
		first      int64
	}{
		"one member":  {zip(t, long), long, 10},
		"a name":      {named, long, 15},
		"empty first": {bytes.Join([][]byte{empty, empty, zip(t, long)}, nil), long, 10},
		"members":     {bytes.Repeat(zip(t, long[:70<<10]), 40), bytes.Repeat(long[:70<<10], 40), 10},
		"only empty":  {bytes.Repeat(empty, 9), nil, 10},
		"zeros":       {append(zip(t, long), make([]byte, 2<<20)...), long, 10},
	} {
		var placed []codec.Checkpoint
		var x *Indexer
		x = NewIndexer(bytes.NewReader(c.file), &Options{SpanOut: step, Blocks: func(cp codec.Checkpoint) {
			if at := x.In(); cp.In < at {
				t.Errorf("%s: a place at byte %d is chosen at byte %d", name, cp.In, at)
			}
			placed = append(placed, cp)
		}})
		got, cps, err := decodeAll(x)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Fatalf("%s: %d bytes, want %d, %v", name, len(got), len(c.want), err)
		}
		if x.In() != int64(len(c.file)) {
			t.Errorf("%s: ends at byte %d of %d", name, x.In(), len(c.file))
		}
		if len(cps) == 0 || cps[0].In != c.first || cps[0].Out != 0 || len(c.want) > 0 && len(cps) < 10 {
			t.Fatalf("%s: %d checkpoints, the first is %+v", name, len(cps), cps[:min(1, len(cps))])
		}
		for i, cp := range cps {
			if cp.Start || cp.Symbol != 0 || i > 0 && cp.Out-cps[i-1].Out <= step {
				t.Errorf("%s: checkpoint %d is %+v", name, i, cp)
			}
			if cp.Window = (codec.Window{}); !reflect.DeepEqual(cp, placed[i]) {
				t.Errorf("%s: checkpoint %d is %+v, placed at %+v", name, i, cp, placed[i])
			}
		}
		if last := len(cps) - 1; cps[last].Out == int64(len(c.want)) {
			cps = cps[:last] // at a block that gives nothing
		}
		checkResume(t, new(Decoder), c.file, c.want, cps)
	}
}

// TestBlocksCut: a file that is cut off has the checkpoints before that place.
func TestBlocksCut(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	file := zip(t, text(3<<20, 6))
	_, whole, err := decodeAll(NewIndexer(bytes.NewReader(file), &Options{SpanOut: 1 << 20, Blocks: func(codec.Checkpoint) {}}))
	if err != nil || len(whole) != 3 {
		t.Fatalf("%d checkpoints, %v", len(whole), err)
	}
	_, cps, err := decodeAll(NewIndexer(bytes.NewReader(file[:len(file)/2]), &Options{SpanOut: 1 << 20, Blocks: func(codec.Checkpoint) {}}))
	if err == nil || err == io.EOF || !reflect.DeepEqual(cps, whole[:2]) {
		t.Errorf("%d checkpoints, %v", len(cps), err)
	}
}
