package explore

import (
	"path"
	"strings"

	"github.com/imgfs/imgfs/fs"
)

// A Key is a key, or several that do the same, and what it does.
type Key struct {
	Keys []string // as Model.Key has them
	Does string
	// Footer is what the last line of the screen says of it, "" for nothing.
	Footer string
	do     func(m *Model)
}

// A Keys are the keys that there are at one place of the program.
type Keys struct {
	Place string
	Keys  []Key
}

// AllKeys returns all keys, as the help shows them.
func AllKeys() []Keys { return []Keys{listKeys(), viewerKeys(), popupKeys()} }

// The names of keys that are no characters, and what else is known of them: of Ctrl and a
// letter the name is such as Ctrl-C.
const (
	keyUp, keyDown, keyLeft, keyRight   = "Up", "Down", "Left", "Right"
	keyPgUp, keyPgDn, keyHome, keyEnd   = "PgUp", "PgDn", "Home", "End"
	keyEnter, keyTab, keyBackTab, keyBS = "Enter", "Tab", "Shift-Tab", "Backspace"
	keyEsc                              = "Esc"
)

// listKeys are those of the two panes.
func listKeys() Keys {
	return Keys{"layers and files", []Key{
		{[]string{"?"}, "this help", "help", (*Model).showHelp},
		{[]string{"q", "Ctrl-C"}, "leave", "quit", func(m *Model) { m.quit = true }},
		{[]string{keyTab, keyBackTab}, "go to the other pane", "pane", func(m *Model) { m.inTree = !m.inTree }},
		{[]string{keyUp, "k"}, "one up", "", func(m *Model) { m.moveBy(-1) }},
		{[]string{keyDown, "j"}, "one down", "", func(m *Model) { m.moveBy(1) }},
		{[]string{keyPgUp}, "a page up", "", func(m *Model) { m.moveBy(-m.page()) }},
		{[]string{keyPgDn}, "a page down", "", func(m *Model) { m.moveBy(m.page()) }},
		{[]string{keyHome, "g"}, "to the first", "", func(m *Model) { m.moveBy(-1 << 30) }},
		{[]string{keyEnd, "G"}, "to the last", "", func(m *Model) { m.moveBy(1 << 30) }},
		{[]string{"["}, "the layer below", "", func(m *Model) { m.chooseLayer(m.layer - 1) }},
		{[]string{"]"}, "the layer above", "", func(m *Model) { m.chooseLayer(m.layer + 1) }},
		{[]string{keyRight, "l"}, "open a directory", "", (*Model).enterDir},
		{[]string{keyLeft, "h"}, "close it, or go to the one above", "", (*Model).leaveDir},
		{[]string{"c"}, "close all directories", "", func(m *Model) { m.files.collapse() }},
		{[]string{"t"}, "all of the image, or what the layer changed", "layer", (*Model).toggleLayer},
		{[]string{"f"}, "leave out what has not changed, or not", "filter", (*Model).toggleFilter},
		{[]string{"w"}, "bytes that later layers replace or remove", "waste", func(m *Model) { m.toggleView(viewWaste) }},
		{[]string{"d"}, "compare with another image", "diff", (*Model).toggleDiff},
		{[]string{"/"}, "look for a name, or a path with a slash", "find", (*Model).askSearch},
		{[]string{"n"}, "the next that was found", "", func(m *Model) { m.nextMatch(1) }},
		{[]string{"N"}, "the one before", "", func(m *Model) { m.nextMatch(-1) }},
		{[]string{"i"}, "all about a file, and what it was in each layer", "info", (*Model).showDetails},
		{[]string{"s"}, "save a file or directory on this machine", "save", (*Model).askSave},
		{[]string{"o"}, "sort by size, or by name", "sort", (*Model).toggleSort},
		{[]string{keyEnter}, "open a file or directory; of a layer, what it changed", "open", (*Model).enter},
		{[]string{"v"}, "read a file in $PAGER", "pager", (*Model).pageCurrent},
		{[]string{keyEsc}, "end what is being done", "", (*Model).escape},
		{[]string{"Ctrl-L"}, "draw the screen anew", "", func(m *Model) { m.outside.Redraw() }},
		{[]string{"Ctrl-Z"}, "stop, until fg", "", func(m *Model) { m.outside.Stop() }},
	}}
}

