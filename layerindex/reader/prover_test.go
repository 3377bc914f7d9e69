package reader

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// checkCuts: cuts cover the blob in order, sharing at most a byte, and Find finds them.
func checkCuts(t *testing.T, p *Prover, size int64) {
	t.Helper()
	last, lastOff := int64(0), int64(-1)
	for k := range p.Len() {
		off, end := p.Bounds(k)
		if off <= lastOff || off > last || off < last-1 || end <= last || end > size || end-off > maxCut {
			t.Fatalf("cut %d is %d to %d of %d, behind one that ends at %d", k, off, end, size, last)
		}
		for _, at := range []int64{last, end - 1} {
			if got := p.Find(at); got != k {
				t.Errorf("Find(%d) = %d, want %d", at, got, k)
			}
		}
		last, lastOff = end, off
	}
	if last != size || p.Find(size) != p.Len() {
		t.Errorf("cuts end at %d of %d, and Find there is %d of %d", last, size, p.Find(size), p.Len())
	}
}

// TestProverRuns: cuts are runs, small members are grouped, and large ones alone.
func TestProverRuns(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	files := smallFiles(400, 100_000)
	files[300] = bytes.Repeat(bytes.Join(files[:200], nil), 3)
	for i := 0; i < len(contentsStyles); i += testenv.Every(3) {
		style := contentsStyles[i]
		l := makeContents(t, style, files)
		p := mustProver(t, l.x)
		checkCuts(t, p, int64(len(l.blob)))
		layout := p.cuts.(*runCuts).l
		for i := range layout.Len() {
			out, in := layout.Start(i)
			outEnd, inEnd := layout.End(i)
			one := layout.runs[i+1].member-layout.runs[i].member == 1
			if !one && !style.whole && (outEnd-out >= 2*runOut || inEnd-in >= 2*runIn) {
				t.Errorf("%s: a run of %d bytes of output and %d of the blob", style.name, outEnd-out, inEnd-in)
			}
			if i+2 >= layout.Len() {
				continue
			}
			// Two runs next to each other could not be one.
			if nextEnd, nextIn := layout.End(i + 1); nextEnd-out < runOut && nextIn-in < runIn {
				t.Errorf("%s: runs %d and %d have %d bytes of output and %d of the blob", style.name, i, i+1, nextEnd-out, nextIn-in)
			}
		}
		for _, q := range l.proofs {
			if i, j := layout.Find(q.Off), layout.Find(proofEnd(q)-1); i != j {
				t.Errorf("%s: proof from %d to %d lies in runs %d to %d", style.name, q.Off, proofEnd(q), i, j)
			}
		}
		for k := range p.Len() {
			off, end := p.Bounds(k)
			if i := k - p.cuts.(*runCuts).head; p.Match(k, l.blob[off:end]) != (i >= 0 && i < int64(layout.Len())) || p.Match(k, l.blob[off:end]) != p.Proved(k) {
				t.Errorf("%s: Match(%d) = %v of %d, %d runs", style.name, k, i < 0, p.Len(), layout.Len())
			}
		}
	}
}

// flipLayers are small layers of two runs or so, whose every byte can be tried.
func flipLayers(t testing.TB) (list []*contentsLayer) {
	files := smallFiles(7, 2000)
	for i := range files {
		files[i] = files[i][:min(len(files[i]), 300+100*i)]
	}
	files = append(files, []byte("last"))
	for _, style := range contentsStyles {
		if style.chunk > 0 {
			style.chunk = 401
		}
		style.least = min(style.least, 2000)
		list = append(list, makeContents(t, style, files))
	}
	return list
}

// TestProverFlips: with any bit of a cut wrong, either it does not match, or what is
// read is right all the same.
func TestProverFlips(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for n, l := range flipLayers(t) {
		t.Run(contentsStyles[n].name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(n)))
			p := mustProver(t, l.x)
			unseen := 0
			for at := 0; at < len(l.blob); at += testenv.Every(8) {
				bad := bytes.Clone(l.blob)
				bad[at] ^= 1 << rng.IntN(8)
				k := p.Find(int64(at))
				off, end := p.Bounds(k)
				if !p.Match(k, bad[off:end]) {
					continue
				}
				unseen++
				r := New(l.x, samples.Blob(bad), nil)
				for _, f := range l.files {
					checkContents(t, r, l, f.Off, f.Size)
				}
				r.Close()
			}
			// Headers of members, sums of their own, and what is between contents:
			// more than that is no content.
			if unseen > len(l.blob)/2 {
				t.Errorf("%d wrong bits of %d do not matter", unseen, len(l.blob))
			}
		})
	}
}

