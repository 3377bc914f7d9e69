package reader

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// benchFile returns a tar with one file of 100 MB that shrinks to a third, like
// a program does.
func benchFile(b *testing.B) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	file := make([]byte, 0, 100<<20)
	for len(file) < 100e6 {
		if n := 4 + rng.IntN(12); len(file) > 1<<16 && rng.IntN(2) == 0 {
			at := len(file) - n - rng.IntN(30_000)
			file = append(file, file[at:at+n]...)
			continue
		}
		for range 1 + rng.IntN(5) {
			file = append(file, byte(rng.ExpFloat64()*20))
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "program", Mode: 0o755, Size: int64(len(file))})
	if err == nil {
		_, err = w.Write(file)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// A slowBlob is behind a line with a round trip and a bandwidth, and keeps what
// it has fetched, in chunks.
type slowBlob struct {
	samples.Blob
	trip  time.Duration
	speed float64 // bytes a second

	mu     sync.Mutex
	free   time.Time // when the line is
	chunks map[int64]chan struct{}
	bytes  int64
}

const slowChunk = 64 << 10

func (s *slowBlob) Prefetch(off, n int64) {
	for k := off / slowChunk; k*slowChunk < off+n; k++ {
		s.fetch(k)
	}
}

// fetch returns a channel that is closed when a chunk is there.
func (s *slowBlob) fetch(k int64) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.chunks[k]; c != nil {
		return c
	}
	c := make(chan struct{})
	s.chunks[k] = c
	s.bytes += slowChunk
	begin := time.Now().Add(s.trip)
	if s.free.After(begin) {
		begin = s.free
	}
	s.free = begin.Add(time.Duration(slowChunk / s.speed * float64(time.Second)))
	time.AfterFunc(time.Until(s.free), func() { close(c) })
	return c
}

func (s *slowBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	s.Prefetch(off, int64(len(p)))
	for k := off / slowChunk; k*slowChunk < off+int64(len(p)); k++ {
		<-s.fetch(k)
	}
	return s.Blob.ReadAt(ctx, p, off)
}

// BenchmarkReaderSequential reads a file of 100 MB in requests of 128 KiB: with
// its blob at hand, where the figure is how many times as fast that is as
// gzip -dc, and through a line of 100 Mbit/s with a round trip of 20 ms, where
// it is how many times as long it takes as the blob's bytes alone.
func BenchmarkReaderSequential(b *testing.B) {
	tarBytes := benchFile(b)
	blob := samples.Blob(samples.Gzip(b, tarBytes))
	x := mustBuild(b, blob, tarBytes, nil)
	peer := gzipTime(b, blob)
	for _, procs := range []int{1, 2} {
		b.Run(fmt.Sprintf("blob=memory/procs=%d", procs), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			b.SetBytes(int64(len(tarBytes)))
			for b.Loop() {
				benchSequential(b, x, blob)
			}
			b.ReportMetric(peer.Seconds()/(b.Elapsed().Seconds()/float64(b.N)), "gzip/ours")
		})
		b.Run(fmt.Sprintf("blob=line/procs=%d", procs), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			b.SetBytes(int64(len(tarBytes)))
			const speed = 100e6 / 8
			var fetched int64
			for b.Loop() {
				slow := &slowBlob{Blob: blob, trip: 20 * time.Millisecond, speed: speed, chunks: map[int64]chan struct{}{}}
				benchSequential(b, x, slow)
				fetched = slow.bytes
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/(float64(len(blob))/speed), "ours/line")
			b.ReportMetric(float64(fetched)/float64(len(blob)), "fetched/size")
		})
	}
}

// BenchmarkReaderLongSpan reads such a file that is one zstd frame, which is
// decoded into a file on disk.
func BenchmarkReaderLongSpan(b *testing.B) {
	tarBytes := benchFile(b)
	blob := samples.Blob(samples.ZstdFrames(b, tarBytes, len(tarBytes)))
	x := mustBuild(b, blob, tarBytes, nil)
	b.SetBytes(int64(len(tarBytes)))
	for b.Loop() {
		benchSequential(b, x, blob)
	}
}

func benchSequential(b *testing.B, x *layerindex.Index, blob Blob) {
	r := New(x, blob, &Options{Cache: NewSpanCache(64 << 20), NewTemp: inDir(b.TempDir())})
	defer r.Close()
	p := make([]byte, 128<<10)
	for off := int64(0); off < r.Size(); {
		n, err := r.ReadFileAt(context.Background(), p, off, r.Size())
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
		off += int64(n)
	}
}

// gzipTime returns the shortest of some runs of gzip -dc, 0 if there is none.
func gzipTime(b *testing.B, blob []byte) (best time.Duration) {
	path, err := exec.LookPath("gzip")
	if err != nil {
		b.Log("gzip is not installed")
		return 0
	}
	file := filepath.Join(b.TempDir(), "blob.gz")
	if err := os.WriteFile(file, blob, 0o600); err != nil {
		b.Fatal(err)
	}
	for range 3 {
		begun := time.Now()
		if err := exec.Command(path, "-dc", file).Run(); err != nil {
			b.Fatal(err)
		}
		if took := time.Since(begun); best == 0 || took < best {
			best = took
		}
	}
	return best
}
