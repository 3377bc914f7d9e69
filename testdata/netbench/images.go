package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image is an OCI layout of one image.
type image struct {
	name     string // in the registry, with its tag
	what     string // for the report
	layout   string
	manifest ocispec.Manifest
}

// size is what the layers take, compressed.
func (img *image) size() int64 {
	var n int64
	for _, l := range img.manifest.Layers {
		n += l.Size
	}
	return n
}

func blobPath(layout string, d digest.Digest) string {
	return filepath.Join(layout, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// openImage reads the manifest of a layout.
func openImage(name, what, layout string) (*image, error) {
	img := &image{name: name, what: what, layout: layout}
	var index ocispec.Index
	if err := readJSON(filepath.Join(layout, ocispec.ImageIndexFile), &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s has %d images, want one", layout, len(index.Manifests))
	}
	return img, readJSON(blobPath(layout, index.Manifests[0].Digest), &img.manifest)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// mainImage is the lab's node image, or one that is made.
func (b *bench) mainImage() (*image, error) {
	if b.corpora != "" {
		return openImage("lab/node:latest", "node of the lab", filepath.Join(b.corpora, "built", "node"))
	}
	layout := filepath.Join(b.dir, "made")
	if err := b.size.write(layout); err != nil {
		return nil, err
	}
	return openImage("made/image:latest", "made by testdata/labimage", layout)
}

// An imageSize is how big an image is that is made.
type imageSize struct {
	small   int   // files of a few KiB
	library int64 // bytes of each of ten files
	big     int64 // bytes of one file
}

// ordinary has about the proportions of an image with an interpreter in it.
var ordinary = imageSize{small: 20_000, library: 8 << 20, big: 30_000_000}

// write makes a layout of an image with the files of a small system.
func (s imageSize) write(layout string) error {
	system := func(a *labimage.Archive) error {
		words := newProse(1)
		for _, dir := range []string{"etc", "usr", "usr/lib", "usr/bin", "usr/share"} {
			if err := a.Dir(dir); err != nil {
				return err
			}
		}
		if err := a.File("usr/lib/os-release", "NAME=\"netbench\"\nID=netbench\n"); err != nil {
			return err
		}
		if err := a.Symlink("etc/os-release", "../usr/lib/os-release"); err != nil {
			return err
		}
		for i := range 10 {
			if err := a.Copy(fmt.Sprintf("usr/lib/lib%d.so", i), s.library, words); err != nil {
				return err
			}
		}
		return smallFiles(a, "usr/share", s.small/2, words)
	}
	program := func(a *labimage.Archive) error {
		words := newProse(2)
		if err := a.Dir("opt"); err != nil {
			return err
		}
		if err := a.Copy("opt/program", s.big, words); err != nil {
			return err
		}
		return smallFiles(a, "opt", s.small-s.small/2, words)
	}
	_, err := labimage.Write(layout, system, program)
	return err
}

// smallFiles writes n files of up to 8 KiB, a hundred in each directory.
func smallFiles(a *labimage.Archive, dir string, n int, words *prose) error {
	for i := range n {
		sub := fmt.Sprintf("%s/%03d", dir, i/100)
		if i%100 == 0 {
			if err := a.Dir(sub); err != nil {
				return err
			}
		}
		if err := a.Copy(fmt.Sprintf("%s/file%02d", sub, i%100), 100+words.rand.Int64N(8000), words); err != nil {
			return err
		}
	}
	return nil
}

// A prose is text without an end, of words that repeat as words do.
type prose struct {
	rand  *rand.Rand
	words []string
	rest  string
}

func newProse(seed uint64) *prose {
	p := &prose{rand: rand.New(rand.NewPCG(seed, 0))}
	for range 4096 {
		word := make([]byte, 3+p.rand.IntN(8))
		for i := range word {
			word[i] = 'a' + byte(p.rand.IntN(26))
		}
		p.words = append(p.words, string(word)+" ")
	}
	return p
}

// Read implements io.Reader.
func (p *prose) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if p.rest == "" {
			p.rest = p.words[p.rand.IntN(1+p.rand.IntN(len(p.words)))]
		}
		k := copy(b[n:], p.rest)
		p.rest = p.rest[k:]
		n += k
	}
	return n, nil
}

// withZstd makes a layout of the same image with layers that zstd has packed
// with a window of 128 MiB.
func (b *bench) withZstd(img *image) (*image, error) {
	packed := &image{name: "made/zstd:latest", what: img.what + ", with zstd layers", layout: filepath.Join(b.dir, "zstd"), manifest: img.manifest}
	packed.manifest.Layers = nil
	if err := os.MkdirAll(filepath.Dir(blobPath(packed.layout, "sha256:x")), 0o777); err != nil {
		return nil, err
	}
	for _, l := range img.manifest.Layers {
		z, err := b.zstdLayer(packed.layout, blobPath(img.layout, l.Digest))
		if err != nil {
			return nil, err
		}
		packed.manifest.Layers = append(packed.manifest.Layers, z)
	}
	config, err := os.ReadFile(blobPath(img.layout, img.manifest.Config.Digest))
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(packed.manifest)
	if err != nil {
		return nil, err
	}
	top := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Annotations: map[string]string{ocispec.AnnotationRefName: labimage.Tag}}
	index, err := json.Marshal(ocispec.Index{Versioned: packed.manifest.Versioned, Manifests: []ocispec.Descriptor{top}})
	if err != nil {
		return nil, err
	}
	for path, content := range map[string][]byte{
		blobPath(packed.layout, top.Digest):                    manifest,
		blobPath(packed.layout, packed.manifest.Config.Digest): config,
		filepath.Join(packed.layout, ocispec.ImageIndexFile):   index,
		filepath.Join(packed.layout, ocispec.ImageLayoutFile):  []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`),
	} {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			return nil, err
		}
	}
	return packed, nil
}

// zstdLayer packs one gzip layer anew into a layout. The length is not told
// to zstd, so that its frame has the whole window.
func (b *bench) zstdLayer(layout, gzipped string) (ocispec.Descriptor, error) {
	f, err := os.Open(gzipped)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	path := filepath.Join(layout, "packing")
	out, err := os.Create(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer out.Close()
	sum := digest.SHA256.Digester()
	cmd := b.command(b.ctx, "zstd", "-q", "-c", "-3", "--long=27")
	cmd.Stdin, cmd.Stdout = z, io.MultiWriter(out, sum.Hash())
	if err := cmd.Run(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%q: %w", cmd.Args, err)
	}
	st, err := out.Stat()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: sum.Digest(), Size: st.Size()},
		os.Rename(path, blobPath(layout, sum.Digest()))
}