// TestProverRefuses gives Match what is of no use at all.
func TestProverRefuses(t *testing.T) {
	t.Parallel()
	for n, l := range flipLayers(t) {
		p := mustProver(t, l.x)
		rng := rand.New(rand.NewPCG(2, uint64(n)))
		for k := range p.Len() {
			off, end := p.Bounds(k)
			good := l.blob[off:end]
			other := make([]byte, len(good))
			for i := range other {
				other[i] = byte(rng.Uint32())
			}
			half := slices.Concat(good[:len(good)/2], other[len(good)/2:])
			moved := slices.Concat(good[1:], good[:1])
			bad := map[string][]byte{
				"nothing": nil, "short": good[:len(good)-1], "long": slices.Concat(good, []byte{0}), "noise": other,
				"zeros": make([]byte, len(good)), "half": half, "moved": moved,
			}
			for name, data := range bad {
				if p.Match(k, data) {
					t.Errorf("%s: cut %d matches %s", contentsStyles[n].name, k, name)
				}
			}
		}
	}
}

// TestProverBomb: data that decode to very much take no more time or memory than a run
// should.
func TestProverBomb(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	noise := make([]byte, 200_000) // a run has as many bytes of the blob
	rand.NewChaCha8([32]byte{1}).Read(noise)
	files := [][]byte{noise, []byte("small"), noise}
	_, zstdBomb, _ := samples.Bomb(t, 1<<30, true)
	gzipBomb := samples.Gzip(t, make([]byte, 100<<20))
	for _, style := range []contentsStyle{contentsStyles[0], contentsStyles[3], contentsStyles[5]} {
		l := makeContents(t, style, files)
		p := mustProver(t, l.x)
		for k := range p.Len() {
			off, end := p.Bounds(k)
			for _, bomb := range [][]byte{zstdBomb, gzipBomb} {
				data := make([]byte, end-off)
				copy(data, bomb)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				begun := time.Now()
				if p.Match(k, data) {
					t.Errorf("%s: a bomb matches", style.name)
				}
				runtime.ReadMemStats(&after)
				// Others run at the same time, so this is wide.
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("%s: a bomb took %v", style.name, took)
				}
				if n := after.Sys - min(before.Sys, after.Sys); n > 256<<20 {
					t.Errorf("%s: a bomb took %d bytes", style.name, n)
				}
			}
		}
	}
}

// TestProverLies: an index whose members have more, or less, than it says.
func TestProverLies(t *testing.T) {
	t.Parallel()
	files := [][]byte{bytes.Repeat([]byte("abc"), 300), bytes.Repeat([]byte("defg"), 700)}
	for n := range contentsStyles {
		style := contentsStyles[n]
		style.chunk, style.least, style.mark = 0, 0, false
		// The content is said to be longer than its member, with a sum that only holds for
		// the member.
		l := makeContents(t, style, files)
		for i := range l.proofs {
			l.proofs[i].Size += 100
		}
		l.files[0].Size += 100
		l.files[1].Size += 100
		l.index(t, style.codec)
		p := mustProver(t, l.x)
		for k := range p.Len() {
			if off, end := p.Bounds(k); p.Match(k, l.blob[off:end]) {
				t.Errorf("%s: a proof of more than the content holds", style.name)
			}
		}
		// And so much longer that nothing can be padding.
		l = makeContents(t, style, files)
		const more = 1 << 20
		l.out = append(l.out, make([]byte, more)...)
		l.proofs[1] = layerindex.Proof{Off: l.proofs[1].Off, Size: l.proofs[1].Size + more, Sum: sha256.Sum256(l.out[l.proofs[1].Off:][:l.proofs[1].Size+more])}
		l.files[1].Size += more
		l.index(t, style.codec)
		p = mustProver(t, l.x)
		if k := p.Find(l.members[1].In); k >= p.Len() {
			t.Fatal(k)
		} else if off, end := p.Bounds(k); p.Match(k, l.blob[off:end]) {
			t.Errorf("%s: a member that ends early matches", style.name)
		}
		r := New(l.x, l.blob, nil)
		if _, err := r.ReadAt(t.Context(), make([]byte, 10), l.files[1].Off); err == nil {
			t.Errorf("%s: a member that ends early is read", style.name)
		}
		r.Close()
	}
}

