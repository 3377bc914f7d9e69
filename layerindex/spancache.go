package layerindex

import (
	"container/list"
	"slices"
	"sync"
)

// maxSpanMemory is the longest span that is decoded into memory. Longer ones
// (a zstd frame can be a whole layer) are decoded into a file.
const maxSpanMemory = 8 << 20

// maxSuspended is how many decoders wait for a sequential reader to go on: one
// takes a good half MiB.
const maxSuspended = 8

// A SpanCache keeps decoded spans in memory, the least recently used leaving
// first. It is safe for concurrent use and may serve many readers.
type SpanCache struct {
	mu    sync.Mutex
	limit int64
	used  int64 // bytes that the spans may come to take
	lru   *list.List
	spans map[spanKey]*list.Element
	// suspended are decoders at the beginning of a span, the newest last.
	suspended []suspended
}

type suspended struct {
	key spanKey
	dec *decoding
}

type spanKey struct {
	r *Reader
	i int
}

type spanItem struct {
	key  spanKey
	span *span
}

// NewSpanCache returns a cache that holds at most limit bytes; but the span
// that was used last stays, whatever its size.
func NewSpanCache(limit int64) *SpanCache {
	return &SpanCache{limit: limit, lru: list.New(), spans: map[spanKey]*list.Element{}}
}

// get returns the span at key, made by newSpan if it is not there.
func (c *SpanCache) get(key spanKey, newSpan func() *span) *span {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.spans[key]; ok {
		c.lru.MoveToFront(e)
		return e.Value.(*spanItem).span
	}
	s := newSpan()
	c.spans[key] = c.lru.PushFront(&spanItem{key, s})
	c.used += s.size
	for c.used > c.limit && c.lru.Len() > 1 {
		last := c.lru.Back()
		item := c.lru.Remove(last).(*spanItem)
		delete(c.spans, item.key)
		c.used -= item.span.size
	}
	return s
}

// suspend keeps a decoder that has come to the beginning of a span.
func (c *SpanCache) suspend(key spanKey, d *decoding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.spans[key]; ok {
		return // decoded already, or about to be
	}
	if len(c.suspended) == maxSuspended {
		c.suspended = slices.Delete(c.suspended, 0, 1)
	}
	c.suspended = append(c.suspended, suspended{key, d})
}

// resume takes back the decoder at the beginning of a span, if there is one.
func (c *SpanCache) resume(key spanKey) *decoding {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.suspended {
		if s.key == key {
			c.suspended = slices.Delete(c.suspended, i, i+1)
			return s.dec
		}
	}
	return nil
}
