package show

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// A console keeps what is shown and said.
type console struct {
	display *display // nil: none
	said    []string
}

func (c *console) Display() Display {
	if c.display == nil {
		return nil
	}
	return c.display
}

func (c *console) Warnf(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}

type display struct {
	mu     sync.Mutex
	shown  []Progress
	closed int
}

func (d *display) Show(p Progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = append(d.shown, p)
}

func (d *display) Close() { d.closed++ }

// all returns what was shown.
func (d *display) all() []Progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.shown)
}

func (d *display) last() Progress {
	all := d.all()
	return all[len(all)-1]
}

// layersOf are layers of different digests.
func layersOf(sizes ...int64) []Layer {
	all := make([]Layer, len(sizes))
	for i, n := range sizes {
		all[i] = Layer{digest.FromString(fmt.Sprint(i)), n}
	}
	return all
}

// TestLayers has layers that were there before, one that the image has twice, and
// one that is read again from its beginning.
func TestLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &console{display: &display{}}
		layers := layersOf(1000, 5_000_000, 3_000_000, 70)
		layers = append(layers, layers[1])
		p := NewLayers(c, layers)
		p.Update(LayerUpdate{Layer: 0, Done: true})
		time.Sleep(time.Second)
		if shown := c.display.all(); len(shown) > 0 {
			t.Errorf("nothing is read, and there is shown %+v", shown)
		}
		begun := time.Now()
		for i := range 40 {
			p.Update(LayerUpdate{Layer: 1, Read: int64(i) * 100_000})
			time.Sleep(100 * time.Millisecond)
		}
		last := c.display.last()
		if first := c.display.all()[0]; first.Rate != 0 || first.Left != 0 {
			t.Errorf("after a moment a rate is known: %+v", first)
		}
		if math.Abs(last.Rate-1e6) > 1e5 || math.Abs(last.Left-4.1) > .6 {
			t.Errorf("at 1 MB a second, 4 of 8 MB to go: %+v", last)
		}
		if last.Done != 1 || last.Of != 5 || last.All != 8_001_070 || math.Abs(float64(last.Have)-3_901_000) > 200_000 || len(last.Parts) != 1 || !strings.HasPrefix(last.Parts[0].Label, "layer 2/5 ") {
			t.Errorf("got %+v", last)
		}
		p.Update(LayerUpdate{Layer: 1, Read: 0}) // from elsewhere
		p.Update(LayerUpdate{Layer: 2, Read: 2_000_000})
		time.Sleep(200 * time.Millisecond)
		if s := c.display.last(); s.Have != 2_001_000 || len(s.Parts) != 2 {
			t.Errorf("one layer is read again: %+v", s)
		}
		for i := range layers {
			if i > 0 {
				p.Update(LayerUpdate{Layer: i, Done: true})
			}
		}
		p.Update(LayerUpdate{Layer: 1, Read: 10})
		time.Sleep(200 * time.Millisecond)
		if s := c.display.last(); s.Done != 5 || s.Have != s.All || len(s.Parts) != 0 {
			t.Errorf("all are ready: %+v", s)
		}
		p.Finish(true)
		want := fmt.Sprintf("[indexed 2 layers, 8.0 MB in %.1f s]", time.Since(begun).Seconds())
		if fmt.Sprint(c.said) != want || c.display.closed != 1 {
			t.Errorf("said %q, want %s; closed %d times", c.said, want, c.display.closed)
		}
	})
}

