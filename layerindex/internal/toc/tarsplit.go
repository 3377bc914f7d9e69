package toc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
)

// maxSegment bounds a line of a tar-split: the headers before one file, in base64.
const maxSegment = 8 << 20

// The types of lines (github.com/vbatts/tar-split/tar/storage, Type).
const (
	lineFile    = 1
	lineSegment = 2
)

// A splitReader reads a tar-split: a tar without its contents, as a sequence of JSON
// texts. Each is a segment of the tar as it is, or stands for a file's content.
type splitReader struct {
	lex     lexer
	scan    *tarscan.Scanner
	segment []byte
	line    splitLine
}

// A splitLine is one JSON text, without the segment.
type splitLine struct {
	kind, size int64
	segment    bool // there is one
	seen       uint32
}

var lineNames = []string{"type", "size", "payload"}

// ReadTarSplit calls emit with the entries of a tar, which a tar-split gives without
// their contents: no entry has a Digest, and its Off is that in the tar. The entry and its slices
// are valid until emit returns. The error wraps layerindex.ErrIndex or
// layerindex.ErrLossy, or is that of emit or of src.
func ReadTarSplit(ctx context.Context, src io.Reader, budget *layerindex.Budget, emit func(*layerindex.Entry) error) error {
	dense := func(e *layerindex.Entry) error {
		if e.Sparse != nil {
			return fmt.Errorf("%w: %q is sparse in the tar", layerindex.ErrLossy, clip(e.Name))
		}
		return emit(e)
	}
	r := &splitReader{
		lex:  lexer{src: src, max: maxSegment},
		scan: tarscan.New(dense, &tarscan.Options{NoDigests: true, Budget: budget}),
	}
	defer r.scan.Release()
	for n := 0; ; n++ {
		if n%ctxSteps == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := r.lex.next(); err == io.EOF {
			return asSplitError(r.scan.Close())
		}
		err := r.readLine()
		if err == nil {
			err = r.use()
		}
		if err != nil {
			return asSplitError(err)
		}
	}
}

// asSplitError makes what is wrong with a text, or with the tar in it, an error of an
// index.
func asSplitError(err error) error {
	if errors.Is(err, layerindex.ErrTar) {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return asIndexError(err)
}

func (r *splitReader) readLine() error {
	r.line = splitLine{}
	if err := r.lex.take('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := r.lex.another(first, '}')
		if err == nil && more {
			err = r.member()
		}
		if err != nil || !more {
			return err
		}
	}
}

func (r *splitReader) member() error {
	key, err := r.lex.key()
	if err != nil {
		return err
	}
	n := slices.Index(lineNames, string(key))
	if err := once(&r.lex, &r.line.seen, n, key, lineNames); err != nil {
		return err
	}
	if n < 0 {
		return r.lex.skip(0)
	}
	if null, err := r.lex.null(); err != nil || null {
		return err
	}
	switch n {
	case 0:
		r.line.kind, err = r.lex.number()
	case 1:
		r.line.size, err = r.lex.number()
	default:
		// Of a file it is a checksum, of a segment the bytes.
		var b []byte
		if b, _, err = r.lex.text(); err == nil {
			r.line.segment = true
			r.segment = slices.Grow(r.segment[:0], strictBase64.DecodedLen(len(b)))
			var k int
			if k, err = strictBase64.Decode(r.segment[:cap(r.segment)], b); err != nil {
				return r.lex.refuse(err.Error())
			}
			r.segment = r.segment[:k]
		}
	}
	return err
}

// use hands on what a line stands for.
func (r *splitReader) use() error {
	content := r.scan.Content()
	switch l := &r.line; {
	case l.kind == lineSegment && l.segment && content == 0:
		_, err := r.scan.Write(r.segment)
		return err
	case l.kind == lineSegment && content == 0:
		return nil
	case l.kind == lineFile && l.size == content:
		return r.scan.Skip(content)
	case l.kind == lineFile:
		return r.lex.refuse(fmt.Sprintf("a file's content of %d bytes where its header says %d", l.size, content))
	case l.kind == lineSegment:
		return r.lex.refuse("a segment in the midst of a file's content")
	}
	return r.lex.refuse(fmt.Sprintf("line of type %d", r.line.kind))
}
