package inflate

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// poisoned returns w with the bytes that it does not have set to 0xa5.
func poisoned(w codec.Window) codec.Window {
	p := bytes.Repeat([]byte{0xa5}, windowSize)
	data := w.Data
	for _, r := range w.Runs {
		copy(p[r.Off:int(r.Off)+int(r.Len)], data)
		data = data[r.Len:]
	}
	return codec.Window{Runs: []codec.Run{{Off: 0, Len: windowSize}}, Data: p}
}

// places decodes a stream and returns a checkpoint, with its window, wherever
// one can be: at each block, and every so many symbols in a block if symbols is
// not 0, but not within 32 KiB of the last.
func places(t testing.TB, d *Decoder, stream []byte, symbols int) []codec.Checkpoint {
	var all []codec.Checkpoint
	d.Reset(bytes.NewReader(stream), 0, 0)
	var open codec.Checkpoint
	tracking := false
	note := func(track bool) {
		if tracking && !d.Tracking() {
			open.Window = d.Window()
			all = append(all, open)
			tracking = false
		}
		if cp, ok := d.Place(); ok && track && !tracking {
			open, tracking = cp, true
			d.Track()
		}
	}
	for {
		e, err := d.Next()
		if err != nil {
			t.Fatal(err)
		}
		note(e == Block)
		d.Take()
		if e == End {
			return all
		}
		if symbols == 0 || e != Block {
			continue
		}
		d.in.fill(headerSize)
		if err := d.readHeader(); err != nil {
			t.Fatal(err)
		}
		for n := 0; d.state == inSymbols && d.op < outLimit; n++ {
			d.in.fill(loopInput)
			if _, err := d.decodeOne(); err != nil {
				t.Fatal(err)
			}
			d.trackOutput()
			if n%symbols == symbols-1 {
				note(d.state == inSymbols)
			}
		}
	}
}

// checkResume checks that decoding from cp gives what is behind it, with what
// the window lacks poisoned and without, and that the source is sought or not.
// It looks at as much as most and whatever comes with that.
func checkResume(t testing.TB, d *Decoder, stream, want []byte, cp codec.Checkpoint, most int) {
	t.Helper()
	tail := want[cp.Out:]
	for i, w := range []codec.Window{cp.Window, poisoned(cp.Window)} {
		at := cp
		at.Window = w
		var src io.Reader = bytes.NewReader(stream[cp.In:])
		if i == 1 {
			src = iotest.DataErrReader(src)
		}
		if err := d.Resume(src, &at); err != nil {
			t.Fatalf("resume at %+v: %v", at, err)
		}
		if d.Out() != cp.Out {
			t.Fatalf("resume at %d of output: says %d", cp.Out, d.Out())
		}
		got, err := decodeSome(d, most)
		if err != nil || !bytes.Equal(got, tail[:max(len(got), min(len(tail), most))]) {
			t.Fatalf("resume at byte %d bit %d symbol %d: got %d bytes, want %d, equal %v, %v",
				cp.In, cp.Bit, cp.Symbol, len(got), len(tail), bytes.Equal(got, tail), err)
		}
	}
}

func TestResume(t *testing.T) {
	testenv.Slow(t)
	want := sample(max(80_000, inflatetest.Scale(300_000)), 11)
	d := NewDecoder(nil, 0)
	for name, stream := range streams(t, want) {
		for _, symbols := range []int{0, 1000} {
			inside, sparse := 0, 0
			for _, cp := range places(t, NewDecoder(nil, 0), stream, symbols) {
				checkResume(t, d, stream, want, cp, len(want))
				if cp.Symbol > 0 {
					inside++
				}
				if n := len(cp.Window.Data); n > 0 && n < windowSize {
					sparse++
				}
			}
			if !strings.HasSuffix(name, " 6") {
				continue // some have no matches, or only short blocks
			}
			if sparse == 0 || (inside == 0) != (symbols == 0) {
				t.Errorf("%s: %d places inside blocks, %d sparse windows", name, inside, sparse)
			}
		}
	}
}

