package show

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Progress is how far a command is, at one moment. It is also what the process of
// a mount tells the one that shows it.
type Progress struct {
	Label string `json:"label,omitempty"` // what is done; "": layers are read
	Done  int    `json:"done,omitempty"`  // layers that are ready
	Of    int    `json:"of,omitempty"`    // all layers; 0: none are counted
	Have  int64  `json:"have"`            // bytes that are done
	All   int64  `json:"all"`             // bytes of all
	// Rate is how many bytes are done a second, and Left how many seconds the
	// rest may take; 0 is not known.
	Rate float64 `json:"rate,omitempty"`
	Left float64 `json:"left,omitempty"`
	// Parts are what is under way, those first that began first.
	Parts []Part `json:"parts,omitempty"`
}

// A Part is something that is under way.
type Part struct {
	Label string `json:"label"`
	Have  int64  `json:"have"`
	All   int64  `json:"all"` // 0: nobody knows
}

// A Display shows progress. It is for one goroutine at a time.
type Display interface {
	// Show shows progress in place of what was shown before. It may leave it out.
	Show(Progress)
	// Close removes what is shown.
	Close()
}

// A Console is where a command's messages go.
type Console interface {
	// Display begins to show progress. It returns nil where that is told by
	// messages.
	Display() Display
	// Warnf prints a message, unless the user wants none.
	Warnf(format string, args ...any)
}

const (
	// firstShow is how long something takes before it is shown, and showPause the
	// time between two looks at it.
	firstShow, showPause = 150 * time.Millisecond, 100 * time.Millisecond
	// maxLayerLines is how many layers an image may have for each to get a message
	// of its own. Of one with more a message comes once in linePause.
	maxLayerLines, linePause = 10, 5 * time.Second
	// layerCost is how many bytes might come in the time that a layer takes besides
	// its own, for its requests and files.
	layerCost = 64 << 10
)

// A shower shows what a function returns, again and again.
type shower struct {
	display Display
	stop    chan struct{}
	over    chan struct{}
}

// startShowing calls look every now and then, and shows what it returns.
func startShowing(d Display, look func(now time.Time) Progress) *shower {
	s := &shower{display: d, stop: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(s.over)
		next := time.NewTimer(firstShow)
		defer next.Stop()
		for {
			select {
			case now := <-next.C:
				d.Show(look(now))
				next.Reset(showPause)
			case <-s.stop:
				return
			}
		}
	}()
	return s
}

// end removes what is shown.
func (s *shower) end() {
	close(s.stop)
	<-s.over
	s.display.Close()
}

// Layers show how much has been read of layers that are read for the first time:
// on a terminal all at once, elsewhere in a message a layer, or fewer if there are
// many. Update may be called by several goroutines at a time.
type Layers struct {
	console Console
	layers  []Layer

	mu      sync.Mutex
	display Display
	asked   bool // for a display
	showing *shower
	speed   speed     // of bytes
	work    speed     // of bytes, and layerCost for each layer
	begun   time.Time // when the first layer began to be read; zero: none has
	said    time.Time // when the last message came
	done    int       // layers that are ready
	indexed int       // of these, layers that were read
	bytes   int64     // of these
	rows    map[digest.Digest]*layerRow
	reading []*layerRow // under way, by when they began
}

// A Layer is what a manifest says of one.
type Layer struct {
	Digest digest.Digest
	Size   int64
}

// A layerRow is a layer that an image may have several times.
type layerRow struct {
	label   string
	size    int64
	read    int64
	begun   time.Time // zero: it is not read
	index   int64     // bytes of an index that is read in its place; 0: none is
	isReady bool
}

// NewLayers returns what shows the layers of an image, the base first. Finish must
// be called.
func NewLayers(c Console, layers []Layer) *Layers {
	p := &Layers{console: c, layers: layers, rows: make(map[digest.Digest]*layerRow)}
	for i, l := range layers {
		if p.rows[l.Digest] == nil {
			p.rows[l.Digest] = &layerRow{label: p.label(i), size: max(l.Size, 0)}
		}
	}
	return p
}

// label names a layer by its place and the start of its digest, as docker shows it.
func (p *Layers) label(i int) string {
	return fmt.Sprintf("layer %d/%d %s", i+1, len(p.layers), ShortDigest(p.layers[i].Digest))
}

// A LayerUpdate says how much has been read of a layer.
type LayerUpdate struct {
	Layer int   // its place in the image
	Read  int64 // bytes read so far
	Index bool  // they are none of the layer, but of an index of it that others made
	Done  bool  // nothing is read of it any more
}

// Update takes note of how much has been read of a layer.
func (p *Layers) Update(u LayerUpdate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[p.layers[u.Layer].Digest]
	switch {
	case u.Done:
		p.done++
		if !r.isReady { // an image may repeat a layer
			p.ready(r)
		}
	case u.Index:
		p.readsIndex(r, u.Read)
	case r.isReady: // it is read again: there may be another way to the same bytes
	default:
		if r.begun.IsZero() {
			p.begin(r)
		}
		p.did(u.Read - r.read)
		r.read = u.Read
	}
}

// did takes note that n more bytes have been read.
func (p *Layers) did(n int64) {
	p.speed.done += max(0, n)
	p.work.done += max(0, n)
}

// readsIndex takes note that n bytes have come of an index of a layer.
func (p *Layers) readsIndex(r *layerRow, n int64) {
	if r.isReady || !r.begun.IsZero() || n <= 0 {
		return
	}
	if r.index == 0 {
		p.reading = append(p.reading, r)
		p.show()
	}
	r.index = n
}

