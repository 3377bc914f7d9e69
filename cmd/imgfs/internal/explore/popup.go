package explore

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	modeType    = syscall.S_IFMT
	modeRegular = syscall.S_IFREG
)

// A popup are lines before everything else: the help, or all about a file.
type popup struct {
	title  string
	lines  []popupLine
	cursor int // -1: lines are not chosen
	top    int
	height int
}

// A popupLine is one. open is what can be opened of it.
type popupLine struct {
	text  string
	title string
	open  func() (fs.Node, bool)
}

func (p *popup) add(format string, args ...any) {
	p.lines = append(p.lines, popupLine{text: fmt.Sprintf(format, args...)})
}

// move moves the cursor, or what is shown.
func (p *popup) move(by int) {
	h := max(p.height, 1)
	if p.cursor < 0 {
		p.top = max(0, min(p.top+by, len(p.lines)-h))
		return
	}
	p.cursor = max(0, min(p.cursor+by, len(p.lines)-1))
	p.top = max(min(p.top, p.cursor), p.cursor-h+1)
}

// showHelp shows all keys.
func (m *Model) showHelp() {
	p := &popup{title: "keys", cursor: -1}
	for i, place := range AllKeys() {
		if i > 0 {
			p.add("")
		}
		p.add("%s:", place.Place)
		for _, k := range place.Keys {
			p.add("  %-16s %s", keyNames(k.Keys), k.Does)
		}
	}
	p.add("")
	p.add("A is added, M changed, D removed. A click chooses, another one opens.")
	m.popup = p
}

// keyNames writes keys for people.
func keyNames(keys []string) string {
	shown := strings.Join(keys, " ")
	if strings.HasSuffix(shown, "  ") || strings.HasSuffix(shown, " ") {
		shown = strings.TrimRight(shown, " ") + " Space"
	}
	return shown
}

// showDetails shows all about the file of the cursor, or about the layer.
func (m *Model) showDetails() {
	if !m.inTree {
		m.layerDetails()
		return
	}
	id, ok := m.files.current()
	if !ok {
		m.say("there is no file")
		return
	}
	path := m.files.path()
	p := &popup{title: printable.Line(path)}
	n, ok := m.files.source.file(id)
	if ok {
		m.describe(p, path, n)
	}
	m.versions(p, path, id)
	if len(p.lines) == 0 {
		p.add("nothing has changed here, but below")
	}
	m.popup = p
}

// describe adds what a file is.
func (m *Model) describe(p *popup, path string, n fs.Node) {
	a := n.Attr()
	p.add("%-10s %s", "type", typeName(a.Mode))
	p.add("%-10s %s (%d bytes)", "size", size(a.Size), a.Size)
	if id, ok := m.files.current(); ok && a.Mode&modeType == syscall.S_IFDIR {
		total := m.files.source.item(id).size
		p.add("%-10s %s (%d bytes)", "below", size(total), total)
	}
	p.add("%-10s %04o", "mode", a.Mode&0o7777)
	owners := len(p.lines)
	p.add("%-10s %d", "user", a.UID)
	p.add("%-10s %d", "group", a.GID)
	p.add("%-10s %s", "modified", modified(a))
	if a.Nlink > 1 && a.Mode&modeType != syscall.S_IFDIR {
		p.add("%-10s %d", "hard links", a.Nlink)
	}
	if t := n.Target(); t != "" {
		p.add("%-10s %s", "links to", printable.Line(printable.Name(t)))
	}
	if t := a.Mode & modeType; t == syscall.S_IFCHR || t == syscall.S_IFBLK {
		p.add("%-10s %d:%d", "device", a.Major, a.Minor)
	}
	if layer := n.Layer(); layer >= 0 {
		p.add("%-10s %d", "layer", layer+1)
	}
	sum := len(p.lines)
	if a.Mode&modeType == modeRegular {
		p.add("%-10s ...", "sha256")
	}
	for _, x := range n.Xattrs() {
		p.add("%-10s %s=%s", "xattr", printable.Name(x.Name), printable.Cell(x.Value))
	}
	m.start(taskDetails, "looking for names and digest", func(ctx context.Context, _ func(string)) (func(), error) {
		digest := "not known before it is read"
		if d, ok, err := n.ContentDigest(); ok && err == nil {
			digest = printable.Line(d.Encoded())
		}
		user, group := m.image.Owners(ctx)
		return func() {
			p.lines[owners].text = fmt.Sprintf("%-10s %s", "user", owner(a.UID, user))
			p.lines[owners+1].text = fmt.Sprintf("%-10s %s", "group", owner(a.GID, group))
			if a.Mode&modeType == modeRegular {
				p.lines[sum].text = fmt.Sprintf("%-10s %s", "sha256", digest)
			}
		}, nil
	})
}

