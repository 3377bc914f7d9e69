package explore

import (
	"fmt"
	"strings"

	"github.com/gdamore/tcell/v3"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	// leastWidth and leastHeight are the smallest screen that something is drawn on, and
	// twoPanes is how wide one must be for both panes.
	leastWidth, leastHeight = 24, 6
	twoPanes                = 64
	// effectLines are those below the layers, if there is room for them.
	effectLines = 6
)

// panes are where the rows of layers and files are.
type panes struct{ layers, tree area }

// Draw draws everything.
func (m *Model) Draw(c Canvas) {
	m.width, m.height = c.Size()
	all := area{c, 0, 0, m.width, m.height}
	all.clear(m.styles.plain)
	c.HideCursor()
	m.panes = panes{}
	if m.width < leastWidth || m.height < leastHeight {
		for y, line := range wrap(fmt.Sprintf("the terminal is too small: %d×%d is the least", leastWidth, leastHeight), m.width) {
			all.text(0, y, line, m.styles.plain)
		}
		return
	}
	body := all.part(0, 1, m.width, m.height-3)
	switch {
	case m.popup != nil:
		m.drawPopup(all.part(0, 0, m.width, 1), body)
	case m.viewer != nil:
		m.drawViewer(all.part(0, 0, m.width, 1), body)
	default:
		m.drawTitle(all.part(0, 0, m.width, 1))
		m.drawPanes(body)
	}
	m.drawStatus(all.part(0, m.height-2, m.width, 1))
	m.drawFooter(all.part(0, m.height-1, m.width, 1))
}

// drawTitle draws the first line: what image it is.
func (m *Model) drawTitle(a area) {
	text := ""
	if len(m.layers) > 0 {
		sum := int64(0)
		for _, l := range m.layers {
			sum = addSizes(sum, l.Size)
		}
		text += fmt.Sprintf("  %s, %s", show.Count(len(m.layers), "layer"), size(sum))
	}
	if m.image != nil {
		waste := int64(0)
		for _, l := range m.image.Survey.Layers() {
			waste = addSizes(waste, l.Useless)
		}
		text += fmt.Sprintf("; %s in %s, %s wasted", size(m.total()), show.Count(m.image.Tree.Len(), "inode"), size(waste))
	}
	name := show.Shorten(printable.Line(m.config.Name), max(10, a.w-show.Width(text)))
	a.row(0, show.ShortenEnd(name+text, a.w), m.styles.title)
}

// total is the size of what is shown.
func (m *Model) total() int64 {
	sum := int64(0)
	for _, l := range m.image.Survey.Layers() {
		sum = addSizes(sum, l.Content()-l.Useless)
	}
	return sum
}

// drawPanes draws layers and files side by side, or that which has the keys.
func (m *Model) drawPanes(a area) {
	if a.w < twoPanes {
		if m.inTree {
			m.drawTree(a)
		} else {
			m.drawLayers(a)
		}
		return
	}
	left := min(max(a.w*2/5, 30), 60)
	m.drawLayers(a.part(0, 0, left, a.h))
	for y := range a.h {
		a.text(left, y, "|", m.styles.dim)
	}
	m.drawTree(a.part(left+1, 0, a.w-left-1, a.h))
}

// heading draws the first line of a pane.
func (m *Model) heading(a area, text string, keys bool) {
	style := m.styles.dim
	if keys {
		style = m.styles.title.Underline(true)
	}
	a.row(0, show.ShortenEnd(text, a.w), style)
}

