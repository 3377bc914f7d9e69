package show

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A Console is where a command's messages go. While bars are drawn there the
// messages are printed above them.
type Console interface {
	// Terminal returns the terminal that bars are to be drawn on, if there is one.
	Terminal() (*os.File, bool)
	// SetOutput sends messages to another place, or to the usual one again if
	// sink is nil.
	SetOutput(sink func(line string))
	// Warnf prints a message, unless the user wants none.
	Warnf(format string, args ...any)
}

// newBars starts drawing bars, if the console has a terminal for them. It returns
// nil if not.
func newBars(c Console) *mpb.Progress {
	f, ok := c.Terminal()
	if !ok {
		return nil
	}
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	c.SetOutput(func(line string) { fmt.Fprintf(bars, "imgfs: %s\n", line) }) // above them
	return bars
}

// LayerBars show how much has been read of layers that are read for the first
// time: a bar a layer on a terminal, a message a layer elsewhere. Update may be
// called by several goroutines at a time.
type LayerBars struct {
	console Console
	layers  []digest.Digest
	bars    *mpb.Progress // nil where there is no terminal

	mu      sync.Mutex
	reading map[digest.Digest]*reading
}

// A reading is a layer that is being read.
type reading struct {
	begun time.Time
	bar   *mpb.Bar // nil where there is no terminal
}

// NewLayerBars returns bars for the layers of an image, the base first. Finish
// must be called.
func NewLayerBars(c Console, layers []digest.Digest) *LayerBars {
	return &LayerBars{console: c, layers: layers, bars: newBars(c), reading: make(map[digest.Digest]*reading)}
}

// A LayerUpdate says how much has been read of a layer.
type LayerUpdate struct {
	Layer int   // its place in the image
	Read  int64 // bytes read so far
	Size  int64 // bytes of the layer
	Done  bool  // nothing is read of it any more
}

// Update shows how much has been read of a layer.
func (p *LayerBars) Update(u LayerUpdate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.layers[u.Layer]
	r := p.reading[d]
	switch {
	case r == nil && u.Done: // it was there, or has been reported: an image may repeat a layer
	case r == nil:
		p.reading[d] = p.begin(u)
	case u.Done:
		p.end(u, r)
		delete(p.reading, d)
	case r.bar != nil:
		r.bar.SetCurrent(u.Read)
	}
}

func (p *LayerBars) begin(u LayerUpdate) *reading {
	r := &reading{begun: time.Now()}
	if p.bars != nil {
		r.bar = p.bars.AddBar(u.Size, mpb.BarPriority(u.Layer),
			mpb.PrependDecorators(decor.Name(p.label(u)+" ")),
			byteCounts())
		r.bar.SetCurrent(u.Read)
	}
	return r
}

func (p *LayerBars) end(u LayerUpdate, r *reading) {
	if r.bar != nil {
		r.bar.SetCurrent(u.Read)
		r.bar.SetTotal(-1, true) // also of an empty layer, whose bar never fills
		return
	}
	p.console.Warnf("%s: indexed %s in %.1f s", p.label(u), Bytes(u.Size), time.Since(r.begun).Seconds())
}

// label names a layer by its place and the start of its digest, as docker
// shows it.
func (p *LayerBars) label(u LayerUpdate) string {
	return fmt.Sprintf("layer %d/%d %s", u.Layer+1, len(p.layers), p.layers[u.Layer].Encoded()[:12])
}

// Finish waits until all is drawn. The bar of a layer that was not read to its end
// stays as it is.
func (p *LayerBars) Finish() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, r := range p.reading {
		r.bar.Abort(false)
	}
	p.mu.Unlock()
	p.console.SetOutput(nil)
	p.bars.Wait()
}

// A Bar shows how many bytes of a number of bytes are done: a bar on a terminal,
// nothing elsewhere. It is for one goroutine at a time.
type Bar struct {
	console Console
	bars    *mpb.Progress // nil where nothing is shown
	bar     *mpb.Bar
	full    bool
}

// NewBar returns a bar with a label before it. Finish must be called.
func NewBar(c Console, label string) *Bar {
	b := &Bar{console: c, bars: newBars(c)}
	if b.bars != nil {
		b.bar = b.bars.AddBar(0, mpb.PrependDecorators(decor.Name(label+" ")), byteCounts())
	}
	return b
}

// Update shows how many bytes of all are done.
func (b *Bar) Update(done, all int64) {
	if b.bar != nil {
		b.bar.SetTotal(all, false)
		b.bar.SetCurrent(done)
		b.full = done >= all
	}
}

// Finish waits until all is drawn.
func (b *Bar) Finish() {
	if b.bars == nil {
		return
	}
	if b.full {
		b.bar.SetTotal(-1, true)
	} else {
		b.bar.Abort(false)
	}
	b.console.SetOutput(nil)
	b.bars.Wait()
}

// byteCounts draws the bytes done and all of them behind a bar.
func byteCounts() mpb.BarOption {
	return mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
		return Bytes(s.Current) + " / " + Bytes(s.Total)
	}))
}
