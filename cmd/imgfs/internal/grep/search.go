package grep

import (
	"bytes"
	"context"
	"io"

	"github.com/imgfs/imgfs/fs"
)

// blockSize is how much of a file is read at once, and maxLine how long a line may be: a
// longer one is taken as several. As much is kept of lines before a block, for -B. A line
// of --json has all of its matches in it, which may be one a byte: it is shorter.
const (
	blockSize   = 96 << 10
	maxLine     = 16 << 20
	maxJSONLine = 1 << 20
)

// A search looks through one file after the other. It is for one goroutine.
type search struct {
	*Options
	pattern *pattern
	ctx     context.Context
	// passesEmpty says that empty lines are not selected.
	passesEmpty bool
	out         output
	buf         []byte
	longest     int // maxLine, or maxJSONLine

	file    *file
	base    int64 // where buf begins in the file
	done    int   // what stands before this in buf was searched
	line    int64 // the number of the line at counted
	counted int
	kept    int   // bytes were in buf when something was dropped from it last
	given   int64 // the end of the lines that out has been given, with -B
	nul     bool  // the file is no text: zero bytes end lines
	selects int64 // lines so far
	binary  bool  // a line that is not printed, as the file is no text
	pending int64 // lines that follow as context
	printed int64 // the end of the line that was printed last; -1: none was
	ended   bool  // nothing more is to be found
	err     error // of reading
}

// run searches a file. What is found goes to yield, as results.
func (s *search) run(f *file, yield func(result) bool) {
	if cap(s.buf) > maxLine/8 {
		s.buf = nil
	}
	*s = search{Options: s.Options, pattern: s.pattern, ctx: s.ctx, passesEmpty: s.passesEmpty, buf: s.buf[:0], out: s.out, file: f, printed: -1, longest: maxLine}
	if s.JSON {
		s.longest = maxJSONLine
	}
	s.out.reset(s, yield)
	if s.max != 0 {
		s.blocks()
	}
	if s.err == nil {
		s.out.finish()
	}
	s.out.flush(true)
}

// blocks reads the file, and searches it block by block.
func (s *search) blocks() {
	data := newRuns(s.file.node)
	size := s.file.node.Attr().Size
	for !s.ended {
		at := s.base + int64(len(s.buf))
		if s.nul && s.passesEmpty && s.done == len(s.buf) {
			if to := data.next(at); to > at { // a hole, which is lines of nothing
				s.base, s.buf, s.done, s.counted = to, s.buf[:0], 0, 0
				at = to
			}
		}
		have := len(s.buf) // behind s.done no line ends before this
		if !s.read(at) {
			return
		}
		last := s.base+int64(len(s.buf)) >= size
		end := len(s.buf)
		if !last {
			if i := bytes.LastIndexByte(s.buf[have:], '\n'); i >= 0 {
				end = have + i + 1
			} else if end-s.done < s.longest {
				continue
			}
		}
		s.lines(s.buf[:end])
		if last || s.ended {
			return
		}
		s.done = end
		s.keep()
	}
}

// read reads one more block. It reports false at the end, or if it has failed.
func (s *search) read(at int64) bool {
	have := len(s.buf)
	if cap(s.buf)-have < blockSize {
		grown := make([]byte, have, 2*have+blockSize)
		copy(grown, s.buf)
		s.buf = grown
	}
	b := s.buf[have : have+blockSize]
	n, err := 0, s.ctx.Err()
	if err == nil {
		n, err = s.file.node.ReadAt(s.ctx, b, at)
	}
	if err != nil && err != io.EOF {
		s.err, s.ended = err, true
		return false
	}
	s.buf = s.buf[:have+n]
	if s.Options.binary != asText {
		s.zeros(b[:n], at == 0)
	}
	return n > 0 && !s.ended
}

// zeros looks whether the file is no text. Then its zero bytes end lines.
func (s *search) zeros(b []byte, first bool) {
	if !s.nul && bytes.IndexByte(b, 0) < 0 && !(first && s.file.node.IsSparse()) {
		return
	}
	if !s.nul {
		s.nul = true
		if s.Options.binary == skipBinary {
			s.ended, s.selects = true, 0
		}
	}
	for i, c := range b {
		if c == 0 {
			b[i] = '\n'
		}
	}
}

// keep drops what is not needed any more from the beginning of the buffer: all but the
// lines before what comes, as far as they may be printed. It does so when the buffer has
// twice what it kept before, so that all of this takes no longer than reading.
func (s *search) keep() {
	if len(s.buf) < 2*s.kept {
		return
	}
	from := s.done
	for n := s.before; n > 0 && from > 0 && !s.nul && s.done-from < maxLine; n-- {
		from = bytes.LastIndexByte(s.buf[:from-1], '\n') + 1
	}
	s.countTo(from) // a line that is kept may be printed with its number
	s.buf = append(s.buf[:0], s.buf[from:]...)
	s.base, s.done, s.counted, s.kept = s.base+int64(from), s.done-from, s.counted-from, len(s.buf)
}

// countTo counts the lines before a place in the buffer, and returns the number of the
// line that begins there.
func (s *search) countTo(at int) int64 {
	if (s.numbers || s.JSON) && at > s.counted {
		s.line += int64(bytes.Count(s.buf[s.counted:at], []byte{'\n'}))
	}
	s.counted = max(at, s.counted)
	return s.line + 1
}

