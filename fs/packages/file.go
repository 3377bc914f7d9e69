package packages

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/fs"
)

// blockSize is how much of a file is read at once.
const blockSize = 256 << 10

// A file is an io.ReaderAt of a regular file of a tree. It is for one goroutine. Blocks
// that were read last are kept, as databases are read in small pieces.
type file struct {
	ctx    context.Context
	n      fs.Node
	size   int64
	blocks [8]struct {
		at   int64 // -1: none
		data []byte
	}
	next int
	err  error // the first of reading
}

// open returns the file of a node, which checkFile let pass.
func open(ctx context.Context, n fs.Node) (*file, error) {
	if err := checkFile(n); err != nil {
		return nil, err
	}
	f := &file{ctx: ctx, n: n, size: n.Attr().Size}
	for i := range f.blocks {
		f.blocks[i].at = -1
	}
	return f, nil
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= f.size {
			return done, io.EOF
		}
		data, err := f.block(at / blockSize)
		if err != nil {
			f.err = errors.Join(f.err, err)
			return done, err
		}
		done += copy(p[done:], data[at%blockSize:])
	}
	return done, nil
}

func (f *file) block(i int64) ([]byte, error) {
	for _, b := range f.blocks {
		if b.at == i {
			return b.data, nil
		}
	}
	data := make([]byte, min(blockSize, f.size-i*blockSize))
	if k, err := f.n.ReadAt(f.ctx, data, i*blockSize); k < len(data) {
		return nil, err
	}
	f.blocks[f.next] = struct {
		at   int64
		data []byte
	}{i, data}
	f.next = (f.next + 1) % len(f.blocks)
	return data, nil
}

// maxLine is how long a line of a database is that is looked at. Longer ones are nothing
// that is wanted.
const maxLine = 64 << 10

// eachLine calls do with each line of a file, without its end and with its number, from
// 1. The line is valid until do returns; of one that is longer than maxLine it is the
// beginning.
func eachLine(ctx context.Context, n fs.Node, do func(number int, line []byte) error) error {
	f, err := open(ctx, n)
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, f.size), maxLine)
	for number := 1; ; number++ {
		line, more, err := r.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(number, line); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		for more && err == nil { // the rest of a long line
			_, more, err = r.ReadLine()
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
}
