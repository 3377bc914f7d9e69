// Package tarscan reads the entries of a layer's tar as it streams by, and says
// where in it their content lies.
package tarscan

import (
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/nestedsum"
	"github.com/imgfs/imgfs/layerindex/internal/stringpool"
)

// Options are the choices of New. Nil and the zero value mean the defaults.
type Options struct {
	// Sums, if not nil, hashes the tar, and the content of each file as a part
	// of it, in place of a hash of the Scanner's own.
	Sums *nestedsum.Hash
	// NoDigests leaves out Entry.Digest.
	NoDigests bool
	// Budget, if not nil, bounds the sparse map that the Scanner keeps.
	Budget *layerindex.Budget
	// MaxSize bounds the bytes of the tar: an entry that says that it goes
	// beyond is refused before its content comes. 0 means no bound.
	MaxSize int64
}

// A Scanner reads the tar that is written to it, in pieces of any size, and
// hands on its entries, each once the last byte of its content has passed. It
// works on the raw blocks: the offsets and sparse maps that it reports are
// those of the tar, which archive/tar does not tell.
//
// It reads the formats v7, ustar, star, GNU and pax with the sparse files of
// GNU's four formats. Where readers differ it follows archive/tar, which the
// container runtimes unpack with. As these do, it refuses entries that no
// layer has: GNU's dump directories (typeflag D), continued files (M), volume
// labels (V) and old long names (N), Solaris' ACLs (A) and extended headers (X),
// star's inodes (I), and typeflags that nobody defined, as nothing says what
// their body is. It differs from archive/tar in that
//
//   - a file whose name ends in a slash is a directory if it has no content,
//     also with the typeflags of plain and contiguous files, as for GNU tar;
//   - global headers are checked and otherwise ignored, never handed on;
//   - an xattr may have an empty value;
//   - sparse files whose map does not fit are refused, whether their content is
//     read or not;
//   - owners that are not of 32 bits, with or without a sign, device numbers
//     outside uint32, names of paths over 4,096 bytes or with a part over 255, and
//     targets of symlinks over 4,095, none of which a Linux file system can hold,
//     are refused.
//
// A Scanner is for one goroutine. Whatever the tar claims, it keeps no more of
// it than two extended headers and two long names of at most 1 MiB each and a
// sparse map, which has at most 1 MiB in the tar.
type Scanner struct {
	emit func(*layerindex.Entry) error
	err  error // of Write, to stay

	state scanState
	off   int64 // of the next byte of the tar
	at    int64 // of the header block in hand
	label string
	left  int64    // bytes to come of what state is about
	pad   int64    // bytes to come after that, up to the end of a block
	part  rawBlock // the first have bytes of a block
	have  int

	meta               *[]byte // where the body of a meta entry goes
	pax                paxHeader
	global             paxHeader
	hasPax             bool
	longName, longLink []byte // GNU's, for the next entry

	entry   layerindex.Entry
	sparse  sparseMap
	bodyMap bodyMap
	text    stringpool.Pool
	joined  []byte

	digests bool
	maxSize int64           // of the tar; 0: no bound
	sums    *nestedsum.Hash // of the tar and of the content so far
}

type scanState byte

const (
	atHeader    scanState = iota
	afterZero             // one block of zeros, which another must follow
	inMeta                // body of an extended header or long name
	inExtension           // more of an old GNU sparse map
	inMap                 // sparse map at the start of the body
	inContent
	inPadding
	atEnd // nothing that follows is looked at
	isClosed
)

var _ io.WriteCloser = (*Scanner)(nil)

// New returns a Scanner that calls emit with each entry, in the order
// of the tar. The Entry and its slices are valid until emit returns, its
// strings for good; xattrs are sorted by name. An error of emit ends the scan.
func New(emit func(*layerindex.Entry) error, opts *Options) *Scanner {
	if opts == nil {
		opts = &Options{}
	}
	s := &Scanner{emit: emit, digests: !opts.NoDigests, sums: opts.Sums, sparse: sparseMap{budget: opts.Budget}, maxSize: opts.MaxSize}
	if s.sums == nil {
		s.sums = nestedsum.New()
	}
	return s
}

// Write takes the next piece of the tar and keeps no reference to it. The error is a
// *layerindex.FormatError, wraps layerindex.ErrMetadata, or is the error of emit.
// After an error Write returns it again.
func (s *Scanner) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) && s.err == nil {
		var used int
		used, s.err = s.step(p[n:])
		n += used
	}
	return n, s.err
}

// Content returns how many bytes of a file's content are to be written next, 0 if
// something else comes next.
func (s *Scanner) Content() int64 {
	if s.state != inContent || s.err != nil {
		return 0
	}
	return s.left
}

// Skip stands for a Write of the next n bytes of a file's content, at most Content,
// which are not at hand. It is for a Scanner with NoDigests whose Sums nobody wants.
// The error is as that of Write.
func (s *Scanner) Skip(n int64) error {
	switch {
	case s.err != nil || n == 0:
		return s.err
	case n < 0 || n > s.Content():
		return s.refuse(fmt.Errorf("%d bytes of a file's content where %d come", n, s.Content()))
	}
	s.off += n
	if s.left -= n; s.left == 0 {
		s.err = s.bodyDone()
	}
	return s.err
}

