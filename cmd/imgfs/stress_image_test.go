package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"sync/atomic"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// A stressFile is a regular file of which every byte is known.
type stressFile struct {
	Name   string
	ID     uint64 // what its bytes are made from
	Size   int64
	SHA256 string
}

// stressBlock is how many bytes are made at a time.
const stressBlock = 4096

// block makes the n'th block of a file, all of it also where the file ends
// within. Two in three are noise, the others compress well.
func (f *stressFile) block(n int64, buf *[stressBlock]byte) {
	rnd := rand.NewPCG(f.ID, uint64(n))
	mask := ^uint64(0)
	if (f.ID+uint64(n))%3 == 0 {
		mask = 0x0103010301030103
	}
	for i := 0; i < stressBlock; i += 8 {
		binary.LittleEndian.PutUint64(buf[i:], rnd.Uint64()&mask)
	}
}

// A stressContent reads what a file has to have.
type stressContent struct {
	f     *stressFile
	off   int64
	block [stressBlock]byte
}

// Read implements io.Reader.
func (c *stressContent) Read(p []byte) (int, error) {
	if c.off >= c.f.Size {
		return 0, io.EOF
	}
	c.f.block(c.off/stressBlock, &c.block)
	from := c.off % stressBlock
	n := copy(p, c.block[from:min(stressBlock, from+c.f.Size-c.off)])
	c.off += int64(n)
	return n, nil
}

// compared counts the bytes that this process has compared.
var compared atomic.Int64

// check compares what was read from a place of a file.
func (f *stressFile) check(p []byte, off int64) error {
	if off+int64(len(p)) > f.Size {
		return fmt.Errorf("%s: %d bytes from %d on, but it has %d", f.Name, len(p), off, f.Size)
	}
	compared.Add(int64(len(p)))
	var want [stressBlock]byte
	for len(p) > 0 {
		f.block(off/stressBlock, &want)
		w := want[off%stressBlock:]
		n := min(len(w), len(p))
		for i := range n {
			if p[i] != w[i] {
				return fmt.Errorf("%s: wrong byte at %d: got %#x, want %#x", f.Name, off+int64(i), p[i], w[i])
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// stressImage makes files of all sizes in layers, some of which replace those
// of layers below. Images whose first differs enough have nothing in common.
func stressImage(big bool, first uint64) ([]stressFile, []labimage.Layer) {
	sizes := []int64{0, 1, 4095, 4096, 4097, 65535, 65537, 128<<10 - 1, 1<<20 + 1}
	small, largest := 100, int64(8<<20)
	if big {
		sizes = append(sizes, 3<<20, 5<<20+4095, 20<<20)
		small, largest = 2000, 200<<20
	}
	var all []stressFile
	var layers []labimage.Layer
	id := first
	add := func(own []stressFile) {
		layers = append(layers, stressLayer(own))
		all = append(all, own...)
	}
	file := func(dir string, n int, size int64) stressFile {
		id++
		return stressFile{Name: fmt.Sprintf("%s/f%d", dir, n), ID: id, Size: size}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for l := range 3 {
		var own []stressFile
		for n, size := range sizes {
			own = append(own, file(fmt.Sprintf("layer%d", l), n, size))
		}
		for n := range small {
			own = append(own, file(fmt.Sprintf("small%d", l), n, rnd.Int64N(16<<10)))
		}
		add(own)
	}
	// The whole of the base is hidden by files of the same names.
	var own []stressFile
	for n, size := range sizes {
		own = append(own, file("layer0", n, size/2+1))
	}
	own = append(own, file("big", 0, largest))
	layers = append(layers, stressLayer(own))
	return append(all[len(sizes):], own...), layers
}

// stressLayer is a layer of files, and notes their digests when it is written.
func stressLayer(files []stressFile) labimage.Layer {
	for i := range files {
		h := sha256.New()
		_, _ = io.Copy(h, &stressContent{f: &files[i]}) // neither fails
		files[i].SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	return func(a *labimage.Archive) error {
		var errs []error
		dir := ""
		for i := range files {
			f := &files[i]
			if d := path.Dir(f.Name); d != dir {
				dir = d
				errs = append(errs, a.Dir(d))
			}
			errs = append(errs, a.Copy(f.Name, f.Size, &stressContent{f: f}))
		}
		return errors.Join(errs...)
	}
}
