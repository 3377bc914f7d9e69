package ls

import "math"

// printSingle prints a name a line.
func (l *Lister) printSingle(g *group) {
	var w printedWidths
	if l.o.layers || l.o.inode || l.o.blocks {
		for r := range l.look(g.wide) {
			l.measure(&w, r)
		}
	}
	for r := range l.look(g.rows) {
		b := l.appendIndicated(l.appendFrills(l.buf[:0], &w, r), g, &w, r, 0)
		l.buf = append(b, l.eol)
		l.w.Write(l.buf)
		l.printed = true
	}
}

// printSeparated prints names one behind the other, as many in a line as fit, with a
// separator between them.
func (l *Lister) printSeparated(g *group, separator string) {
	var w printedWidths
	if l.o.format != commas {
		for r := range l.look(g.wide) {
			l.measure(&w, r)
		}
	}
	at, first := 0, true
	for r := range l.look(g.rows) {
		n := 0
		if l.columns > 0 {
			n = l.nameColumns(&w, r)
		}
		b := l.buf[:0]
		switch {
		case first:
		case l.columns == 0 || at+n+2 < l.columns:
			b, at = append(append(b, separator...), ' '), at+2
		default:
			b, at = append(append(b, separator...), l.eol), 0
		}
		b = l.appendIndicated(l.appendFrills(b, &w, r), g, &w, r, at)
		l.buf, at, first = b, at+n, false
		l.w.Write(b)
	}
	if !first {
		l.w.WriteByte(l.eol)
		l.printed = true
	}
}

// How wide columns are at least, with the space behind them, and how many there are at
// most.
const (
	minColumn  = 3
	maxColumns = 1024
)

// printColumns prints names in columns of the widths that they need: down, or across.
func (l *Lister) printColumns(g *group, down bool) {
	var w printedWidths
	for r := range l.look(g.wide) {
		l.measure(&w, r)
	}
	var widths []uint16
	for r := range l.look(g.rows) {
		widths = append(widths, uint16(min(l.nameColumns(&w, r), math.MaxUint16)))
	}
	if len(widths) == 0 || l.ctx.Err() != nil {
		return
	}
	columns := l.fit(widths, down)
	lines := (len(widths) + len(columns) - 1) / len(columns)
	for y := range lines {
		if y%1024 == 0 && l.ctx.Err() != nil {
			return
		}
		b, at := l.buf[:0], 0
		for x := range columns {
			i := y*len(columns) + x
			if down {
				i = x*lines + y
			}
			if i >= len(widths) {
				break
			}
			if x > 0 {
				last := i - 1
				if down {
					last = i - lines
				}
				b = l.appendGap(b, at+int(widths[last]), at+columns[x-1])
				at += columns[x-1]
			}
			r := g.at(g.order[i])
			b = l.appendIndicated(l.appendFrills(b, &w, r), g, &w, r, at)
		}
		l.buf = append(b, l.eol)
		l.w.Write(l.buf)
	}
	l.printed = true
}

// fit returns the widths of the columns in which as many names as possible stand side
// by side: down the columns, or across.
func (l *Lister) fit(widths []uint16, down bool) []int {
	most := min((l.columns+minColumn-1)/minColumn, len(widths), maxColumns)
	for n := most; n > 1 && l.ctx.Err() == nil; n-- {
		if columns := l.columnWidths(widths, n, down); columns != nil {
			return columns
		}
	}
	return make([]int, 1)
}

// columnWidths returns the widths of n columns, or nil if they do not fit into a line.
func (l *Lister) columnWidths(widths []uint16, n int, down bool) []int {
	columns := make([]int, n)
	for i := range columns {
		columns[i] = minColumn
	}
	line := n * minColumn
	lines := (len(widths) + n - 1) / n
	for i := range widths {
		need, x := int(widths[i]), i%n
		if down {
			x = i / lines
		}
		if x < n-1 {
			need += 2 // between columns
		}
		if more := need - columns[x]; more > 0 {
			columns[x] = need
			if line += more; line >= l.columns {
				return nil
			}
		}
	}
	return columns
}

// appendGap moves from one column of a line to another one, with tabs where they lead
// further than a space.
func (l *Lister) appendGap(b []byte, from, to int) []byte {
	for from < to {
		if tab := l.o.tab; tab > 0 && to/tab > (from+1)/tab {
			b, from = append(b, '\t'), from+tab-from%tab
		} else {
			b, from = append(b, ' '), from+1
		}
	}
	return b
}
