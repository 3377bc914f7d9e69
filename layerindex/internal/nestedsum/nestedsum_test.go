package nestedsum

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

func randomBytes(n int, seed uint64) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	rng.Read(p)
	return p
}

// kinds are the ways to get at a sum.
var kinds = []struct {
	name string
	fast bool
}{{"plain", false}, {"accelerated", true}}

func eachKind(t *testing.T, do func(t *testing.T, h func() *Hash)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			if k.fast && !accelerated {
				t.Skip("this processor does not have the SHA extensions")
			}
			do(t, func() *Hash { return newHash(k.fast) })
		})
	}
}

// Streams of all lengths up to a few blocks, of one part.
func TestLengths(t *testing.T) {
	p := randomBytes(300, 1)
	eachKind(t, func(t *testing.T, hash func() *Hash) {
		for n := range p {
			h := hash()
			h.Begin()
			h.WritePart(p[:n])
			want := sha256.Sum256(p[:n])
			if got := h.SumPart(); got != want {
				t.Errorf("part of %d bytes: %x, want %x", n, got, want)
			}
			if got := h.Sum(); got != want {
				t.Errorf("stream of %d bytes: %x, want %x", n, got, want)
			}
			if got := hash(); got.Sum() != sha256.Sum256(nil) {
				t.Error("sum of nothing is wrong")
			}
		}
	})
}

// Parts at any place in a stream, written in pieces of any size, with sums
// taken in between.
func TestRandomStreams(t *testing.T) {
	eachKind(t, func(t *testing.T, hash func() *Hash) {
		for seed := range uint64(400) {
			rng := rand.New(rand.NewPCG(seed, 7))
			h := hash()
			var stream []byte
			write := func(n int, to func([]byte)) {
				p := randomBytes(n, rng.Uint64())
				stream = append(stream, p...)
				for len(p) > 0 {
					k := 1 + rng.IntN(len(p))
					to(p[:k])
					p = p[k:]
				}
			}
			for range 1 + rng.IntN(6) {
				gap := rng.IntN(200)
				if rng.IntN(2) == 0 {
					gap = 64 * rng.IntN(9)
				}
				write(gap, h.Write)
				from := len(stream)
				h.Begin()
				write(rng.IntN(700), h.WritePart)
				if got, want := h.SumPart(), sha256.Sum256(stream[from:]); got != want {
					t.Fatalf("seed %d: part from %d to %d: %x, want %x", seed, from, len(stream), got, want)
				}
				if got, want := h.Sum(), sha256.Sum256(stream); got != want {
					t.Fatalf("seed %d: stream of %d: %x, want %x", seed, len(stream), got, want)
				}
			}
		}
	})
}

// What is hashed is not changed, and nothing around it is looked at.
func TestOnlyRead(t *testing.T) {
	p := randomBytes(1<<16+5, 9)
	kept := bytes.Clone(p)
	h := New()
	h.Begin()
	h.WritePart(p[:len(p):len(p)])
	if !bytes.Equal(p, kept) {
		t.Error("the input was changed")
	}
	if h.Sum() != sha256.Sum256(p) {
		t.Error("wrong sum")
	}
}

// Writing and taking sums allocates nothing.
func TestAllocs(t *testing.T) {
	if !accelerated {
		t.Skip("crypto/sha256 allocates its sums")
	}
	p := randomBytes(1000, 2)
	h := New()
	h.Begin()
	if n := testing.AllocsPerRun(100, func() {
		h.Begin()
		h.WritePart(p[:960])
		h.Write(p[:64])
		if h.SumPart() == h.Sum() {
			t.Error("a part has the sum of the stream")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPair(b *testing.B) {
	p := randomBytes(256<<10, 3)
	b.Run("both at once", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		h := New()
		for b.Loop() {
			h.Begin()
			h.WritePart(p)
			h.SumPart()
		}
	})
	b.Run("one after the other", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		h := sha256.New()
		for b.Loop() {
			h.Write(p)
			sha256.Sum256(p)
		}
	})
}

func FuzzSums(f *testing.F) {
	f.Add([]byte("abc"), uint16(0), uint16(2))
	f.Add(randomBytes(500, 4), uint16(64), uint16(400))
	f.Fuzz(func(t *testing.T, p []byte, from, to uint16) {
		a, b := min(int(from), len(p)), min(int(to), len(p))
		b = max(a, b)
		for _, k := range kinds {
			if k.fast && !accelerated {
				continue
			}
			h := newHash(k.fast)
			h.Write(p[:a])
			h.Begin()
			h.WritePart(p[a:b])
			part := h.SumPart()
			h.Write(p[b:])
			if part != sha256.Sum256(p[a:b]) || h.Sum() != sha256.Sum256(p) {
				t.Errorf("%s: wrong sum of %x from %d to %d", k.name, p, a, b)
			}
		}
	})
}