// viewerKeys are those of a file that is shown.
func viewerKeys() Keys {
	return Keys{"a file", []Key{
		{[]string{"q", keyEsc}, "back; first Esc ends fetching", "back", (*Model).closeViewer},
		{[]string{keyUp, "k"}, "one line up", "", func(m *Model) { m.read(m.viewer.move(-1)) }},
		{[]string{keyDown, "j"}, "one line down", "", func(m *Model) { m.read(m.viewer.move(1)) }},
		{[]string{keyPgUp, "b"}, "a page up", "", func(m *Model) { m.read(m.viewer.move(-m.viewer.height)) }},
		{[]string{keyPgDn, " "}, "a page down", "page", func(m *Model) { m.read(m.viewer.move(m.viewer.height)) }},
		{[]string{keyHome, "g"}, "to the beginning", "", func(m *Model) { m.read(m.viewer.seek(false)) }},
		{[]string{keyEnd, "G"}, "to the end", "end", func(m *Model) { m.read(m.viewer.seek(true)) }},
		{[]string{keyLeft, "h"}, "to the left", "", func(m *Model) { m.viewer.shift = max(0, m.viewer.shift-8) }},
		{[]string{keyRight, "l"}, "to the right", "", func(m *Model) { m.viewer.shift = min(maxLine, m.viewer.shift+8) }},
		{[]string{"x"}, "bytes in hex, or text", "hex", func(m *Model) { m.viewer.toggleHex() }},
		{[]string{"v"}, "read it in $PAGER", "pager", func(m *Model) { m.pageFile(m.viewer.node) }},
		{[]string{"Ctrl-C"}, "leave", "", func(m *Model) { m.quit = true }},
		{[]string{"Ctrl-Z"}, "stop, until fg", "", func(m *Model) { m.outside.Stop() }},
	}}
}

// popupKeys are those of what is before everything else.
func popupKeys() Keys {
	return Keys{"help, and all about a file", []Key{
		{[]string{"q", keyEsc, "?"}, "back", "back", func(m *Model) { m.popup = nil }},
		{[]string{keyUp, "k"}, "one up", "", func(m *Model) { m.popup.move(-1) }},
		{[]string{keyDown, "j"}, "one down", "", func(m *Model) { m.popup.move(1) }},
		{[]string{keyPgUp}, "a page up", "", func(m *Model) { m.popup.move(-m.popup.height) }},
		{[]string{keyPgDn, " "}, "a page down", "", func(m *Model) { m.popup.move(m.popup.height) }},
		{[]string{keyEnter}, "open the file as the layer of the line has it", "open", func(m *Model) { m.openVersion() }},
		{[]string{"Ctrl-C"}, "leave", "", func(m *Model) { m.quit = true }},
		{[]string{"Ctrl-Z"}, "stop, until fg", "", func(m *Model) { m.outside.Stop() }},
	}}
}

// place returns the keys that there are now.
func (m *Model) place() Keys {
	switch {
	case m.popup != nil:
		return popupKeys()
	case m.viewer != nil:
		return viewerKeys()
	}
	return listKeys()
}

// Key does what a key is for, when the screen has what it is for. Its name is the
// character, or one of Keys.
func (m *Model) Key(key string) {
	defer m.sortLate()
	if m.waits(key) {
		m.wait(key, func() { m.do(key) })
		return
	}
	m.do(key)
}

// do does what a key is for.
func (m *Model) do(key string) {
	m.notice, m.failed = "", false
	if p := m.prompt; p != nil {
		if over, entered := p.key(key); over {
			m.prompt = nil
			if entered {
				p.done(string(p.text))
			}
		}
		return
	}
	for _, k := range m.place().Keys {
		for _, name := range k.Keys {
			if name == key {
				k.do(m)
				return
			}
		}
	}
}

// Paste types text, if there is a prompt.
func (m *Model) Paste(text string) {
	if len(m.ahead) > 0 {
		m.wait("", func() { m.paste(text) })
		return
	}
	m.paste(text)
}

func (m *Model) paste(text string) {
	if m.prompt != nil {
		for _, r := range text {
			m.prompt.key(string(r))
		}
	}
}

// page is how many rows a page has.
func (m *Model) page() int {
	if m.inTree {
		return max(1, m.files.height-1)
	}
	return max(1, m.panes.layers.h-1)
}

// moveBy moves the cursor of the pane.
func (m *Model) moveBy(n int) {
	if m.inTree {
		m.files.move(n)
	} else {
		m.chooseLayer(m.layer + n)
	}
}

func (m *Model) enterDir() {
	if !m.inTree {
		m.inTree = true
		return
	}
	if !m.files.toggle(true) {
		m.files.move(1)
	}
}

func (m *Model) leaveDir() {
	switch {
	case !m.inTree:
	case m.files.toggle(false):
	case m.files.depth() > 0:
		m.files.up()
	default:
		m.inTree = false
	}
}

