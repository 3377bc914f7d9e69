package explore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	// viewBlock is how much of a file is read at a time, and viewWindow how much is held.
	viewBlock  = 64 << 10
	viewWindow = 4 * viewBlock
	// maxLine is where a line is broken that is longer.
	maxLine = 1024
	hexRow  = 16
)

// A viewer shows a file: text by lines, other bytes in hex. It holds a window of the file.
type viewer struct {
	title string
	node  fs.Node
	size  int64
	hex   bool
	chose bool // whether it is text has been decided

	base   int64  // of the window
	window []byte // what has been read
	top    int64  // of the first line that is shown
	shift  int    // columns to the right
	height int
	want   func() // what was to be done when more has been read
}

func newViewer(title string, n fs.Node) *viewer {
	return &viewer{title: title, node: n, size: n.Attr().Size}
}

// A viewRead is a piece of a file to be read.
type viewRead struct{ base, end int64 }

// read reads a piece.
func (v *viewer) read(ctx context.Context, r viewRead) ([]byte, error) {
	buf := make([]byte, r.end-r.base)
	for have := 0; have < len(buf); {
		n, err := v.node.ReadAt(ctx, buf[have:min(have+viewBlock, len(buf))], r.base+int64(have))
		have += n
		if errors.Is(err, io.EOF) && have == len(buf) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return buf, nil
}

// around returns the window for what is shown at an offset.
func (v *viewer) around(off int64) viewRead {
	base := max(0, off-viewWindow/2) / viewBlock * viewBlock
	return viewRead{base, min(v.size, base+viewWindow)}
}

// got takes what has been read.
func (v *viewer) got(r viewRead, buf []byte) {
	v.base, v.window = r.base, buf
	if !v.chose && r.base == 0 {
		head := buf[:min(len(buf), 8<<10)]
		v.hex, v.chose = bytes.IndexByte(head, 0) >= 0, true
	}
	if do := v.want; do != nil {
		v.want = nil
		do()
	}
}

// holds reports whether the window has what a screen from an offset on needs, and before
// it as much as the lines above may have.
func (v *viewer) holds(off int64) bool {
	end := v.base + int64(len(v.window))
	need := min(int64(v.height+1)*maxLine, viewBlock)
	return v.chose && off >= v.base && (end == v.size || off+need <= end) && (v.base == 0 || off-need >= v.base)
}

// next returns where the line begins that follows one; the size at the end.
func (v *viewer) next(off int64) int64 {
	if v.hex {
		return min(off+hexRow, v.size)
	}
	at := v.window[min(max(off-v.base, 0), int64(len(v.window))):]
	limit := min(len(at), maxLine)
	if i := bytes.IndexByte(at[:limit], '\n'); i >= 0 {
		return off + int64(i) + 1
	}
	for limit == maxLine && limit > maxLine-utf8.UTFMax && limit < len(at) && !utf8.RuneStart(at[limit]) {
		limit--
	}
	return off + int64(limit)
}

// before returns where the line begins that is before one.
func (v *viewer) before(off int64) int64 {
	if v.hex {
		return max(0, off-hexRow)
	}
	if off <= v.base {
		return off
	}
	at := v.window[:off-v.base]
	from := bytes.LastIndexByte(at[:len(at)-1], '\n') + 1
	if from == 0 && v.base > 0 {
		from = max(0, len(at)-8*maxLine)
	}
	line := v.base + int64(from)
	for n := v.next(line); n < off && n > line; n = v.next(line) {
		line = n
	}
	return line
}

// move moves by so many lines. It returns what has to be read for that, if anything.
func (v *viewer) move(by int) *viewRead {
	return v.withWindow(v.top, func() {
		for ; by > 0; by-- {
			n := v.next(v.top)
			if n >= v.size {
				break
			}
			v.top = n
		}
		for ; by < 0 && v.top > 0; by++ {
			v.top = v.before(v.top)
		}
		v.keepFull()
	})
}

// keepFull goes back to where the last line of the file is the last one that is shown.
func (v *viewer) keepFull() {
	at, lines := v.top, 0
	for ; lines < v.height && at < v.size; lines++ {
		n := v.next(at)
		if n <= at {
			break
		}
		at = n
	}
	for ; lines < v.height && v.top > v.base; lines++ {
		v.top = v.before(v.top)
	}
}

// seek goes to the beginning or the end.
func (v *viewer) seek(end bool) *viewRead {
	at := int64(0)
	if end {
		at = v.size
	}
	return v.withWindow(at, func() {
		v.top = at
		if end {
			if v.hex {
				v.top = (v.size + hexRow - 1) / hexRow * hexRow
			}
			v.keepFull()
		}
	})
}

// withWindow does something now, if the window holds what is at an offset, or when that
// has been read. What else was to be done is not done any more.
func (v *viewer) withWindow(off int64, do func()) *viewRead {
	v.want = nil
	if v.holds(off) {
		do()
		if v.holds(v.top) {
			return nil
		}
		r := v.around(v.top)
		return &r
	}
	v.want = do
	r := v.around(off)
	if !v.chose {
		r = viewRead{0, min(v.size, viewWindow)}
		if off > 0 {
			v.want = nil // the reader presses the key again
		}
	}
	return &r
}

// draw draws the lines.
func (v *viewer) draw(a area, s *styles) {
	at := v.top
	for y := range a.h {
		if at >= v.size || at < v.base || at >= v.base+int64(len(v.window)) {
			break
		}
		next := v.next(at)
		if next <= at {
			break
		}
		piece := v.window[at-v.base : min(next-v.base, int64(len(v.window)))]
		text := hexLine(at, piece)
		if !v.hex {
			text = textLine(piece)
		}
		a.text(0, y, skip(text, v.shift), s.plain)
		at = next
	}
}

// textLine returns a line as it is shown.
func textLine(line []byte) string {
	line = bytes.TrimRight(line, "\r\n")
	if bytes.IndexByte(line, '\t') >= 0 {
		var b bytes.Buffer
		for i, cell := range bytes.Split(line, []byte("\t")) {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", 8-utf8.RuneCount(b.Bytes())%8))
			}
			b.Write(cell)
		}
		line = b.Bytes()
	}
	return printable.Text(string(line))
}