// TestProverSum: the sum names what Match goes by, and nothing else.
func TestProverSum(t *testing.T) {
	t.Parallel()
	files := smallFiles(40, 1000)
	seen := map[[32]byte]string{}
	for n, style := range contentsStyles {
		style.chunk = 501 + n
		l := makeContents(t, style, files)
		add := func(what string) {
			sum := mustProver(t, l.x).Sum()
			if sum != mustProver(t, l.x).Sum() {
				t.Errorf("%s, %s: two sums of one index", style.name, what)
			}
			if was, ok := seen[sum]; ok {
				t.Errorf("%s, %s: the sum of %s", style.name, what, was)
			}
			seen[sum] = style.name + ", " + what
		}
		add("as it is")
		l.proofs[3].Sum[31]++
		l.index(t, style.codec)
		add("another proof")
		l.members[1].In++
		l.index(t, style.codec)
		add("another member")
	}
}

// TestProverRefusesLongCuts: a cut of more than 16 MiB is none.
func TestProverRefusesLongCuts(t *testing.T) {
	t.Parallel()
	noise := make([]byte, maxCut+1<<20)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	style := contentsStyles[7]
	l := makeContents(t, style, [][]byte{[]byte("a"), noise})
	if _, err := NewProver(l.x); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("a cut of %d bytes: %v", len(noise), err)
	}
	// What is not proven is divided as it comes.
	style.mark = true
	l = makeContents(t, style, [][]byte{[]byte("a")})
	l.blob = append(l.blob, noise...)
	l.index(t, style.codec)
	p := mustProver(t, l.x)
	checkCuts(t, p, int64(len(l.blob)))
	x := sumsOf(t, noise, noise, []layerindex.Checkpoint{{Start: true}}, [][2]int64{{maxCut, maxCut + 5}})
	checkCuts(t, mustProver(t, x), int64(len(noise)))
}

// TestProverClose: closing the reader ends the match of a run that is too long for
// memory, soon.
func TestProverClose(t *testing.T) {
	t.Parallel()
	frame := samples.NewFrame(false)
	const size = 2 << 30
	for at := 0; at < size; at += 128 << 10 {
		frame.Block(1, 128<<10, at+128<<10 >= size, 0)
	}
	l := &contentsLayer{blob: frame.Bytes(), files: []layerindex.Extent{{Size: size}}, members: []layerindex.Checkpoint{{Start: true}}}
	l.proofs = []layerindex.Proof{{Size: size}}
	w := layerindex.NewWriter(nil)
	if err := errors.Join(w.AddCheckpoints(l.members), w.AddProof(l.proofs[0])); err != nil {
		t.Fatal(err)
	}
	x, err := w.Finish(layerindex.Summary{Codec: layerindex.Zstd, BlobSize: l.blob.Size(), TarSize: size,
		Space: layerindex.SpaceContents, Proof: layerindex.ProofOutput})
	if err != nil {
		t.Fatal(err)
	}
	p := mustProver(t, x)
	r := New(x, l.blob, &Options{Prover: p})
	time.AfterFunc(50*time.Millisecond, func() { r.Close() })
	begun := time.Now()
	if p.Match(0, l.blob) {
		t.Error("it matches")
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Match went on for %v", took)
	}
}

// FuzzMatch: whatever data are, what a match lets through is right.
func FuzzMatch(f *testing.F) {
	layers := flipLayers(f)
	provers := make([]*Prover, len(layers))
	for n, l := range layers {
		provers[n] = mustProver(f, l.x)
		for k := range provers[n].Len() {
			off, end := provers[n].Bounds(k)
			f.Add(byte(n), byte(k), []byte(l.blob[off:end]))
		}
	}
	f.Fuzz(func(t *testing.T, n, cut byte, data []byte) {
		l, p := layers[int(n)%len(layers)], provers[int(n)%len(layers)]
		k := int64(cut) % p.Len()
		off, end := p.Bounds(k)
		if len(data) > int(end-off) {
			data = data[:end-off]
		}
		data = append(bytes.Clone(data), l.blob[off:end][len(data):]...)
		if !p.Match(k, data) {
			return
		}
		blob := slices.Concat(l.blob[:off], data, l.blob[end:])
		r := New(l.x, blob, nil)
		defer r.Close()
		for _, file := range l.files {
			b := make([]byte, file.Size)
			if n, err := r.ReadAt(context.Background(), b, file.Off); file.Size > 0 && (err != nil || !bytes.Equal(b, l.out[file.Off:][:n])) {
				t.Fatalf("cut %d matches, and the file at %d is wrong: %v", k, file.Off, err)
			}
		}
	})
}
