package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote"
	"github.com/opencontainers/go-digest"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A progress shows how far layers are that are being read for the first time:
// bars on a terminal, a line a layer elsewhere. With --quiet it shows nothing.
type progress struct {
	e      *env
	layers []remote.Layer
	bars   *mpb.Progress // nil where there is no terminal

	mu      sync.Mutex
	reading map[digest.Digest]*reading
}

// reading is a layer that is being read.
type reading struct {
	begun time.Time
	bar   *mpb.Bar // nil where there is no terminal
}

func (e *env) newProgress(img *remote.Image) *progress {
	p := &progress{e: e, layers: img.Layers, reading: make(map[digest.Digest]*reading)}
	if f, ok := terminal(e.stderr); ok && !e.quiet {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
		e.sayTo(func(line string) { fmt.Fprintf(p.bars, "imgfs: %s\n", line) }) // above them
	}
	return p
}

// update is for fs.Options.Progress.
func (p *progress) update(u fs.Progress) {
	if p.e.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.layers[u.Layer].Digest()
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

func (p *progress) begin(u fs.Progress) *reading {
	r := &reading{begun: time.Now()}
	if p.bars != nil {
		r.bar = p.bars.AddBar(u.Size, mpb.BarPriority(u.Layer),
			mpb.PrependDecorators(decor.Name(p.label(u)+" ")),
			byteCounts())
		r.bar.SetCurrent(u.Read)
	}
	return r
}

func (p *progress) end(u fs.Progress, r *reading) {
	if r.bar != nil {
		r.bar.SetCurrent(u.Read)
		r.bar.SetTotal(-1, true) // also of an empty layer, whose bar never fills
		return
	}
	p.e.say(fmt.Sprintf("%s: indexed %s in %.1f s", p.label(u), bytesText(u.Size), time.Since(r.begun).Seconds()))
}

// label names a layer by its place and the start of its digest, as docker
// shows it.
func (p *progress) label(u fs.Progress) string {
	return fmt.Sprintf("layer %d/%d %s", u.Layer+1, len(p.layers), p.layers[u.Layer].Digest().Encoded()[:12])
}

// finish waits for the last drawing. What did not end well stays as it is.
func (p *progress) finish() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, r := range p.reading {
		r.bar.Abort(false)
	}
	p.mu.Unlock()
	p.e.sayTo(nil)
	p.bars.Wait()
}

// A gauge shows how much of a number of bytes is done: a bar on a terminal,
// nothing elsewhere and with --quiet. Its calls come one at a time.
type gauge struct {
	e    *env
	bars *mpb.Progress // nil where nothing is shown
	bar  *mpb.Bar
	full bool
}

func (e *env) newGauge(label string) *gauge {
	g := &gauge{e: e}
	if f, ok := terminal(e.stderr); ok && !e.quiet {
		g.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
		e.sayTo(func(line string) { fmt.Fprintf(g.bars, "imgfs: %s\n", line) }) // above it
		g.bar = g.bars.AddBar(0, mpb.PrependDecorators(decor.Name(label+" ")), byteCounts())
	}
	return g
}

// update says how many bytes of all are done.
func (g *gauge) update(done, all int64) {
	if g.bar != nil {
		g.bar.SetTotal(all, false)
		g.bar.SetCurrent(done)
		g.full = done >= all
	}
}

// finish waits for the last drawing.
func (g *gauge) finish() {
	if g.bars == nil {
		return
	}
	if g.full {
		g.bar.SetTotal(-1, true)
	} else {
		g.bar.Abort(false)
	}
	g.e.sayTo(nil)
	g.bars.Wait()
}

// byteCounts draws the bytes done and all of them behind a bar.
func byteCounts() mpb.BarOption {
	return mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
		return bytesText(s.Current) + " / " + bytesText(s.Total)
	}))
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1000, 0
	for v >= 999.95 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[u])
}
