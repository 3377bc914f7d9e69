package labimage

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// An Input is a gzip layer that decoders and indexes are measured with.
type Input struct {
	Name, What string
	Path       string // of the blob
	Digest     digest.Digest
	Size       int64
	DiffID     digest.Digest
	// Image is the image that has the layer, and Number which one it is, from 0. ImageName
	// is the image's name in the lab.
	Image     *Image
	ImageName string
	Number    int
	// Made says that it has no real files, Poor that it hardly compresses.
	Made, Poor bool
}

// bigLayer is how many bytes a layer of the lab's node image must have to be an
// input: its first is much like base, and most are tiny.
const bigLayer = 60 << 20

// Inputs returns the layers to measure: the one of base and the big ones of
// node, if corpora is the directory of the lab's images and not empty; and
// those that it makes below dir, go, poor and high. If only is not empty, it
// is the name of the one input that is wanted.
func Inputs(dir, corpora, only string) ([]Input, error) {
	var all []Input
	if corpora != "" {
		var err error
		if all, err = labInputs(corpora); err != nil {
			return nil, err
		}
	}
	made := []struct {
		in   Input
		fill Layer
	}{
		{Input{Name: "go", What: "Go's own tree"}, GoRelease},
		{Input{Name: "poor", What: "measurements, and as if compressed before", Made: true, Poor: true}, Poor},
		{Input{Name: "high", What: "logs, JSON and zeros", Made: true}, High},
	}
	for _, m := range made {
		if only != "" && only != m.in.Name {
			continue
		}
		img, err := WriteAs(filepath.Join(dir, m.in.Name), UsualGzip(), m.fill)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", m.in.Name, err)
		}
		m.in.of(img, 0)
		all = append(all, m.in)
	}
	if only != "" {
		all = slices.DeleteFunc(all, func(in Input) bool { return in.Name != only })
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no input is called %q", only)
	}
	return all, nil
}

// labInputs returns the inputs that are layers of the lab's images.
func labInputs(corpora string) ([]Input, error) {
	base, err := Open(filepath.Join(corpora, "built", "base"))
	if err != nil {
		return nil, err
	}
	node, err := Open(filepath.Join(corpora, "built", "node"))
	if err != nil {
		return nil, err
	}
	first := Input{Name: "base", ImageName: "base", What: "the lab's base image"}
	first.of(base, 0)
	all := []Input{first}
	for i, l := range node.Manifest.Layers {
		if l.Size >= bigLayer {
			in := Input{Name: fmt.Sprintf("node%d", i+1), ImageName: "node", What: fmt.Sprintf("layer %d of the lab's node image", i+1)}
			in.of(node, i)
			all = append(all, in)
		}
	}
	return all, nil
}

// of makes an input the layer i of an image.
func (in *Input) of(img *Image, i int) {
	l := img.Manifest.Layers[i]
	in.Path, in.Digest, in.Size, in.DiffID = img.Blob(l.Digest), l.Digest, l.Size, img.DiffIDs[i]
	in.Image, in.Number = img, i
}

// Poor writes 72 MiB that hardly compress: measurements, and random data as of
// compressed files.
func Poor(a *Archive) error {
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
		if err := a.File(name, string(content)); err != nil {
			return err
		}
	}
	return nil
}

// High writes 144 MiB that compress very well.
func High(a *Archive) error {
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
		if err := a.File(name, string(content)); err != nil {
			return err
		}
	}
	return nil
}

// Many returns a layer of n entries of packages of 20 files in 4 directories,
// small or empty, as package managers leave them: another tree for each seed.
func Many(seed, n int) Layer {
	return func(a *Archive) error {
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
			if err := a.WriteHeader(h); err != nil {
				return err
			}
			if _, err := a.Write(content[:h.Size]); err != nil {
				return err
			}
		}
		return nil
	}
}

// GoRelease writes the Go release in use (go env GOROOT).
func GoRelease(a *Archive) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	root, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	return a.AddFS(os.DirFS(root))
}