// drawLayers draws the layers, the base first, and what the chosen one does.
func (m *Model) drawLayers(a area) {
	m.heading(a, fmt.Sprintf("%3s %-8s %9s %s", "", "share", "size", "made by"), !m.inTree)
	rows := a.part(0, 1, a.w, a.h-1)
	if rows.h >= effectLines+6 {
		rows.h -= effectLines
		m.drawEffects(a.part(0, a.h-effectLines, a.w, effectLines))
	}
	m.panes.layers = rows
	m.top = max(0, min(m.top, len(m.layers)-rows.h))
	all := int64(0)
	for _, l := range m.layers {
		all = max(all, l.Size)
	}
	for y := 0; y < rows.h && m.top+y < len(m.layers); y++ {
		l := m.layers[m.top+y]
		text := fmt.Sprintf("%3d %-8s %9s %s", m.top+y+1, bar(l.Size, all, 8), size(l.Size), l.Command)
		rows.row(y, show.ShortenEnd(text, rows.w), m.rowStyle(m.top+y == m.layer, !m.inTree, m.styles.plain))
	}
}

// showLayer scrolls so that the layer of the cursor is shown.
func (m *Model) showLayer() {
	h := max(1, m.panes.layers.h)
	m.top = max(min(m.top, m.layer), m.layer-h+1)
}

// rowStyle is how a row is drawn.
func (m *Model) rowStyle(chosen, keys bool, style tcell.Style) tcell.Style {
	switch {
	case chosen && keys:
		return m.styles.cursor
	case chosen:
		return m.styles.idle
	}
	return style
}

// bar draws the part of a whole.
func bar(part, whole int64, columns int) string {
	if whole <= 0 || part <= 0 {
		return ""
	}
	return strings.Repeat("#", max(1, min(columns, int(float64(part)/float64(whole)*float64(columns)+0.5))))
}

// drawEffects draws what the chosen layer does.
func (m *Model) drawEffects(a area) {
	a.row(0, strings.Repeat("-", a.w), m.styles.dim)
	lines := m.effects(m.layer)
	if len(lines) == 0 {
		if m.does(taskOpen) {
			a.row(1, "reading indexes", m.styles.dim)
		}
		return
	}
	styles := []tcell.Style{m.styles.added, m.styles.changed, m.styles.removed, m.styles.failed}
	for i, line := range lines {
		a.row(1+i, show.ShortenEnd(line, a.w), styles[i])
	}
	if m.layer < len(m.layers) {
		a.row(5, show.ShortenEnd(m.layers[m.layer].Command, a.w), m.styles.dim)
	}
}

// treeTitle says what the pane on the right shows.
func (m *Model) treeTitle() string {
	sorted := "by name"
	if m.files.bySize {
		sorted = "by size"
	}
	switch m.view {
	case viewLayer:
		if m.only[1] {
			return fmt.Sprintf("what layer %d changed, %s", m.layer+1, sorted)
		}
		return fmt.Sprintf("after layer %d, %s", m.layer+1, sorted)
	case viewWaste:
		if l, ok := m.files.source.(*wasteList); ok && l.cut {
			return fmt.Sprintf("largest %d wasted, %s", maxWaste, sorted)
		}
		return "wasted files, " + sorted
	case viewDiff:
		text := "in " + printable.Line(m.other.Name) + ", " + sorted
		if d, ok := m.files.source.(*diffTree); ok {
			text = fmt.Sprintf("+%d -%d ~%d %s", d.counts[1], d.counts[2], d.counts[0], text)
			if d.cut {
				text = "(imgfs diff has all) " + text
			}
			if d.unread > 0 {
				text = fmt.Sprintf("(%d unread) %s", d.unread, text)
			}
		}
		return text
	}
	if m.only[0] {
		return "changed above the base, " + sorted
	}
	return "all of the image, " + sorted
}

// drawTree draws files.
func (m *Model) drawTree(a area) {
	m.heading(a, fmt.Sprintf("  %9s %3s %s", "size", "lay", m.treeTitle()), m.inTree)
	rows := a.part(0, 1, a.w, a.h-1)
	m.panes.tree = rows
	m.files.height = rows.h
	if m.files.source == nil {
		return
	}
	m.files.scroll()
	if len(m.files.rows) == 0 && !m.does(taskTree) {
		rows.text(2, 0, "nothing", m.styles.dim)
	}
	for y := 0; y < rows.h && m.files.top+y < len(m.files.rows); y++ {
		at := m.files.top + y
		r := m.files.rows[at]
		it := m.files.source.item(r.id)
		rows.row(y, show.ShortenEnd(m.fileText(r, it), rows.w), m.rowStyle(at == m.files.cursor, m.inTree, m.styles.of(it.mark)))
	}
}