func (m *Model) enter() {
	if !m.inTree {
		m.inTree = true
		m.show(viewLayer)
		return
	}
	id, ok := m.files.current()
	if !ok || m.files.toggle(true) || m.files.toggle(false) {
		return
	}
	if n, ok := m.files.source.file(id); ok {
		m.open(m.files.path(), n)
	}
}

func (m *Model) toggleLayer() {
	if m.view == viewLayer {
		m.show(viewImage)
	} else {
		m.show(viewLayer)
	}
}

// toggleView shows something, or if that is shown all of the image.
func (m *Model) toggleView(v view) {
	if m.view == v {
		v = viewImage
	}
	m.show(v)
}

func (m *Model) toggleFilter() {
	switch m.view {
	case viewImage:
		m.only[0] = !m.only[0]
	case viewLayer:
		m.only[1] = !m.only[1]
	default:
		m.say("only what has changed is here")
		return
	}
	m.show(m.view)
}

func (m *Model) toggleSort() {
	if m.files.source != nil {
		m.files.sort(!m.files.bySize)
	}
}

func (m *Model) toggleDiff() {
	switch {
	case m.view == viewDiff:
		m.show(viewImage)
	case m.other != nil:
		m.show(viewDiff)
	default:
		m.prompt = &prompt{label: "compare with image", done: func(name string) {
			if name = strings.TrimSpace(name); name != "" {
				m.compare(name)
			}
		}}
	}
}

func (m *Model) askSearch() {
	m.prompt = &prompt{label: "search", done: func(query string) {
		m.next("n", func() { m.search(query) })
	}}
}

// currentFile returns the file of the cursor, and the image that it is of.
func (m *Model) currentFile() (img *Image, name string, n fs.Node, ok bool) {
	id, ok := m.files.current()
	if ok {
		n, ok = m.files.source.file(id)
	}
	if !ok {
		m.say("there is no file")
		return nil, "", fs.Node{}, false
	}
	img = m.image
	if d, is := m.files.source.(*diffTree); is && d.rows[id].new == n {
		img = m.other
	}
	return img, m.files.path(), n, true
}

func (m *Model) askSave() {
	img, name, n, ok := m.currentFile()
	if !ok {
		return
	}
	m.prompt = &prompt{label: "save as", text: []byte("./" + path.Base(name)), done: func(to string) {
		if to != "" {
			m.save(img, name, n, to)
		}
	}}
}

func (m *Model) pageCurrent() {
	if _, _, n, ok := m.currentFile(); ok {
		m.pageFile(n)
	}
}

// pageFile shows a file in the user's pager.
func (m *Model) pageFile(n fs.Node) {
	if n.Mode()&modeType != modeRegular {
		m.say("it is no file that could be opened")
		return
	}
	if err := m.outside.Page(n); err != nil {
		m.fail(err)
	}
}

// escape ends what is being done, the last thing first, and forgets what waits for it.
func (m *Model) escape() {
	if len(m.ahead) > 0 {
		m.ahead = nil
		m.say("what was typed is forgotten")
	}
	for i := len(m.tasks) - 1; i >= 0; i-- {
		if t := m.tasks[i]; t.name != taskOpen {
			m.end(t.name)
			m.say("ended")
			return
		}
	}
}

func (m *Model) closeViewer() {
	m.ahead = nil
	if m.end(taskRead) && len(m.viewer.window) > 0 {
		m.say("ended")
		return
	}
	m.viewer = nil
}

// Click does what a click of the mouse is for.
func (m *Model) Click(x, y int) {
	m.notice = ""
	defer m.sortLate()
	switch {
	case m.prompt != nil || m.popup != nil || m.viewer != nil:
	case m.panes.layers.has(x, y):
		m.inTree = false
		m.chooseLayer(m.top + y - m.panes.layers.y)
	case m.panes.tree.has(x, y):
		at := m.files.top + y - m.panes.tree.y
		again := m.inTree && at == m.files.cursor
		m.inTree = true
		if at < len(m.files.rows) {
			if m.files.move(at - m.files.cursor); again {
				m.enter()
			}
		}
	}
}

// Wheel does what the wheel of the mouse is for.
func (m *Model) Wheel(x, y, by int) {
	switch {
	case m.prompt != nil:
	case m.popup != nil:
		m.popup.move(by)
	case m.viewer != nil:
		m.read(m.viewer.move(by))
	case m.panes.layers.has(x, y):
		m.top = max(0, min(m.top+by, len(m.layers)-m.panes.layers.h))
	default:
		m.files.wheel(by)
	}
}