// lines searches whole lines, which begin at s.done in the buffer. The last one may have
// no end.
func (s *search) lines(b []byte) {
	for at := s.done; at < len(b) && !s.ended; {
		from, to, ok := s.next(b, at)
		if !ok {
			s.trail(b, at, len(b))
			return
		}
		s.trail(b, at, from)
		s.selects++
		s.found(b, from, to)
		at = to
		if s.max > 0 && s.selects >= s.max {
			s.ended = true
			s.tail(at)
		}
	}
}

// next returns the first line at or behind a place that is selected.
func (s *search) next(b []byte, at int) (from, to int, ok bool) {
	if s.pattern.nothing && !s.invert {
		return 0, 0, false
	}
	jump := s.pattern.literals != nil && !s.invert
	var known [maxLiterals]int // where each literal is next, and 1
	for at < len(b) {
		if jump {
			if at = s.pattern.jump(b, at, &known); at < 0 {
				return 0, 0, false
			}
			at = bytes.LastIndexByte(b[:at], '\n') + 1
			if at < s.done {
				at = s.done // a line that was cut
			}
		}
		for s.passesEmpty && b[at] == '\n' {
			if at++; at == len(b) {
				return 0, 0, false
			}
		}
		to = lineEnd(b, at)
		if s.pattern.matches(trimEnd(b[at:to])) != s.invert {
			return at, to, true
		}
		at = to
	}
	return 0, 0, false
}

// jump returns where the first literal is at or behind a place, or -1. known are the
// places that it has found so far, each and 1.
func (p *pattern) jump(b []byte, at int, known *[maxLiterals]int) int {
	first := -1
	for i := range p.literals {
		if i >= maxLiterals {
			return at
		}
		if known[i] > 0 && known[i]-1 < at || known[i] == 0 {
			k := p.literals[i].index(b[at:])
			if k < 0 {
				known[i] = len(b) + 2
				continue
			}
			known[i] = at + k + 1
		}
		if place := known[i] - 1; place <= len(b) && (first < 0 || place < first) {
			first = place
		}
	}
	return first
}

// lineEnd returns the place behind the line that begins at a place.
func lineEnd(b []byte, at int) int {
	if i := bytes.IndexByte(b[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(b)
}

func trimEnd(line []byte) []byte { return bytes.TrimSuffix(line, []byte{'\n'}) }

// found prints a line that is selected, with those before it.
func (s *search) found(b []byte, from, to int) {
	switch {
	case s.Quiet, s.list != noListing:
		s.ended = true
		return
	case s.count:
		return
	case s.nul: // it matches, which is all that is told
		s.binary, s.ended = true, true
		return
	}
	if s.onlyMatching {
		s.out.line(b, from, to, false)
		return
	}
	begin, first := from, max(s.given-s.base, 0)
	for n := s.before; n > 0 && int64(begin) > first; n-- {
		begin = bytes.LastIndexByte(b[:begin-1], '\n') + 1
	}
	begin = max(begin, int(first))
	s.given = s.base + int64(to)
	for begin < from && !s.ended {
		end := lineEnd(b, begin)
		s.out.line(b, begin, end, true)
		begin = end
	}
	if !s.ended {
		s.out.line(b, from, to, false)
	}
	s.pending = s.after
}

// trail prints the lines of context that follow one that was printed.
func (s *search) trail(b []byte, from, to int) {
	for ; s.pending > 0 && from < to && !s.ended; s.pending-- {
		end := lineEnd(b, from)
		s.out.line(b, from, end, true)
		from = end
		s.given = s.base + int64(end)
	}
}

// tail prints the lines of context that follow the last one that -m allows.
func (s *search) tail(at int) {
	b := s.buf
	for s.ended = false; s.pending > 0 && !s.ended; s.pending-- {
		for have := 0; bytes.IndexByte(b[at+have:], '\n') < 0 && len(b)-at < s.longest; {
			s.done, have = at, len(b)-at
			s.keep()
			more := s.read(s.base + int64(len(s.buf)))
			if b, at = s.buf, s.done; !more {
				break
			}
		}
		if at == len(b) {
			break
		}
		end := lineEnd(b, at)
		if s.nul {
			break
		}
		s.out.line(b, at, end, true)
		at = end
	}
	s.ended = true
}

// runs are where a file has data, and no holes.
type runs struct {
	node fs.Node
	all  [][2]int64
}

func newRuns(n fs.Node) *runs {
	r := &runs{node: n}
	if n.IsSparse() {
		for from, to := range n.Data() {
			r.all = append(r.all, [2]int64{from, to})
		}
	}
	return r
}

// next returns where there is data next, at or behind a place. At the end of the file
// there is none, but its last byte counts.
func (r *runs) next(at int64) int64 {
	if !r.node.IsSparse() {
		return at
	}
	for len(r.all) > 0 && r.all[0][1] <= at {
		r.all = r.all[1:]
	}
	last := max(r.node.Attr().Size-1, at)
	if len(r.all) == 0 {
		return last
	}
	return min(max(at, r.all[0][0]), last)
}
