package network

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// An image is one in the registry.
type image struct {
	*labimage.Image
	name string // with its tag
	what string // for the report
}

// openImage opens a layout whose image is to have a name.
func openImage(name, what, layout string) (*image, error) {
	img, err := labimage.Open(layout)
	return &image{img, name, what}, err
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
	packed, err := img.Repack(filepath.Join(b.dir, "zstd"), labimage.WideZstd(b.ctx))
	return &image{packed, "made/zstd:latest", img.what + ", with zstd layers"}, err
}
