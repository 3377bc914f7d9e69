package explore

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// A later has what a model would do in the background, until it is told to.
type later []func()

// do does all.
func (l *later) do() {
	for len(*l) > 0 {
		next := (*l)[0]
		*l = (*l)[1:]
		next()
	}
}

// laterModel returns a model whose background waits.
func laterModel(t *testing.T, img *Image) (*Model, *later) {
	work := &later{}
	add := func(do func()) { *work = append(*work, do) }
	m := NewModel(t.Context(), Config{
		Name: "image", Rest: func() {}, Describe: error.Error,
		Resolve: func(context.Context) ([]Layer, error) { return make([]Layer, len(img.Survey.Layers())), nil },
		Open:    func(context.Context, func(string)) (*Image, error) { return img, nil },
	}, &noTerminal{}, add, add)
	m.Start()
	return m, work
}

// TestAskedEarly presses keys while the tree is not there, which then does what they say.
func TestAskedEarly(t *testing.T) {
	for _, c := range []struct{ keys, want string }{
		{"Enter", "what layer 2 changed"}, {"t", "what layer 2 changed"}, {"t t", "all of the image"}, {"w", "wasted files"}, {"f", "changed above the base"}, {"d", "all of the image"},
	} {
		m, work := laterModel(t, layered(t))
		first := (*work)[0]
		*work = (*work)[1:]
		m.layers, m.layer = make([]Layer, 2), 1
		for key := range strings.SplitSeq(c.keys, " ") {
			m.Key(key)
		}
		*work = append(*work, first)
		work.do()
		if text := drawn(m, 100, 24); !strings.Contains(text, c.want) {
			t.Errorf("%s: there is no %q:\n%s", c.keys, c.want, text)
		}
	}
}

// TestTypedAhead types many keys at once. In the end the screen is the one that they make one
// by one, each when all of the one before has been done.
func TestTypedAhead(t *testing.T) {
	for _, keys := range []string{
		"/ n e w Enter", "/ n e w Enter Enter", "/ n e w Enter Enter End", "/ n e w Enter i", "/ x Enter n", "/ o n e Enter N", "/ a Enter n n Enter Enter",
		"/ n e w Enter Tab", "/ n e w Enter / t w o Enter", "/ n o Enter h o", "Tab End Enter", "Tab Down Down l j i", "Tab End i k Enter PgDn", "o", "n", "c", "o t",
		"t Tab Down i", "t / n e w Enter", "t Tab Down t Down", "w Tab Down i", "w / g o n e Enter Enter x", "s Ctrl-U x q / Enter", "d", "d y q Enter", "f / o n e Enter c", "[ Enter j i", "? j", "Tab ? q i",
	} {
		screen := func(between func(*later)) string {
			m, work := laterModel(t, layered(t))
			m.config.Save = func(context.Context, *Image, string, fs.Node, string, func(int64)) error { return nil }
			m.config.Other = func(context.Context, string, func(string)) (*Image, error) { return layered(t), nil }
			between(work)
			for key := range strings.SplitSeq(keys, " ") {
				m.Key(key)
				between(work)
			}
			work.do()
			return drawn(m, 100, 24)
		}
		want := screen((*later).do)
		if got := screen(func(*later) {}); got != want {
			t.Errorf("%s: typed at once the screen is\n%s\nand one by one\n%s", keys, got, want)
		}
	}
}

// TestTypedAheadForgotten has Esc forget what waits.
func TestTypedAheadForgotten(t *testing.T) {
	m, work := laterModel(t, layered(t))
	for _, key := range []string{"/", "x", "Enter", "Tab", "Enter"} {
		m.Key(key)
	}
	if text := drawn(m, 100, 24); !strings.Contains(text, "what was typed waits") {
		t.Errorf("nothing is said of it:\n%s", text)
	}
	for range 2 * mostAhead {
		m.Key("j")
	}
	if len(m.ahead) != mostAhead {
		t.Errorf("%d keys wait", len(m.ahead))
	}
	m.Key("Esc")
	if text := drawn(m, 100, 24); !strings.Contains(text, "forgotten") {
		t.Errorf("nothing is said of it:\n%s", text)
	}
	work.do()
	if text := drawn(m, 100, 24); !strings.Contains(text, "all of the image") || m.inTree || m.found != nil {
		t.Errorf("something was done:\n%s", text)
	}
}

// TestLargeDirectory has a directory sorted in the background.
func TestLargeDirectory(t *testing.T) {
	entries := []layerindex.Entry{file("large/a", 1), file("small/b", 3)}
	for i := range sortNow {
		entries = append(entries, file(fmt.Sprintf("large/n%06d", i), int64(i)))
	}
	m, work := laterModel(t, imageOf(t, content{}, entries))
	work.do()
	order := func() string {
		first, last := m.files.rows[1].id, m.files.rows[len(m.files.rows)-2].id
		return m.files.source.name(first) + " " + m.files.source.name(last)
	}
	see := func(what, want string) {
		t.Helper()
		if got := order(); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	m.Key("Tab")
	m.Key("l")
	see("opened", "a n019999")
	m.Key("j")
	work.do()
	see("sorted", "n019999 n000000")
	if got := m.files.path(); got != "/large/a" {
		t.Errorf("the cursor is on %s", got)
	}
	m.Key("o")
	see("by name", "a n019999")
	m.Key("o")
	see("by size once more", "n019999 n000000")
	m.Key("t")
	work.do()
	see("another tree", "n019999 n000000")
	m.Key("h")
	m.Key("h")
	m.Key("l")
	m.Key("Esc")
	work.do()
	see("ended", "n019999 n000000")
}
