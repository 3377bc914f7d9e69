package reader

import (
	"bytes"
	"context"
	"github.com/imgfs/imgfs/testdata/testenv"
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// A countMeter adds up what is decoded.
type countMeter struct{ n atomic.Int64 }

func (m *countMeter) Decoded(n int64) { m.n.Add(n) }

func metered(m *countMeter) context.Context {
	return context.WithValue(context.Background(), MeterKey{}, m)
}

// TestMeter: a pass over a file counts what it takes to decode it, by whomever
// that was done, and not what is behind it.
func TestMeter(t *testing.T) {
	for _, procs := range []int{1, 2} {
		setProcs(t, procs)
		a := newAheadTest(t, "gzip")
		m := &countMeter{}
		const begin, end = 400_000, 1_900_000
		p := make([]byte, 50_000)
		for off := int64(begin); off < end; off += int64(len(p)) {
			if _, err := a.r.ReadFileAt(metered(m), p, off, end); err != nil {
				t.Fatal(err)
			}
		}
		a.r.Close() // waits for what is done ahead
		out, _, _, err := a.r.Source(begin, end)
		if err != nil {
			t.Fatal(err)
		}
		last, _ := a.m.l.End(a.m.l.Find(end - 1))
		// A job may decode to the end of the file what a reader decodes too.
		if n := m.n.Load(); n < end-out || n > last-out {
			t.Errorf("%d processors: %d bytes decoded for %d", procs, n, end-out)
		}
		// In memory: nothing is decoded.
		before := m.n.Load()
		if _, err := a.r.ReadFileAt(metered(m), p, begin, end); err != nil || m.n.Load() != before {
			t.Errorf("%d bytes decoded for what is in memory, %v", m.n.Load()-before, err)
		}
	}
}

// TestReadHeld compares with ReadAt what is given from memory.
func TestReadHeld(t *testing.T) {
	for _, name := range []string{"plain", "gzip", "zstd of several frames"} {
		a := newAheadTest(t, name)
		size := a.x.Size()
		p := make([]byte, 300_000)
		ctx := func() context.Context { return context.Background() }
		held := func(off, n int64) bool { return a.r.ReadHeld(p[:n], off, size, ctx) }
		if held(0, 10) {
			t.Errorf("%s: bytes are in memory before anything is read", name)
		}
		if len(a.r.ahead.streams) != 0 {
			t.Errorf("%s: the read was taken down", name)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			off, n := rng.Int64N(size), 1+rng.Int64N(int64(len(p)))
			n = min(n, size-off)
			if held(off, n) && !bytes.Equal(p[:n], a.tar[off:off+n]) {
				t.Fatalf("%s: wrong bytes at %d", name, off)
			}
			checkRead(t, a.r, a.tar, off, n)
			if got := held(off, n); got == (name == "plain") || got && !bytes.Equal(p[:n], a.tar[off:off+n]) {
				t.Fatalf("%s: %d bytes at %d: held %v, or wrong", name, n, off, got)
			}
		}
		for _, at := range [][2]int64{{-1, 1}, {size, 1}, {size - 1, 2}, {5, 0}} {
			if held(at[0], at[1]) {
				t.Errorf("%s: %d bytes at %d are in memory", name, at[1], at[0])
			}
		}
	}
}

// TestReadHeldGoesOn: reads from memory that follow each other have the next
// spans decoded, too.
func TestReadHeldGoesOn(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	const have = 240_000
	checkRead(t, a.r, a.tar, 0, have) // alone it has nothing decoded ahead
	m, asked := &countMeter{}, 0
	p := make([]byte, 20_000)
	for off := int64(0); off < have; off += int64(len(p)) {
		if !a.r.ReadHeld(p, off, a.x.Size(), func() context.Context { asked++; return metered(m) }) {
			t.Fatalf("%d is not in memory", off)
		}
	}
	a.r.ahead.jobs.Wait()
	if asked == 0 || m.n.Load() == 0 {
		t.Errorf("the context was asked for %d times, %d bytes decoded", asked, m.n.Load())
	}
}

func TestReadHeldAllocations(t *testing.T) {
	a := newAheadTest(t, "gzip")
	p := make([]byte, 4096)
	checkRead(t, a.r, a.tar, 0, 200_000)
	rng := rand.New(rand.NewPCG(1, 2))
	if n := testing.AllocsPerRun(200, func() {
		off := rng.Int64N(190_000)
		if !a.r.ReadHeld(p, off, off+int64(len(p)), func() context.Context { return context.Background() }) {
			t.Fatal("it is not in memory")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSource(t *testing.T) {
	testenv.Slow(t)
	for _, name := range []string{"plain", "gzip"} {
		a := newAheadTest(t, name)
		size := a.x.Size()
		rng := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			off := rng.Int64N(size)
			end := off + 1 + rng.Int64N(size-off)
			out, in, inEnd, err := a.r.Source(off, end)
			if err != nil || out > off || in < 0 || inEnd < in || inEnd > a.blob.Size() {
				t.Fatalf("%s: %d to %d: out %d, in %d to %d, %v", name, off, end, out, in, inEnd, err)
			}
			r := New(a.x, a.blob, nil)
			a.blob.read, a.blob.asked = nil, nil
			checkRead(t, r, a.tar, off, end-off)
			r.Close()
			from, _, _ := a.blob.touched()
			if from != in {
				t.Errorf("%s: %d to %d: the blob is read from %d, want %d", name, off, end, from, in)
			}
		}
		for _, at := range [][2]int64{{-1, 1}, {0, 0}, {5, 4}, {0, size + 1}} {
			if _, _, _, err := a.r.Source(at[0], at[1]); err == nil {
				t.Errorf("%s: %v: no error", name, at)
			}
		}
	}
}