// skip leaves out the first n runes.
func skip(text string, n int) string {
	for ; n > 0 && text != ""; n-- {
		_, k := utf8.DecodeRuneInString(text)
		text = text[k:]
	}
	return text
}

// hexLine returns bytes as hexdump -C shows them.
func hexLine(off int64, b []byte) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%08x ", off)
	for i := range hexRow {
		if i == hexRow/2 {
			s.WriteByte(' ')
		}
		if i < len(b) {
			fmt.Fprintf(&s, " %02x", b[i])
		} else {
			s.WriteString("   ")
		}
	}
	s.WriteString("  |")
	for _, c := range b {
		if c < ' ' || c > '~' {
			c = '.'
		}
		s.WriteByte(c)
	}
	s.WriteByte('|')
	return s.String()
}

// place says how far the reader is.
func (v *viewer) place() string {
	if v.size == 0 {
		return "empty"
	}
	at := v.top
	for range v.height {
		if at >= v.base+int64(len(v.window)) || at < v.base {
			break
		}
		at = v.next(at)
	}
	return fmt.Sprintf("%d%% of %s", int64(float64(min(at, v.size))/float64(v.size)*100), size(v.size))
}

// toggleHex shows bytes in hex, or as text.
func (v *viewer) toggleHex() {
	v.hex, v.shift = !v.hex, 0
	if v.hex {
		v.top = v.top / hexRow * hexRow
	} else if v.holds(v.top) && v.top > 0 {
		v.top = v.before(v.next(v.top))
	}
}
