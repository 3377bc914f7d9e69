package explore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/remote/printable"
)

// A Layer is what is known of a layer before it is read.
type Layer struct {
	Digest  string
	Size    int64  // of the blob
	Command string // of the step that made it; harmless
}

// An Image is one that is open as a tree.
type Image struct {
	Name   string
	Tree   *fs.Tree
	Survey *fs.Survey // nil of the image that another one is compared with
	// Owners returns functions for the names of users and groups, "" for none. Files of the
	// image have them.
	Owners func(ctx context.Context) (user, group func(id uint32) string)
	// Same are how the contents of another image are compared with this one's.
	Same func(other *Image) *treediff.Options
}

// Config is what a Model needs of the program. Its functions are called in the background.
type Config struct {
	Name string // of the image, as it was typed
	// Resolve returns the layers of the image, and Open opens it. progress is told what
	// is being done.
	Resolve func(ctx context.Context) ([]Layer, error)
	Open    func(ctx context.Context, progress func(string)) (*Image, error)
	// Other opens another image, to be compared.
	Other func(ctx context.Context, name string, progress func(string)) (*Image, error)
	// Save copies what is at a path to a destination on this machine.
	Save func(ctx context.Context, img *Image, path string, n fs.Node, to string, progress func(done int64)) error
	// Rest is called now and then while a million paths are gone through.
	Rest func()
	// Describe returns the text of an error.
	Describe func(error) string
	// With is another image to begin with, "" for none.
	With string
	// Colour says that the terminal has colours, and the user wants them.
	Colour bool
}

// A view is what the pane on the right shows.
type view int

const (
	viewImage view = iota // all of it
	viewLayer             // the layer, and what it changed
	viewWaste
	viewDiff
)

// An Outside is what only a terminal can do.
type Outside interface {
	// Page shows a file in the user's pager, and returns when that has ended.
	Page(n fs.Node) error
	// Stop stops the process, as Ctrl-Z does.
	Stop()
	// Redraw draws all of the screen anew.
	Redraw()
}

// A Model is what is on the screen.
type Model struct {
	config  Config
	styles  styles
	outside Outside
	ctx     context.Context
	spawn   func(do func())
	post    func(do func())

	layers []Layer
	image  *Image
	index  *pathIndex
	other  *Image

	inTree bool // which pane has the keys
	layer  int  // of the cursor
	top    int  // the first layer that is shown
	view   view
	only   [2]bool // whether unchanged paths are left out: of the image, of a layer
	files  list
	found  *matches

	notice string
	failed bool // the notice is an error
	tasks  []*task
	prompt *prompt
	viewer *viewer
	popup  *popup
	ahead  []ahead // in the order of typing
	quit   bool
	err    error // why it ends

	width, height int
	panes         panes
}

// NewModel returns a model of what config says. spawn runs something in another goroutine,
// and post has the model's goroutine do something. What is done in the background ends
// with ctx.
func NewModel(ctx context.Context, config Config, outside Outside, spawn, post func(do func())) *Model {
	m := &Model{config: config, styles: newStyles(config.Colour), outside: outside, ctx: ctx, spawn: spawn, post: post}
	m.only[1] = true
	m.files.bySize = true
	return m
}

// Over reports whether the user has left, or the image cannot be shown, which is err.
func (m *Model) Over() (over bool, err error) { return m.quit, m.err }

// A task is something that is done in the background.
type task struct {
	name   string
	cancel context.CancelFunc
	text   string // what is shown of it
}

// start does something in the background, in place of what has the same name. The
// function that it returns is called in the model's goroutine, unless there was an error,
// or the task has been ended.
func (m *Model) start(name, text string, do func(ctx context.Context, progress func(string)) (then func(), err error)) {
	m.end(name)
	ctx, cancel := context.WithCancel(m.ctx)
	t := &task{name, cancel, text}
	m.tasks = append(m.tasks, t)
	progress := func(text string) {
		m.post(func() { t.text = text })
	}
	m.spawn(func() {
		then, err := do(ctx, progress)
		m.post(func() {
			defer cancel()
			i := slices.Index(m.tasks, t)
			if i < 0 {
				return // it was ended
			}
			m.tasks = slices.Delete(m.tasks, i, i+1)
			switch {
			case err != nil && name == taskOpen:
				m.quit, m.err = true, err
			case err != nil:
				m.fail(err)
			case then != nil:
				then()
			}
			m.catchUp()
			m.sortLate()
		})
	})
}