// TestLayersIndex has indexes that others made: one that is read by, one after which the
// layer is read, and one that came too late.
func TestLayersIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &console{display: &display{}}
		p := NewLayers(c, layersOf(9_000_000, 5_000_000, 70))
		p.Update(LayerUpdate{Layer: 0, Index: true})
		time.Sleep(time.Second)
		if shown := c.display.all(); len(shown) > 0 {
			t.Errorf("nothing has come, and there is shown %+v", shown)
		}
		p.Update(LayerUpdate{Layer: 0, Index: true, Read: 1_200_000})
		p.Update(LayerUpdate{Layer: 1, Index: true, Read: 300_000})
		time.Sleep(300 * time.Millisecond)
		s := c.display.last()
		label := "layer 1/3 " + ShortDigest(digest.FromString("0")) + " index"
		if s.Have != 0 || len(s.Parts) != 2 || s.Parts[0] != (Part{Label: label, Have: 1_200_000}) {
			t.Errorf("two indexes come: %+v", s)
		}
		if got, want := layOut(&s, 80, 20)[0], label+" 1.2 MB"; got != want {
			t.Errorf("got line %q, want %q", got, want)
		}
		p.Update(LayerUpdate{Layer: 0, Done: true})
		p.Update(LayerUpdate{Layer: 1, Read: 2_000_000})
		p.Update(LayerUpdate{Layer: 1, Index: true, Read: 400_000})
		time.Sleep(300 * time.Millisecond)
		if s := c.display.last(); s.Done != 1 || s.Have != 11_000_000 || len(s.Parts) != 1 || s.Parts[0].Have != 2_000_000 || s.Parts[0].All != 5_000_000 {
			t.Errorf("the second layer is read: %+v", s)
		}
		p.Update(LayerUpdate{Layer: 1, Done: true})
		p.Update(LayerUpdate{Layer: 2, Done: true})
		p.Update(LayerUpdate{Layer: 2, Index: true, Read: 10})
		time.Sleep(300 * time.Millisecond)
		if s := c.display.last(); s.Done != 3 || len(s.Parts) != 0 {
			t.Errorf("all are ready: %+v", s)
		}
		p.Finish(true)
		if len(c.said) != 1 || !strings.HasPrefix(c.said[0], "indexed 1 layer, 5.0 MB in ") {
			t.Errorf("said %q", c.said)
		}
	})
}

// TestLayersFail: what failed leaves no line.
func TestLayersFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &console{display: &display{}}
		p := NewLayers(c, layersOf(10, 10))
		p.Update(LayerUpdate{Layer: 0, Read: 1})
		p.Update(LayerUpdate{Layer: 1, Read: 1})
		p.Update(LayerUpdate{Layer: 1, Done: true})
		p.Finish(false)
		if len(c.said) > 0 || c.display.closed != 1 {
			t.Errorf("said %q; closed %d times", c.said, c.display.closed)
		}
	})
}

// TestLayersClaims has sizes that nobody has.
func TestLayersClaims(t *testing.T) {
	p := NewLayers(&console{}, layersOf(math.MaxInt64, math.MaxInt64, -5, 10))
	p.Update(LayerUpdate{Layer: 0, Read: 100})
	p.Update(LayerUpdate{Layer: 3, Read: 1 << 40})
	s := p.progress(time.Now())
	if s.Have != 110 || s.All != math.MaxInt64 || s.Parts[1].Have != 10 {
		t.Errorf("got %+v", s)
	}
	p.Update(LayerUpdate{Layer: 0, Done: true})
	p.Update(LayerUpdate{Layer: 1, Done: true})
	if s = p.progress(time.Now().Add(time.Hour)); s.Have != s.All || s.Left < 0 {
		t.Errorf("got %+v", s)
	}
}

// TestLayersText has no display: a line a layer, or fewer.
func TestLayersText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &console{}
		p := NewLayers(c, layersOf(10, 20))
		for i := range 2 {
			p.Update(LayerUpdate{Layer: i, Read: 1})
			p.Update(LayerUpdate{Layer: i, Done: true})
		}
		p.Finish(true)
		if len(c.said) != 2 || !strings.HasSuffix(c.said[1], ": indexed 20 B in 0.0 s") {
			t.Errorf("said %q", c.said)
		}
		c = &console{}
		p = NewLayers(c, layersOf(make([]int64, 1000)...))
		for i := range 1000 {
			p.Update(LayerUpdate{Layer: i})
			time.Sleep(20 * time.Millisecond)
			p.Update(LayerUpdate{Layer: i, Done: true})
		}
		p.Finish(true)
		if len(c.said) < 4 || len(c.said) > 6 || !strings.Contains(c.said[0], " of 1000 layers are ready, ") || !strings.HasPrefix(c.said[len(c.said)-1], "indexed 1000 layers, ") {
			t.Errorf("said %q", c.said)
		}
	})
}

