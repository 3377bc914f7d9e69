package explore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/opencontainers/go-digest"
)

// A grid is a Canvas of one character a column.
type grid struct {
	w, h  int
	cells []rune
}

func (g *grid) Size() (int, int)    { return g.w, g.h }
func (g *grid) ShowCursor(int, int) {}
func (g *grid) HideCursor()         {}

func (g *grid) Put(x, y int, text string, _ tcell.Style) (string, int) {
	r := []rune(text)
	if x >= 0 && x < g.w && y >= 0 && y < g.h {
		g.cells[y*g.w+x] = r[0]
	}
	return string(r[1:]), 1
}

func (g *grid) FillArea(x, y, w, h int, r rune, s tcell.Style) {
	for i := range w * h {
		g.Put(x+i%w, y+i/w, string(r), s)
	}
}

// drawn returns what a model draws.
func drawn(m *Model, w, h int) string {
	g := &grid{w, h, slices.Repeat([]rune{' '}, w*h)}
	m.Draw(g)
	var b strings.Builder
	for y := range h {
		b.WriteString(strings.TrimRight(string(g.cells[y*w:(y+1)*w]), " ") + "\n")
	}
	return b.String()
}

// content are files that hold their own layer's number.
type content struct{ err error }

func (c content) ReadFileAt(_ context.Context, n fs.Node, p []byte, off int64) (int, error) {
	for i := range p {
		if p[i] = 'a' + byte(n.Layer()); (off+int64(i))%10 == 9 {
			p[i] = '\n'
		}
	}
	return len(p), c.err
}
func (content) ReadHeldAt(fs.Node, []byte, int64) bool                   { return false }
func (content) FileDigest(fs.Node) (d digest.Digest, ok bool, err error) { return }

func file(name string, size int64) layerindex.Entry {
	return layerindex.Entry{Name: name, Type: layerindex.TypeReg, Mode: 0o644, Size: size}
}

func link(name, target string) layerindex.Entry {
	return layerindex.Entry{Name: name, Type: layerindex.TypeLink, Linkname: target}
}

