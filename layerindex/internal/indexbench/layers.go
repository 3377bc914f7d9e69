package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
)

// A compressor makes a gzip file.
type compressor func(w io.Writer) (io.WriteCloser, error)

// usualGzip compresses as most layers are: by zlib's code at level 6, if there
// is the program gzip, and else by Go code at that level.
func usualGzip(w io.Writer) (io.WriteCloser, error) {
	path, err := exec.LookPath("gzip")
	if err != nil {
		return kgzip.NewWriterLevel(w, 6)
	}
	cmd := exec.Command(path, "-6n")
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &runningProgram{in, cmd}, cmd.Start()
}

// fastGzip compresses what nobody measures.
func fastGzip(w io.Writer) (io.WriteCloser, error) {
	return kgzip.NewWriterLevel(w, kgzip.BestSpeed)
}

// A runningProgram is a program's standard input; Close waits for its end.
type runningProgram struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func (p *runningProgram) Close() error {
	return errors.Join(p.WriteCloser.Close(), p.cmd.Wait())
}

// counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// writeGzip makes the gzip file at path of what fill writes.
func writeGzip(path string, compress compressor, fill func(io.Writer) error) (digest.Digest, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // again after an error
	h := sha256.New()
	z, err := compress(io.MultiWriter(f, h))
	if err != nil {
		return "", err
	}
	if err := errors.Join(fill(z), z.Close()); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), f.Close()
}

// writeLayer makes a layer at path of the tar that fill writes, and returns
// the length of the tar too.
func writeLayer(path string, compress compressor, fill func(*tar.Writer) error) (layerFile, int64, error) {
	diffID, size := sha256.New(), new(counter)
	d, err := writeGzip(path, compress, func(z io.Writer) error {
		buf := bufio.NewWriterSize(io.MultiWriter(z, diffID, size), 256<<10)
		w := tar.NewWriter(buf)
		return errors.Join(fill(w), w.Close(), buf.Flush())
	})
	if err != nil {
		return layerFile{}, 0, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return layerFile{}, 0, err
	}
	return layerFile{path, d, st.Size(), digest.NewDigest(digest.SHA256, diffID)}, int64(*size), nil
}

// epoch is the time of made files.
var epoch = time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)

func addFile(w *tar.Writer, name string, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// poorFiles writes 72 MiB that hardly compress: measurements, and what looks as
// if it had been compressed before.
func poorFiles(w *tar.Writer) error {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 72 {
		content := make([]byte, 0, 1<<20)
		name := fmt.Sprintf("data/images/%03d.png", i)
		if i%3 == 0 {
			for len(content) < 1<<20 {
				content = binary.LittleEndian.AppendUint64(content, rng.Uint64())
			}
		} else {
			name = fmt.Sprintf("data/series/%03d.f32", i)
			for x := 0.0; len(content) < 1<<20; x += rng.NormFloat64() {
				content = binary.LittleEndian.AppendUint32(content, math.Float32bits(float32(x)))
			}
		}
		if err := addFile(w, name, content); err != nil {
			return err
		}
	}
	return nil
}

// highFiles writes 144 MiB that compress very well.
func highFiles(w *tar.Writer) error {
	rng := rand.New(rand.NewPCG(2, 2))
	for i := range 36 {
		content := make([]byte, 0, 5<<20)
		name := fmt.Sprintf("var/lib/db/%03d.empty", i)
		switch i % 3 {
		case 0:
			content = content[:4<<20]
		case 1:
			name = fmt.Sprintf("var/log/access.%03d", i)
			for n := 0; len(content) < 4<<20; n++ {
				content = fmt.Appendf(content, "10.0.%d.%d - - [01/May/2024:10:%02d:%02d +0000] \"GET /api/v1/items/%d HTTP/1.1\" 200 %d \"-\" \"curl/8.5.0\"\n",
					rng.IntN(4), rng.IntN(256), n/6000%60, n/100%60, rng.IntN(1000), 100+rng.IntN(50))
			}
		default:
			name = fmt.Sprintf("srv/records/%03d.json", i)
			for n := 0; len(content) < 4<<20; n++ {
				content = fmt.Appendf(content, `{"time":"2024-05-01T10:%02d:%02d.%03dZ","level":"info","msg":"request served","status":200,"id":%d,"tags":["a","b"]}`+"\n",
					n/60000%60, n/1000%60, n%1000, rng.IntN(50))
			}
		}
		if err := addFile(w, name, content); err != nil {
			return err
		}
	}
	return nil
}

// manyFiles writes n entries of packages of 20 files in 4 directories, small or
// empty, as package managers leave them: another tree for each seed.
func manyFiles(w *tar.Writer, seed, n int) error {
	rng := rand.New(rand.NewPCG(3, uint64(seed)))
	content := make([]byte, 1024)
	for i := range n {
		dir := fmt.Sprintf("usr/lib/node_modules/scope%02d/package-%05d", seed, i/24) + [...]string{"/", "/dist/", "/dist/esm/", "/types/"}[i/6%4]
		h := &tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch.Add(time.Duration(rng.IntN(1e6)) * time.Second)}
		if i%6 != 0 {
			h.Typeflag, h.Mode = tar.TypeReg, 0o644
			h.Name += fmt.Sprintf("module-%d%05x.js", i%6, rng.IntN(1<<20))
			h.Size = max(0, int64(rng.IntN(2*len(content))-len(content)))
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(content[:h.Size]); err != nil {
			return err
		}
	}
	return nil
}
