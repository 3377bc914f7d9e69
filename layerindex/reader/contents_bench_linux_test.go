package reader

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
)

// A benchSide is a layer by one of its indexes.
type benchSide struct {
	l      *contentsLayer
	x      *layerindex.Index
	files  []layerindex.Extent
	wall   time.Duration
	cpu    time.Duration
	cuts   *Prover
	checks int64
}

// cpuTime returns what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// run reads the files that are picked, through a cache with nothing in it.
func (s *benchSide) run(b *testing.B, picked []int, most int64) {
	begun, cpu := time.Now(), cpuTime(b)
	blob := &cutBlob{Blob: s.l.blob, p: s.cuts}
	r := New(s.x, blob, &Options{Cache: NewSpanCache(64 << 20), Prover: s.cuts})
	p := make([]byte, 128<<10)
	for _, i := range picked {
		f := s.files[i]
		for at, end := f.Off, f.Off+min(f.Size, most); at < end; {
			n, err := r.ReadFileAt(context.Background(), p[:min(int64(len(p)), end-at)], at, f.Off+f.Size)
			if err != nil {
				b.Fatal(err)
			}
			at += int64(n)
		}
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	s.wall += time.Since(begun)
	s.cpu += cpuTime(b) - cpu
	s.checks += blob.matched.Load()
}

// BenchmarkContents reads layers of 15,000 small files and a few long ones by a TOC, and
// by the index of an ordinary pass, one after the other: all files in order, and some of
// them here and there. Nothing is checked yet at the beginning of each.
func BenchmarkContents(b *testing.B) {
	files := smallFiles(15_000, 200_000)
	for i := range 6 {
		files[i*2000+500] = bytes.Repeat(bytes.Join(files[i*100:i*100+300], nil), 1+3*i)
	}
	for _, style := range contentsStyles {
		switch style.name {
		case "estargz", "zstd:chunked":
		default:
			continue
		}
		l := makeContents(b, style, files)
		x := mustBuild(b, l.blob, l.tar, nil)
		ours := benchSide{l: l, x: x, cuts: mustProver(b, x)}
		entries, err := x.Entries()
		if err != nil {
			b.Fatal(err)
		}
		for e := range entries {
			ours.files = append(ours.files, layerindex.Extent{Off: e.Off, Size: e.Size})
		}
		toc := benchSide{l: l, x: l.x, files: l.files, cuts: mustProver(b, l.x)}
		all := make([]int, len(files))
		size := int64(0)
		for i := range all {
			all[i] = i
			size += int64(len(files[i]))
		}
		b.Logf("%s: %d bytes of contents, tar %d, blob %d; %d members in %d cuts, ours %d spans and %d cuts", style.name, size,
			len(l.tar), len(l.blob), len(l.members), toc.cuts.Len(), x.NumSpans(), ours.cuts.Len())
		some := rand.New(rand.NewPCG(1, 2)).Perm(len(files))[:300]
		for _, how := range []struct {
			name   string
			picked []int
			most   int64
		}{{"sequential", all, 1 << 40}, {"random", some, 16 << 10}} {
			b.Run(fmt.Sprintf("%s/%s", style.name, how.name), func(b *testing.B) {
				n := int64(0)
				for _, i := range how.picked {
					n += min(int64(len(files[i])), how.most)
				}
				ours, toc := ours, toc
				for b.Loop() {
					ours.run(b, how.picked, how.most)
					toc.run(b, how.picked, how.most)
				}
				b.ReportMetric(float64(n)*float64(b.N)/1e6/toc.wall.Seconds(), "toc-MB/s")
				b.ReportMetric(float64(n)*float64(b.N)/1e6/ours.wall.Seconds(), "ours-MB/s")
				b.ReportMetric(toc.wall.Seconds()/ours.wall.Seconds(), "toc/ours-wall")
				b.ReportMetric(toc.cpu.Seconds()/ours.cpu.Seconds(), "toc/ours-cpu")
			})
		}
	}
}
