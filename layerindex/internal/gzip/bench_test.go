package gzip

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
)

// An engine decodes all of a file and drops the output.
type engine struct {
	name string
	run  func(file []byte) (int64, error)
}

var engines = []engine{
	{"ours", func(file []byte) (int64, error) {
		x := NewIndexer(bytes.NewReader(file), nil)
		var n int64
		for {
			p, err := x.Next()
			n += int64(len(p))
			if err == io.EOF {
				return n, nil
			}
			if err != nil {
				return n, err
			}
			x.Checkpoints()
		}
	}},
	{"klauspost", func(file []byte) (int64, error) {
		r, err := kgzip.NewReader(bytes.NewReader(file))
		if err != nil {
			return 0, err
		}
		return io.Copy(io.Discard, r)
	}},
	{"std", func(file []byte) (int64, error) {
		r, err := stdgzip.NewReader(bytes.NewReader(file))
		if err != nil {
			return 0, err
		}
		return io.Copy(io.Discard, r)
	}},
}

// benchInputs are what the benchmarks decode: Go's own sources as a tar, data
// that hardly compresses, and data that compresses very well.
var benchInputs = []struct {
	name string
	make func(b *testing.B) []byte
}{
	{"go", goTree},
	{"poor", func(b *testing.B) []byte {
		rng := rand.New(rand.NewPCG(1, 1))
		p := make([]byte, 0, 33<<20)
		for x := 0.0; len(p) < 24<<20; {
			x += rng.NormFloat64()
			p = binary.LittleEndian.AppendUint32(p, math.Float32bits(float32(x)))
		}
		for range 1 << 20 { // as something compressed before
			p = binary.LittleEndian.AppendUint64(p, rng.Uint64())
		}
		return p
	}},
	{"high", func(b *testing.B) []byte {
		rng := rand.New(rand.NewPCG(1, 1))
		var p []byte
		for i := 0; len(p) < 48<<20; i++ {
			p = fmt.Appendf(p, `{"time":"2024-05-01T10:%02d:%02d.%03dZ","level":"info","msg":"request served","status":200,"id":%d}`+"\n",
				i/60000%60, i/1000%60, i%1000, rng.IntN(50))
		}
		return append(p, make([]byte, 16<<20)...)
	}},
}

// goTree returns the first 64 MiB of a tar of Go's sources.
func goTree(b *testing.B) []byte {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	if err != nil || root == "src" {
		b.Skip("no Go sources: ", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()[:min(buf.Len(), 64<<20)]
}

// cpuTime returns the CPU time that the process has used.
func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func runEngine(b *testing.B, e engine, file []byte, want int) {
	if n, err := e.run(file); err != nil || n != int64(want) {
		b.Fatalf("%s: got %d bytes, want %d, %v", e.name, n, want, err)
	}
}

// BenchmarkInflate decodes whole files, with checkpoints in our case.
func BenchmarkInflate(b *testing.B) {
	for _, in := range benchInputs {
		want := in.make(b)
		file := zip(b, want)
		for _, e := range engines {
			b.Run("engine="+e.name+"/input="+in.name, func(b *testing.B) {
				b.SetBytes(int64(len(want)))
				start := cpuTime(b)
				for b.Loop() {
					runEngine(b, e, file, len(want))
				}
				mb := float64(len(want)) * float64(b.N) / 1e6
				b.ReportMetric(mb/(cpuTime(b)-start).Seconds(), "MB/cpu-s")
			})
		}
	}
}

// BenchmarkRatio runs the engines in turns, so that what else the machine does
// hits all alike, and reports how many times the CPU time of ours the others
// need.
func BenchmarkRatio(b *testing.B) {
	for _, in := range benchInputs {
		want := in.make(b)
		file := zip(b, want)
		b.Run("input="+in.name, func(b *testing.B) {
			used := make([]time.Duration, len(engines))
			for b.Loop() {
				for i, e := range engines {
					start := cpuTime(b)
					runEngine(b, e, file, len(want))
					used[i] += cpuTime(b) - start
				}
			}
			for i, e := range engines[1:] {
				b.ReportMetric(float64(used[i+1])/float64(used[0]), e.name+"/ours")
			}
			b.ReportMetric(float64(len(want))*float64(b.N)/1e6/used[0].Seconds(), "MB/cpu-s")
		})
	}
}

// BenchmarkResume is what a cold read costs: a new decoder and its first piece.
func BenchmarkResume(b *testing.B) {
	file := zip(b, text(8<<20, 1))
	x := NewIndexer(bytes.NewReader(file), nil)
	_, cps, err := decodeAll(x)
	if err != nil || len(cps) < 3 {
		b.Fatalf("%d checkpoints, %v", len(cps), err)
	}
	for b.Loop() {
		d, err := Resume(bytes.NewReader(file[cps[2].In:]), cps[2])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