// Close tells the Scanner that the tar has ended. It fails if Write has failed, or if
// the last entry is not whole. The blocks of zeros at the end and the padding of the
// last content may be missing, as for archive/tar.
func (s *Scanner) Close() error {
	if s.state == isClosed || s.err != nil {
		return s.err
	}
	whole := s.have == 0
	switch s.state {
	case inMeta, inExtension, inMap, inContent:
		whole = false
	}
	if !whole {
		err := io.ErrUnexpectedEOF
		if s.off < blockSize {
			err = beginsLike(s.part[:s.have], err)
		}
		s.err = &layerindex.FormatError{Entry: s.label, Off: s.off, Err: fmt.Errorf("%w: %w", layerindex.ErrTar, err)}
		return s.err
	}
	s.state = isClosed
	return nil
}

// step takes bytes off p, at least one, and returns how many.
func (s *Scanner) step(p []byte) (int, error) {
	switch s.state {
	case atHeader, afterZero, inExtension, inMap:
		b, n := s.gather(p)
		s.off += int64(n)
		s.sums.Write(p[:n])
		if b == nil {
			return n, nil
		}
		return n, s.takeBlock(b)
	case inMeta, inContent, inPadding:
		p = p[:min(int64(len(p)), s.left)]
		s.off += int64(len(p))
		s.left -= int64(len(p))
		return len(p), s.takeBytes(p)
	case isClosed:
		return 0, errors.New("write after the tar was closed")
	}
	s.off += int64(len(p))
	s.sums.Write(p)
	return len(p), nil
}

// gather returns the next block, once all of it is there, and how much of p it
// took. The block is valid until p changes or gather is called again.
func (s *Scanner) gather(p []byte) (*rawBlock, int) {
	if s.have == 0 && len(p) >= blockSize {
		return (*rawBlock)(p), blockSize
	}
	n := copy(s.part[s.have:], p)
	s.have += n
	if s.have < blockSize {
		return nil, n
	}
	s.have = 0
	return &s.part, n
}

func (s *Scanner) takeBlock(b *rawBlock) error {
	switch s.state {
	case inExtension:
		return s.takeExtension(b)
	case inMap:
		return s.takeMapBlock(b)
	}
	s.at, s.label = s.off-blockSize, ""
	switch zero := b.isZero(); {
	case zero && s.state == afterZero:
		s.state = atEnd
		return nil
	case zero:
		s.state = afterZero
		return nil
	case s.state == afterZero:
		if b.checksumHolds() {
			s.label = s.text.Own(clip(cString(b[0:100])))
		}
		return s.refuse(errors.New("data after a lone block of zeros"))
	}
	return s.takeHeader(b)
}

// takeBytes takes the next of the s.left bytes that the state is about.
func (s *Scanner) takeBytes(p []byte) error {
	if s.state == inMeta {
		*s.meta = append(*s.meta, p...)
	}
	if s.state == inContent && s.digests {
		s.sums.WritePart(p)
	} else {
		s.sums.Write(p)
	}
	if s.left > 0 {
		return nil
	}
	return s.bodyDone()
}

// bodyDone is called after the last byte of a body or its padding.
func (s *Scanner) bodyDone() error {
	state := s.state
	s.state, s.left, s.pad = atHeader, s.pad, 0
	if s.left > 0 {
		s.state = inPadding
	}
	switch state {
	case inMeta:
		return s.metaDone()
	case inContent:
		return s.finish()
	}
	return nil
}

// begin starts a state that is about n bytes and the padding after them.
func (s *Scanner) begin(state scanState, n int64) error {
	if n < 0 || n > 1<<63-1-blockSize-s.off {
		return s.refuse(fmt.Errorf("size %d is out of range", n))
	}
	if s.maxSize > 0 && n > s.maxSize-s.off {
		return &layerindex.FormatError{Entry: s.label, Off: s.at, Err: fmt.Errorf("%w: unpacked the layer has more than %d bytes", layerindex.ErrTooBig, s.maxSize)}
	}
	s.state, s.left, s.pad = state, n, -n&(blockSize-1)
	if state == inContent && s.digests {
		s.sums.Begin()
	}
	if n == 0 {
		return s.bodyDone()
	}
	return nil
}

// refuse blames the header block in hand.
func (s *Scanner) refuse(err error) error { return s.refuseAt(s.at, err) }

func (s *Scanner) refuseAt(off int64, err error) error {
	if errors.Is(err, layerindex.ErrMetadata) {
		return fmt.Errorf("entry %q: %w", clip([]byte(s.label)), err) // the tar is right
	}
	return &layerindex.FormatError{Entry: s.label, Off: off, Err: fmt.Errorf("%w: %w", layerindex.ErrTar, err)}
}

// Release gives the bytes back that the Scanner has counted in its budget. Nothing may
// be written to it any more.
func (s *Scanner) Release() {
	s.sparse.budget.Release(s.sparse.held)
	s.sparse.held, s.sparse.extents = 0, nil
}

// finish hands on the entry, whose content has passed.
func (s *Scanner) finish() error {
	e := &s.entry
	if s.digests && e.Type == layerindex.TypeReg && e.Sparse == nil {
		e.Digest, e.HasDigest = s.sums.SumPart(), true
	}
	s.label = ""
	return s.emit(e)
}