// versions adds what a path was in each layer, or in each image.
func (m *Model) versions(p *popup, path string, id int32) {
	if d, ok := m.files.source.(*diffTree); ok {
		r := &d.rows[id]
		add := func(what string, n fs.Node) {
			p.lines = append(p.lines, popupLine{
				text:  fmt.Sprintf("%-10s %s", what, attrText(n.Attr())),
				title: path + " (" + what + ")", open: func() (fs.Node, bool) { return n, true },
			})
		}
		if r.differ && r.kind != treediff.Added {
			add("first", r.old)
		}
		if r.differ && r.kind != treediff.Removed {
			add("second", r.new)
		}
		return
	}
	at := -1
	switch s := m.files.source.(type) {
	case *pathTree:
		at = int(id)
	case *wasteList:
		at = s.list[id].Path.Index()
	}
	if at < 0 {
		return
	}
	where := m.image.Survey.Path(at)
	p.add("")
	p.add("in layers:")
	for _, v := range where.History() {
		text := fmt.Sprintf("%5d  %-9s", v.Layer+1, v.Change)
		if v.Change != fs.Hidden {
			text += " " + attrText(v.Attr)
		}
		if v.Target != "" {
			text += " -> " + printable.Line(printable.Name(v.Target))
		}
		p.lines = append(p.lines, popupLine{text: text, title: fmt.Sprintf("%s (layer %d)", path, v.Layer+1), open: func() (fs.Node, bool) {
			if v.Change == fs.Hidden {
				return where.After(v.Layer - 1)
			}
			return where.After(v.Layer)
		}})
		p.cursor = len(p.lines) - 1
	}
}

func attrText(a fs.Attr) string {
	return fmt.Sprintf("%04o %d:%d %9s  %s", a.Mode&0o7777, a.UID, a.GID, size(a.Size), modified(a))
}

// openVersion opens the file of the line.
func (m *Model) openVersion() {
	p := m.popup
	if p.cursor < 0 || p.cursor >= len(p.lines) || p.lines[p.cursor].open == nil {
		return
	}
	if n, ok := p.lines[p.cursor].open(); ok {
		m.popup = nil
		m.open(p.lines[p.cursor].title, n)
	}
}

// layerDetails shows all about the layer of the cursor.
func (m *Model) layerDetails() {
	if m.layer >= len(m.layers) {
		return
	}
	l := m.layers[m.layer]
	p := &popup{title: fmt.Sprintf("layer %d", m.layer+1), cursor: -1}
	p.add("%-10s %s", "digest", printable.Line(l.Digest))
	p.add("%-10s %s (%d bytes)", "blob", size(l.Size), l.Size)
	for _, line := range m.effects(m.layer) {
		p.add("%s", line)
	}
	p.add("")
	for _, line := range wrap(l.Command, max(20, m.width-8)) {
		p.add("%s", line)
	}
	m.popup = p
}

// effects says what a layer does.
func (m *Model) effects(layer int) []string {
	if m.image == nil || layer >= len(m.image.Survey.Layers()) {
		return nil
	}
	e := m.image.Survey.Layers()[layer]
	line := func(what string, c fs.Count) string {
		return fmt.Sprintf("%-10s %9s in %d", what, size(c.Bytes), c.Names)
	}
	return []string{
		line("adds", e.Added), line("replaces", e.Replaced), line("hides", e.Hidden),
		fmt.Sprintf("%-10s %9s", "wastes", size(e.Useless)),
	}
}

func owner(id uint32, name func(uint32) string) string {
	if name != nil {
		if text := name(id); text != "" {
			return fmt.Sprintf("%s (%d)", text, id)
		}
	}
	return fmt.Sprint(id)
}

func modified(a fs.Attr) string {
	t := time.Unix(a.ModSec, int64(a.ModNsec)).UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return fmt.Sprintf("@%d", a.ModSec)
	}
	return t.Format("2006-01-02 15:04:05")
}

func typeName(mode uint32) string {
	switch mode & modeType {
	case syscall.S_IFDIR:
		return "directory"
	case syscall.S_IFLNK:
		return "symlink"
	case syscall.S_IFCHR:
		return "character device"
	case syscall.S_IFBLK:
		return "block device"
	case syscall.S_IFIFO:
		return "fifo"
	case syscall.S_IFSOCK:
		return "socket"
	}
	return "file"
}