// fileText is a row of files.
func (m *Model) fileText(r listRow, it item) string {
	layer := ""
	if it.layer > 0 {
		layer = fmt.Sprint(it.layer)
	}
	sign := "  "
	name := printable.Name(printable.Cut(m.files.source.name(r.id), 512))
	if m.files.source.isDir(r.id) {
		if sign = "+ "; m.files.open[r.id] {
			sign = "- "
		}
		name += "/"
	}
	text := fmt.Sprintf("%c %9s %3s %s%s%s", it.mark, size(it.size), layer, strings.Repeat("  ", min(int(r.depth), 40)), sign, name)
	if it.link != "" {
		text += " -> " + printable.Name(printable.Cut(it.link, 512))
	}
	if it.note != "" {
		text += "  (" + it.note + ")"
	}
	return text
}

func (m *Model) drawViewer(title, a area) {
	v := m.viewer
	v.height = a.h
	text := printable.Line(printable.Name(v.title))
	place := v.place()
	title.row(0, show.ShortenEnd(text, max(1, title.w-len(place)-2)), m.styles.title)
	title.text(title.w-len(place), 0, place, m.styles.title)
	v.draw(a, &m.styles)
}

func (m *Model) drawPopup(title, a area) {
	p := m.popup
	p.height = a.h
	p.move(0)
	title.row(0, show.ShortenEnd(p.title, title.w), m.styles.title)
	for y := 0; y < a.h && p.top+y < len(p.lines); y++ {
		at := p.top + y
		a.row(y, show.ShortenEnd(p.lines[at].text, a.w), m.rowStyle(at == p.cursor, true, m.styles.plain))
	}
}

// drawStatus draws the line above the keys: what is typed, said, or done.
func (m *Model) drawStatus(a area) {
	switch {
	case m.prompt != nil:
		label := m.prompt.label + ": "
		text := printable.Text(string(m.prompt.text))
		for show.Width(text) > a.w-len(label)-1 && text != "" {
			text = skip(text, 1)
		}
		x := a.row(0, label+text, m.styles.title)
		a.c.ShowCursor(a.x+min(x, a.w-1), a.y)
	case m.notice != "":
		style := m.styles.plain
		if m.failed {
			style = m.styles.failed
		}
		a.row(0, show.ShortenEnd(printable.Line(m.notice), a.w), style)
	case len(m.tasks) > 0:
		t := m.tasks[len(m.tasks)-1]
		text := t.text + "..."
		if t.name != taskOpen {
			text += " (Esc ends it)"
		} else if len(m.ahead) > 0 {
			text += " (what was typed waits: Esc forgets it)"
		}
		a.row(0, show.ShortenEnd(text, a.w), m.styles.dim)
	case m.viewer == nil && m.popup == nil && m.files.source != nil && m.inTree:
		a.row(0, show.ShortenEnd(printable.Line(printable.Name(m.files.path())), a.w), m.styles.dim)
	}
}

// drawFooter draws the keys.
func (m *Model) drawFooter(a area) {
	if m.prompt != nil {
		a.row(0, "Enter do it  Esc leave it", m.styles.dim)
		return
	}
	x := 0
	for _, k := range m.place().Keys {
		if k.Footer == "" {
			continue
		}
		name := keyNames(k.Keys[:1])
		if x+len(name)+1+len(k.Footer) > a.w {
			break
		}
		x = a.text(x, 0, name, m.styles.title)
		x = a.text(x+1, 0, k.Footer, m.styles.dim) + 1
	}
}
