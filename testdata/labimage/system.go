package labimage

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// A System is how big the image of a small system is.
type System struct {
	Small   int   // files of a few KiB
	Library int64 // bytes of each of ten files
	Big     int64 // bytes of one file
}

// Ordinary has about the proportions of an image with an interpreter in it.
var Ordinary = System{Small: 20_000, Library: 8 << 20, Big: 30_000_000}

// Write makes layout an OCI layout of an image with the files of a small system.
func (s System) Write(layout string) error {
	_, err := Write(layout, s.system, s.program)
	return err
}

// WriteNext makes layout an OCI layout of the image that Write makes with a layer more,
// which changes, adds and removes a few files.
func (s System) WriteNext(layout string) error {
	_, err := Write(layout, s.system, s.program, s.change)
	return err
}

func (s System) change(a *Archive) error {
	return errors.Join(
		a.File("usr/lib/os-release", "NAME=\"labimage\"\nID=labimage\nVERSION_ID=2\n"),
		a.Dir("opt/new"), a.File("opt/new/file", "new\n"),
		a.Whiteout("opt/000/file07"), a.Whiteout("usr/lib/lib3.so"),
	)
}

func (s System) system(a *Archive) error {
	words := newProse(1)
	for _, dir := range []string{"etc", "usr", "usr/lib", "usr/bin", "usr/share"} {
		if err := a.Dir(dir); err != nil {
			return err
		}
	}
	if err := a.File("usr/lib/os-release", "NAME=\"labimage\"\nID=labimage\n"); err != nil {
		return err
	}
	if err := a.Symlink("etc/os-release", "../usr/lib/os-release"); err != nil {
		return err
	}
	for i := range 10 {
		if err := a.Copy(fmt.Sprintf("usr/lib/lib%d.so", i), s.Library, words); err != nil {
			return err
		}
	}
	return smallFiles(a, "usr/share", s.Small/2, words)
}

func (s System) program(a *Archive) error {
	words := newProse(2)
	if err := a.Dir("opt"); err != nil {
		return err
	}
	if err := a.Copy("opt/program", s.Big, words); err != nil {
		return err
	}
	return smallFiles(a, "opt", s.Small-s.Small/2, words)
}

// smallFiles writes n files of up to 8 KiB, a hundred in each directory.
func smallFiles(a *Archive, dir string, n int, words *prose) error {
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