// TestSpeed: what is said of the time left is not there at once, goes by what came
// lately, and ends when nothing comes.
func TestSpeed(t *testing.T) {
	now := time.Now()
	s := speed{}
	steps := func(n int, each int64) (rate, left float64) {
		for range n {
			now = now.Add(100 * time.Millisecond)
			s.done += each
			rate, left = s.look(now, 1_000_000)
		}
		return rate, left
	}
	if rate, left := steps(10, 1000); rate != 0 || left != 0 {
		t.Errorf("after a second: got %v and %v", rate, left)
	}
	if rate, left := steps(20, 1000); math.Abs(rate-10_000) > 1 || math.Abs(left-100) > 1 {
		t.Errorf("10 kB a second: got %v and %v", rate, left)
	}
	before := 0.0
	for i := range 100 { // much at once, then nothing for a second
		each := int64(0)
		if i%10 == 0 {
			each = 10_000
		}
		rate, _ := steps(1, each)
		if before > 0 && math.Abs(rate/before-1) > .35 {
			t.Errorf("the rate jumps from %v to %v", before, rate)
		}
		before = rate
	}
	if rate, _ := steps(200, 10_000); math.Abs(rate-100_000) > 10_000 {
		t.Errorf("100 kB a second: got %v", rate)
	}
	now = now.Add(time.Hour) // it was stopped
	if rate, _ := steps(1, 10_000); math.Abs(rate-100_000) > 10_000 {
		t.Errorf("an hour later: got %v", rate)
	}
	if rate, left := steps(2000, 0); rate != 0 || left != 0 {
		t.Errorf("nothing comes any more: got %v and %v", rate, left)
	}
}

// TestLayOut has terminals of every size.
func TestLayOut(t *testing.T) {
	parts := make([]Part, 30)
	for i := range parts {
		parts[i] = Part{fmt.Sprintf("layer %d/4096 0123456789ab", i+1000), int64(i) << 20, 1 << 30}
	}
	for _, p := range []*Progress{
		{},
		{Label: "fetching"},
		{Label: "verifying", Have: 1 << 40, All: 1 << 50, Rate: 1e8, Left: 1e5},
		{Done: 1, Of: 3, Have: 5, All: 5, Parts: parts[:2]},
		{Done: 4000, Of: 4096, Have: math.MaxInt64, All: math.MaxInt64, Rate: 1e18, Left: 3e5, Parts: parts},
	} {
		for cols := range 130 {
			for _, rows := range []int{1, 2, 3, 22, 100} {
				lines := layOut(p, cols, rows)
				if len(lines) > rows || len(lines) != min(rows, len(p.Parts)+1) {
					t.Errorf("%+v: %d lines on %d", p, len(lines), rows)
				}
				for _, l := range lines {
					if len(l) > cols || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r > '~' }) {
						t.Errorf("%+v, on %d columns: %q", p, cols, l)
					}
				}
				if last := lines[len(lines)-1]; cols >= 19 && p.Of > 0 && !strings.HasPrefix(last, fmt.Sprint(p.Done)) {
					t.Errorf("%+v, on %d columns: the last line is %q", p, cols, last)
				}
			}
		}
	}
	got := layOut(&Progress{Done: 57, Of: 60, Have: 100e6, All: 123e6, Rate: 4e6, Left: 5.7, Parts: []Part{{"layer 3/60 0123456789ab", 10e6, 30e6}}}, 79, 22)
	want := "layer 3/60 0123456789ab [===========>---------------------] 10.0 MB / 30.0 MB\n57 of 60 layers, 100.0 MB of 123.0 MB, 4.0 MB/s, 6 s left"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestLeftText(t *testing.T) {
	for seconds, want := range map[float64]string{0.2: "1 s left", 59.5: "60 s left", 99: "99 s left", 100: "2 min left", 5990: "100 min left", 6001: "2 h left", 3.6e5: "100 h left"} {
		if got := leftText(seconds); got != want {
			t.Errorf("leftText(%v): got %q, want %q", seconds, got, want)
		}
	}
}