// Names of tasks.
const (
	taskOpen   = "open" // what cannot go on without ends the program
	taskTree   = "tree"
	taskOther  = "other"
	taskRead   = "read"
	taskSearch = "search"
	taskSave   = "save"
	taskSort   = "sort"
	// taskDetails is for what is shown of a file.
	taskDetails = "details"
)

// end ends a task, if there is one of the name.
func (m *Model) end(name string) bool {
	i := slices.IndexFunc(m.tasks, func(t *task) bool { return t.name == name })
	if i < 0 {
		return false
	}
	m.tasks[i].cancel()
	m.tasks = slices.Delete(m.tasks, i, i+1)
	return true
}

// does reports whether a task is running.
func (m *Model) does(name string) bool {
	return slices.ContainsFunc(m.tasks, func(t *task) bool { return t.name == name })
}

// say shows a message until the next key.
func (m *Model) say(format string, args ...any) {
	m.notice, m.failed = fmt.Sprintf(format, args...), false
}

// fail shows an error until the next key.
func (m *Model) fail(err error) {
	m.notice, m.failed = m.config.Describe(err), true
}

// Warn shows a message that is not as it should be. It is called in the model's goroutine.
func (m *Model) Warn(text string) { m.notice, m.failed = text, true }

// Start begins to open the image.
func (m *Model) Start() {
	m.start(taskOpen, "looking for "+printable.Line(m.config.Name), func(ctx context.Context, progress func(string)) (func(), error) {
		layers, err := m.config.Resolve(ctx)
		if err != nil {
			return nil, err
		}
		m.post(func() {
			m.layers, m.layer = layers, max(0, len(layers)-1)
			m.showLayer()
			m.catchUp()
		})
		img, err := m.config.Open(ctx, progress)
		if err != nil {
			return nil, err
		}
		progress("sorting " + show.Count(img.Survey.NumPaths(), "path"))
		index, err := newPathIndex(ctx, img.Survey, m.config.Rest)
		if err != nil {
			return nil, err
		}
		tree, err := newPathTree(ctx, index, max(0, len(layers)-1), true, false)
		return func() {
			m.image, m.index = img, index
			m.notice = ""
			m.files.set(tree, "")
			if m.config.With != "" {
				m.compare(m.config.With)
			} else if m.view != viewImage || m.only[0] { // asked for meanwhile
				m.show(m.view)
			}
		}, err
	})
}

// show changes what the pane on the right shows. The cursor stays on its path, if that is
// there.
func (m *Model) show(v view) {
	m.view, m.found = v, nil
	if m.image == nil {
		m.say("it is shown when the tree is there")
		return
	}
	path, layer, only := m.files.path(), m.layer, m.only[0]
	if v == viewImage {
		layer = len(m.layers) - 1
	} else {
		only = m.only[1]
	}
	m.start(taskTree, "computing sizes", func(ctx context.Context, _ func(string)) (func(), error) {
		var s source
		var err error
		switch v {
		case viewWaste:
			s, err = newWasteList(ctx, m.image.Survey, m.config.Rest)
		case viewDiff:
			s, err = newDiffTree(ctx, m.image.Tree, m.other.Tree, m.image.Same(m.other))
		default:
			s, err = newPathTree(ctx, m.index, max(0, layer), v == viewImage, only)
		}
		return func() { m.files.set(s, path) }, err
	})
}