// imageOf merges layers.
func imageOf(t *testing.T, c content, layers ...[]layerindex.Entry) *Image {
	t.Helper()
	b, err := fs.NewBuilder(t.Context(), &fs.BuilderOptions{Survey: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if err := b.Apply(fs.Layer{Name: "layer", Entries: func(yield func(*layerindex.Entry) bool) {
			for i := range l {
				if !yield(&l[i]) {
					return
				}
			}
		}, Content: c}); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := b.Tree()
	if err != nil {
		t.Fatal(err)
	}
	return &Image{
		Name: "image", Tree: tree, Survey: b.Survey(), Same: func(*Image) *treediff.Options { return nil },
		Owners: func(context.Context) (user, group func(uint32) string) {
			none := func(uint32) string { return "" }
			return none, none
		},
	}
}

// noTerminal is the Outside of a model that has none.
type noTerminal struct{ paged int }

func (o *noTerminal) Page(fs.Node) error { o.paged++; return errors.New("no pager here") }
func (*noTerminal) Stop()                {}
func (*noTerminal) Redraw()              {}

// modelOf returns a model of an image that does everything at once.
func modelOf(t *testing.T, img, other *Image) *Model {
	t.Helper()
	layers := make([]Layer, len(img.Survey.Layers()))
	for i := range layers {
		layers[i] = Layer{Digest: "sha256:0", Size: int64(i + 1), Command: "RUN true"}
	}
	var posted []func()
	busy := false
	post := func(do func()) {
		if posted = append(posted, do); busy {
			return
		}
		busy = true
		for len(posted) > 0 {
			next := posted[0]
			posted = posted[1:]
			next()
		}
		busy = false
	}
	m := NewModel(t.Context(), Config{
		Name: "image", Rest: func() {}, Describe: error.Error,
		Resolve: func(context.Context) ([]Layer, error) { return layers, nil },
		Open:    func(context.Context, func(string)) (*Image, error) { return img, nil },
		Other: func(_ context.Context, name string, _ func(string)) (*Image, error) {
			if other == nil {
				return nil, errors.New("no such image: " + name)
			}
			return other, nil
		},
		Save: func(context.Context, *Image, string, fs.Node, string, func(int64)) error { return syscall.ENOSPC },
	}, &noTerminal{}, func(do func()) { do() }, post)
	m.Start()
	if over, err := m.Over(); over || err != nil {
		t.Fatal(err)
	}
	return m
}

func layered(t *testing.T) *Image {
	return imageOf(t, content{}, []layerindex.Entry{file("a/one", 100), link("b/two", "a/one"), file("b/x\x1b[0m", 7), file("gone", 40)},
		[]layerindex.Entry{file(".wh.gone", 0), file("a/new", 5)})
}

// TestModelKeys presses every key at every place, on screens of all sizes.
func TestModelKeys(t *testing.T) {
	for _, size := range [][2]int{{66, 14}, {24, 6}, {1, 1}} {
		for _, place := range [][]string{{}, {"Tab"}, {"Tab", "End", "Enter"}, {"?"}, {"Tab", "i"}, {"w", "Tab"}, {"w", "Tab", "Enter"}, {"t", "Tab"}} {
			for _, keys := range AllKeys() {
				for _, k := range keys.Keys {
					for _, key := range k.Keys {
						m := modelOf(t, layered(t), layered(t))
						drawn(m, size[0], size[1])
						for _, p := range append(slices.Clone(place), key, key, "x", "Enter") {
							m.Key(p)
							if text := drawn(m, size[0], size[1]); strings.Contains(text, "\x1b") {
								t.Fatalf("%q: %q", key, text)
							}
						}
						m.Click(1, 1)
						m.Wheel(size[0]-1, 1, 3)
						drawn(m, size[0], size[1])
					}
				}
			}
		}
	}
}

// TestSums adds up directories, hard links once in each.
func TestSums(t *testing.T) {
	m := modelOf(t, layered(t), nil)
	text := drawn(m, 80, 24)
	for _, want := range []string{"112 B in 6 inodes", "105 B   1 + a/", "107 B   1 + b/"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q:\n%s", want, text)
		}
	}
	m.Key("t")
	if text := drawn(m, 80, 24); !strings.Contains(text, "D      40 B   2   gone") || !strings.Contains(text, "5 B   1 + a/") {
		t.Errorf("the layer is\n%s", text)
	}
}

// TestModelErrors shows what goes wrong, and goes on.
func TestModelErrors(t *testing.T) {
	img := imageOf(t, content{err: errors.New("the registry is gone")}, []layerindex.Entry{file("f", 10)})
	m := modelOf(t, img, nil)
	see := func(want string) {
		t.Helper()
		if text := drawn(m, 80, 24); !strings.Contains(text, want) {
			t.Errorf("there is no %q:\n%s", want, text)
		}
	}
	for _, key := range []string{"Tab", "Enter"} {
		m.Key(key)
	}
	see("the registry is gone")
	m.Key("q")
	m.Key("v")
	see("no pager here")
	for _, key := range []string{"s", "Enter"} {
		m.Key(key)
	}
	see("no space left on device")
	for _, key := range []string{"d", "y", "Enter"} {
		m.Key(key)
	}
	see("no such image: y")
	m.Key("/")
	m.Paste("nothing\n")
	m.Key("Enter")
	see("no name has")
}

// TestViewer goes through a file that is larger than what a viewer holds, and compares
// lines with those of the file.
func TestViewer(t *testing.T) {
	img := imageOf(t, content{}, []layerindex.Entry{file("f", 3<<20+5)})
	m := modelOf(t, img, nil)
	m.Key("Tab")
	m.Key("Enter")
	drawn(m, 80, 24)
	begun := time.Now()
	for _, key := range []string{"End", "Home"} {
		m.Key(key)
	}
	for n := int64(0); n < 30000; n += 21 {
		if m.viewer.top != n*10 {
			t.Fatalf("line %d begins at %d", n, m.viewer.top)
		}
		m.Key("PgDn")
	}
	m.Key("End")
	if end := m.viewer.next(m.viewer.size / 10 * 10); end != m.viewer.size || len(m.viewer.window) > viewWindow {
		t.Errorf("the end is %d, %d bytes are held", end, len(m.viewer.window))
	}
	for range 30000 {
		m.Key("PgUp")
	}
	if m.viewer.top != 0 {
		t.Errorf("the first line begins at %d", m.viewer.top)
	}
	t.Log(time.Since(begun))
}

// TestFolded compares with what package strings does.
func TestFolded(t *testing.T) {
	for _, c := range []struct {
		text, name string
		want       bool
	}{{"ReadMe", "xREADME.txt", true}, {"b", "a", false}, {"", "a", true}, {"\u00c4", "x\u00e4", true}, {"aab", "aaab", true}} {
		f := newFolded(c.text)
		if got := f.in([]byte(c.name)); got != c.want {
			t.Errorf("%q in %q: got %v, want %v", c.text, c.name, got, c.want)
		}
	}
}
