package reader

import (
	"container/list"
	"io"
	"slices"
	"sync"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// maxSpanMemory is the longest span that is decoded into memory. Longer ones
// (a zstd frame can be a whole layer) are decoded into a file.
const maxSpanMemory = 8 << 20

const (
	// maxSuspended is how many decoders wait for their reader to go on: one
	// takes a good half MiB.
	maxSuspended = 8
	// maxIdle is how many decoders are kept for their memory alone, and
	// maxFree how many buffers.
	maxIdle = 4
	maxFree = 2
	// offerShare is which part of the cache offers may fill: 1 of so many. What is
	// fetched ahead of a reader fits.
	offerShare = 2
	// bufferUnit is what the sizes of buffers are a multiple of, so that one
	// fits another span. Smaller ones are not kept.
	bufferUnit = 64 << 10
)

// A SpanCache keeps decoded spans in memory and evicts the least recently used ones.
// It also keeps decoders and buffers for their next use, and decides how much is
// decoded ahead. It is safe for concurrent use and may serve many Readers.
type SpanCache struct {
	mu    sync.Mutex
	limit int64
	used  int64 // bytes that the spans may come to take
	lru   *list.List
	spans map[spanKey]*list.Element
	// offers are spans that were decoded to check the blob and that nobody has
	// asked for yet, the newest first. What checks a whole blob evicts nothing else.
	offers    *list.List
	offerUsed int64 // of used
	// suspended are decoders in the middle of a layer, the newest last.
	suspended []suspended
	idle      []codec.Decoder
	free      [][]byte // of spans that have left

	decoding int // goroutines that decode spans
	jobs     int // goroutines that have spans decoded ahead
	// changed is closed when there may be a turn for an expected span; nil while nobody
	// waits for that.
	changed chan struct{}
	noRoom  bool // who waits has no room
	vain    int  // expected spans that made room for others since somebody has read one
	ahead   []*aheadSlot
	parts   spanParts
	reads   int64 // that wanted a slot
}

// A suspended decoder goes on at byte out of r's tar.
type suspended struct {
	r   *Reader
	out int64
	dec *decoding
}

type spanKey struct {
	r *Reader
	i int
}

type spanItem struct {
	key   spanKey
	span  *span
	offer bool // it is in offers, not in lru
}

// NewSpanCache returns a cache that holds at most limit bytes. The span that was used
// last stays even if it is longer.
func NewSpanCache(limit int64) *SpanCache {
	return &SpanCache{limit: limit, lru: list.New(), offers: list.New(), spans: map[spanKey]*list.Element{}, parts: spanParts{turn: make(chan struct{}, 1)}}
}

// get returns the span at key, made by newSpan if it is not there.
func (c *SpanCache) get(key spanKey, newSpan func() *span) *span {
	s, left := c.find(key, newSpan)
	for _, l := range left {
		c.reuse(l.retire())
	}
	return s
}

// held returns the span at key, nil if it is not there.
func (c *SpanCache) held(key spanKey) *span {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.spans[key]
	if !ok {
		return nil
	}
	return c.use(e)
}

// use returns the span of e, which somebody asks for. The caller holds mu.
func (c *SpanCache) use(e *list.Element) *span {
	item := e.Value.(*spanItem)
	if !item.offer {
		c.lru.MoveToFront(e)
		return item.span
	}
	c.offers.Remove(e)
	c.offerUsed -= item.span.size
	item.offer = false
	c.vain = 0
	c.tell()
	c.spans[item.key] = c.lru.PushFront(item)
	return item.span
}

// offered returns the span at key, made by newSpan if it is not there. Nobody asks
// for it yet.
func (c *SpanCache) offered(key spanKey, newSpan func() *span) *span {
	s, left := c.findOffered(key, newSpan)
	for _, l := range left {
		c.reuse(l.retire())
	}
	return s
}

// findOffered is offered, and returns the spans that have left for it.
func (c *SpanCache) findOffered(key spanKey, newSpan func() *span) (s *span, left []*span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.spans[key]; ok {
		return e.Value.(*spanItem).span, nil
	}
	s = newSpan()
	c.spans[key] = c.offers.PushFront(&spanItem{key, s, true})
	c.used += s.size
	c.offerUsed += s.size
	for c.offerUsed > c.limit/offerShare && c.offers.Len() > 1 {
		left = append(left, c.evict(c.offers))
	}
	for c.used > c.limit && c.lru.Len() > 0 {
		left = append(left, c.evict(c.lru))
	}
	return s, left
}

// evict takes the last span of a list out of the cache. The caller holds mu.
func (c *SpanCache) evict(from *list.List) *span {
	item := from.Remove(from.Back()).(*spanItem)
	delete(c.spans, item.key)
	c.used -= item.span.size
	if item.offer {
		c.offerUsed -= item.span.size
	}
	return item.span
}

// find is get, and returns the spans that have left for it.
func (c *SpanCache) find(key spanKey, newSpan func() *span) (s *span, left []*span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.spans[key]; ok {
		return c.use(e), nil
	}
	s = newSpan()
	c.spans[key] = c.lru.PushFront(&spanItem{key: key, span: s})
	c.used += s.size
	for c.used > c.limit && c.lru.Len() > 1 {
		left = append(left, c.evict(c.lru))
	}
	if c.changed != nil && c.noRoom && c.offers.Len() > 0 {
		// What is expected next has no room, and something else is read.
		left = append(left, c.evict(c.offers))
		c.vain++
		c.tell()
	}
	return s, left
}

// reuse keeps the memory of a span for the next one: new memory has to be
// cleared, by the kernel and again by the allocator, which takes a good part
// of the time that decoding does.
func (c *SpanCache) reuse(buf []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cap(buf) >= bufferUnit && len(c.free) < maxFree {
		c.free = append(c.free, buf[:0])
	}
}

// buffer returns memory for n bytes.
func (c *SpanCache) buffer(n int64) []byte {
	c.mu.Lock()
	for i, b := range c.free {
		if int64(cap(b)) >= n && int64(cap(b)) <= n+n/4+bufferUnit {
			c.free = slices.Delete(c.free, i, i+1)
			c.mu.Unlock()
			return b
		}
	}
	if len(c.free) == maxFree {
		c.free = slices.Delete(c.free, 0, 1) // none of the right size
	}
	c.mu.Unlock()
	if n >= bufferUnit {
		return make([]byte, 0, (n+bufferUnit-1)/bufferUnit*bufferUnit)
	}
	return make([]byte, 0, n)
}

// suspend keeps a decoder that has come to byte out of a tar. If the span next
// is there that begins with that byte, others decode it already.
func (c *SpanCache) suspend(r *Reader, out int64, d *decoding, next *spanKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next != nil && c.spans[*next] != nil {
		c.retire(d)
		return
	}
	if len(c.suspended) == maxSuspended {
		c.retire(c.suspended[0].dec)
		c.suspended = slices.Delete(c.suspended, 0, 1)
	}
	c.suspended = append(c.suspended, suspended{r, out, d})
}

// retire keeps the memory of a decoder that will not go on, but not its input.
// The caller holds mu.
func (c *SpanCache) retire(d *decoding) {
	d.src.buf, d.src.mem = nil, nil
	if shares, ok := d.Decoder.(io.Closer); ok {
		shares.Close() // its memory goes another way
		return
	}
	if len(c.idle) < maxIdle {
		c.idle = append(c.idle, d.Decoder)
	}
}

// resume takes back the decoder at byte out of a tar, if there is one.
func (c *SpanCache) resume(r *Reader, out int64) *decoding {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.suspended {
		if s.r == r && s.out == out {
			c.suspended = slices.Delete(c.suspended, i, i+1)
			return s.dec
		}
	}
	return nil
}

// spare takes a decoder that is of no more use, if there is one.
func (c *SpanCache) spare() codec.Decoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) == 0 {
		return nil
	}
	d := c.idle[len(c.idle)-1]
	c.idle = c.idle[:len(c.idle)-1]
	return d
}