// begin takes note that a layer is read.
func (p *Layers) begin(r *layerRow) {
	r.begun = time.Now()
	if r.index == 0 {
		p.reading = append(p.reading, r)
	}
	r.index = 0
	if p.begun.IsZero() {
		p.begun, p.said = r.begun, r.begun
	}
	p.show()
}

// show begins to show how far all is, where that is shown.
func (p *Layers) show() {
	if !p.asked {
		p.asked = true
		if p.display = p.console.Display(); p.display != nil {
			p.showing = startShowing(p.display, p.progress)
		}
	}
}

// ready takes note that nothing is read of a layer any more.
func (p *Layers) ready(r *layerRow) {
	r.isReady = true
	p.reading = slices.DeleteFunc(p.reading, func(x *layerRow) bool { return x == r })
	if r.begun.IsZero() {
		return
	}
	p.did(r.size - r.read)
	p.work.done += layerCost
	p.indexed++
	p.bytes = AddSizes(p.bytes, r.size)
	switch now := time.Now(); {
	case p.display != nil:
	case len(p.layers) <= maxLayerLines:
		p.console.Warnf("%s: indexed %s in %.1f s", r.label, Bytes(r.size), now.Sub(r.begun).Seconds())
	case now.Sub(p.said) >= linePause:
		p.said = now
		have, all := p.sums()
		p.console.Warnf("%d of %d layers are ready, %s of %s", p.done, len(p.layers), Bytes(have), Bytes(all))
	}
}

// sums returns how many bytes are done, and how many there are.
func (p *Layers) sums() (have, all int64) {
	for _, r := range p.rows {
		all = AddSizes(all, r.size)
		if r.isReady {
			have = AddSizes(have, r.size)
		} else {
			have = AddSizes(have, min(r.read, r.size))
		}
	}
	return have, all
}

// AddSizes adds sizes, which are claims of an image: what is too large for a number is
// the largest one.
func AddSizes(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// progress returns how far all is.
func (p *Layers) progress(now time.Time) Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, all := p.sums()
	rate, _ := p.speed.look(now, 0)
	rest := all - have
	for _, r := range p.rows {
		if !r.isReady {
			rest = AddSizes(rest, layerCost)
		}
	}
	_, left := p.work.look(now, rest)
	s := Progress{Done: p.done, Of: len(p.layers), Have: have, All: all, Rate: rate, Left: left}
	for _, r := range p.reading {
		if len(s.Parts) == maxParts {
			break
		}
		part := Part{r.label, min(r.read, r.size), r.size}
		if r.index > 0 {
			part = Part{Label: r.label + " index", Have: r.index}
		}
		s.Parts = append(s.Parts, part)
	}
	return s
}

// maxParts is how many parts are shown at most.
const maxParts = 30

// Finish removes what is shown. If all went well, and something was read that there
// has been no message of, it prints one line.
func (p *Layers) Finish(well bool) {
	if p.showing != nil {
		p.showing.end()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if well && p.indexed > 0 && (p.display != nil || len(p.layers) > maxLayerLines) {
		p.console.Warnf("indexed %s, %s in %.1f s", Count(p.indexed, "layer"), Bytes(p.bytes), time.Since(p.begun).Seconds())
	}
}

// A Bar shows how many bytes of a number of bytes are done: on a terminal, and
// nowhere else. Update may be called by several goroutines at a time.
type Bar struct {
	label   string
	showing *shower // nil where nothing is shown

	mu        sync.Mutex
	speed     speed
	known     bool // how much is done
	have, all int64
}

// NewBar returns a bar with a label before it. Finish must be called.
func NewBar(c Console, label string) *Bar {
	b := &Bar{label: label}
	if d := c.Display(); d != nil {
		b.showing = startShowing(d, b.progress)
	}
	return b
}

// Update takes note of how many bytes of all are done.
func (b *Bar) Update(have, all int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known { // what was done before takes no time
		b.speed.done += max(0, have-b.have)
	}
	b.known, b.have, b.all = true, have, all
}

func (b *Bar) progress(now time.Time) Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	rate, left := b.speed.look(now, b.all-b.have)
	return Progress{Label: b.label, Have: b.have, All: b.all, Rate: rate, Left: left}
}

// Finish removes what is shown.
func (b *Bar) Finish() {
	if b.showing != nil {
		b.showing.end()
	}
}

// A speed measures how many bytes are done in a second. What came lately counts most:
// what was seconds ago has faded by 1/e after speedMemory.
type speed struct {
	done int64 // since look was called last

	began, last time.Time
	rate        float64 // the mean, not yet divided by weight
	weight      float64
}

const (
	speedMemory = 8 * time.Second
	// speedFirst is how long it takes until something can be said.
	speedFirst = 2 * time.Second
	// speedGap is the time between two looks that is none of work: the process was
	// stopped.
	speedGap = 2 * time.Second
	// maxLeft is the longest time left that means anything.
	maxLeft = 100 * time.Hour
)

// look returns bytes a second, and seconds that the rest takes at that speed; 0 if
// they are not known.
func (s *speed) look(now time.Time, rest int64) (rate, left float64) {
	if s.began.IsZero() {
		s.began, s.last, s.done = now, now, 0
		return 0, 0
	}
	switch span := now.Sub(s.last).Seconds(); {
	case span > speedGap.Seconds():
		s.last, s.done = now, 0
	case span > 0:
		share := 1 - math.Exp(-span/speedMemory.Seconds())
		s.rate += share * (float64(s.done)/span - s.rate)
		s.weight += share * (1 - s.weight)
		s.last, s.done = now, 0
	}
	if now.Sub(s.began) < speedFirst || s.weight == 0 {
		return 0, 0
	}
	if rate = s.rate / s.weight; rate < 1 {
		return 0, 0
	}
	if left = float64(rest) / rate; left > maxLeft.Seconds() || left < 0 {
		left = 0
	}
	return rate, left
}