// compare shows what another image has that this one has not.
func (m *Model) compare(name string) {
	if m.other != nil && m.other.Name == name {
		m.show(viewDiff)
		return
	}
	m.start(taskOther, "looking for "+printable.Line(name), func(ctx context.Context, progress func(string)) (func(), error) {
		img, err := m.config.Other(ctx, name, progress)
		if err != nil {
			return nil, err
		}
		img.Name = name
		return func() {
			m.other = img
			m.show(viewDiff)
		}, nil
	})
}

// chooseLayer moves the cursor to another layer.
func (m *Model) chooseLayer(to int) {
	to = max(0, min(to, len(m.layers)-1))
	if to == m.layer {
		return
	}
	m.layer = to
	m.showLayer()
	if m.view == viewLayer {
		m.show(viewLayer)
	}
}

// open shows a file in the viewer.
func (m *Model) open(title string, n fs.Node) {
	if n.Mode()&syscall.S_IFMT != syscall.S_IFREG {
		m.say("it is no file that could be opened")
		return
	}
	m.viewer = newViewer(title, n)
	if m.viewer.size > 0 {
		m.read(&viewRead{0, min(m.viewer.size, viewWindow)})
	}
}

// read reads a piece of the file that is shown.
func (m *Model) read(r *viewRead) {
	if r == nil {
		return
	}
	v := m.viewer
	m.start(taskRead, "fetching", func(ctx context.Context, _ func(string)) (func(), error) {
		buf, err := v.read(ctx, *r)
		return func() { v.got(*r, buf) }, err
	})
}

// search looks for rows.
func (m *Model) search(query string) {
	s := m.files.source
	if s == nil || query == "" {
		return
	}
	from, _ := m.files.current()
	m.start(taskSearch, "searching", func(ctx context.Context, _ func(string)) (func(), error) {
		found := search(s, query, from, func() bool {
			m.config.Rest()
			return ctx.Err() != nil
		})
		return func() {
			if m.files.source == s {
				m.found = found
				m.inTree = true
				m.nextMatch(0)
			}
		}, ctx.Err()
	})
}

// nextMatch goes on by so many matches.
func (m *Model) nextMatch(by int) {
	f := m.found
	switch {
	case f == nil:
		m.say("nothing has been looked for: / does")
		return
	case len(f.ids) == 0:
		m.notice, m.failed = "no name has "+printable.Line(f.query), true
		return
	}
	n := len(f.ids)
	f.next = ((f.next+by)%n + n) % n
	m.files.reveal(f.ids[f.next])
	more := ""
	if !f.all {
		more = ", and there are more"
	}
	m.say("%d of %s%s", f.next+1, matchCount(n), more)
}

// sortLate sorts what the list has shown by name because there is so much of it.
func (m *Model) sortLate() {
	l := &m.files
	if len(l.unsorted) == 0 || m.does(taskSort) {
		return
	}
	s, all := l.source, slices.Collect(maps.Keys(l.unsorted))
	m.start(taskSort, "sorting by size", func(ctx context.Context, _ func(string)) (func(), error) {
		sorted := make(map[int32][]int32)
		for _, id := range all {
			if ctx.Err() == nil {
				sorted[id] = s.children(id, true)
			}
		}
		return func() {
			if l.source == s {
				maps.Copy(l.sorted, sorted)
				l.sort(l.bySize)
			}
		}, ctx.Err()
	})
	clear(l.unsorted)
}

// save copies a file or directory to this machine.
func (m *Model) save(img *Image, path string, n fs.Node, to string) {
	m.start(taskSave, "saving", func(ctx context.Context, progress func(string)) (func(), error) {
		done := int64(0)
		err := m.config.Save(ctx, img, path, n, to, func(n int64) {
			done += n
			progress("saving: " + size(done))
		})
		return func() { m.say("saved as %s", printable.Line(to)) }, err
	})
}

// size writes a number of bytes in at most eight columns.
func size(n int64) string { return show.Bytes(n) }

// matchCount writes how many matches there are.
func matchCount(n int) string {
	if n == 1 {
		return "1 match"
	}
	return fmt.Sprintf("%d matches", n)
}