// TestResumeByHand has all kinds of blocks at all offsets in a byte resumed.
func TestResumeByHand(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var w inflatetest.Writer
	w.Stored(false, sample(windowSize, 1))
	for i, n := 0, inflatetest.Scale(160); i < n; i++ {
		writeBlock(&w, rng, i%3, i == n-1)
	}
	stream := w.Bytes()
	d := NewDecoder(nil, 0)
	checkBoth(t, "blocks", stream, w.Want)
	for _, cp := range places(t, NewDecoder(nil, 0), stream, 100) {
		checkResume(t, d, stream, w.Want, cp, 1<<30)
	}
}

// TestGiantBlock resumes deep inside one block, from a source that cannot seek
// and from one that need not read what is before the place.
func TestGiantBlock(t *testing.T) {
	var w inflatetest.Writer
	rng := rand.New(rand.NewPCG(5, 6))
	w.Fixed(true)
	for len(w.Want) < inflatetest.Scale(6<<20) {
		w.Literals(byte(rng.Uint32()), byte(rng.Uint32()))
		if len(w.Want) > 100 {
			w.Match(3+rng.IntN(8), 1+rng.IntN(min(len(w.Want), windowSize)))
		}
	}
	w.End()
	stream := w.Bytes()
	d := NewDecoder(bytes.NewReader(stream), 0)
	var got []byte
	var cps []codec.Checkpoint
	for {
		e, err := d.Next()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(cps); n > 0 && !d.Tracking() && cps[n-1].Window.Runs == nil {
			cps[n-1].Window = d.Window()
		}
		if cp, ok := d.Place(); e == Output && ok && !d.Tracking() {
			cps = append(cps, cp)
			d.Track()
		}
		got = append(got, d.Take()...)
		if e == End {
			break
		}
	}
	if !bytes.Equal(got, w.Want) || len(cps) < inflatetest.Scale(16) {
		t.Fatalf("got %d bytes, want %d, %d places", len(got), len(w.Want), len(cps))
	}
	for i, cp := range cps {
		if i%4 != 0 {
			continue
		}
		checkResume(t, d, stream, got, cp, 1<<30)
		read := new(int64)
		if err := d.Resume(&countingSeeker{Reader: bytes.NewReader(stream), read: read}, &cp); err != nil {
			t.Fatal(err)
		}
		rest, err := decodeAll(d)
		if err != nil || !bytes.Equal(rest, got[cp.Out:]) {
			t.Fatalf("with seeking: got %d bytes, want %d, %v", len(rest), int64(len(got))-cp.Out, err)
		}
		if most := int64(len(stream)) - cp.Symbol/8 + 2*inSize; *read > most {
			t.Errorf("with seeking: read %d bytes, want at most %d", *read, most)
		}
	}
}

// countingSeeker counts what is read.
type countingSeeker struct {
	*bytes.Reader
	read *int64
}

func (c *countingSeeker) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.read += int64(n)
	return n, err
}

func TestResumeRefused(t *testing.T) {
	stream := streams(t, sample(1000, 1))["std 6"]
	d := NewDecoder(nil, 0)
	for name, cp := range map[string]codec.Checkpoint{
		"bit 8":           {Bit: 8},
		"negative symbol": {Symbol: -1},
		"symbol nowhere":  {Bit: 7, Symbol: 1<<63 - 1},
		"negative offset": {In: -1},
		"symbol in block header": {
			Symbol: 1},
		"too much window data": {Window: codec.Window{Data: []byte{1}}},
		"too little window data": {Window: codec.Window{
			Runs: []codec.Run{{Off: 0, Len: 2}}, Data: []byte{1}}},
		"run behind window": {Window: codec.Window{
			Runs: []codec.Run{{Off: 32767, Len: 2}}, Data: []byte{1, 2}}},
		"runs not in order": {Window: codec.Window{
			Runs: []codec.Run{{Off: 5, Len: 1}, {Off: 1, Len: 1}}, Data: []byte{1, 2}}},
	} {
		if err := d.Resume(bytes.NewReader(stream), &cp); !errors.Is(err, errPlace) {
			t.Errorf("%s: got %v, want an invalid checkpoint", name, err)
		}
	}
	behind := codec.Checkpoint{Symbol: 1 << 40}
	if err := d.Resume(bytes.NewReader(stream), &behind); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("symbol behind the end: got %v, want unexpected EOF", err)
	}
}
