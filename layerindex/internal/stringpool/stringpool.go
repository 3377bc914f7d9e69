// Package stringpool makes many strings out of bytes with few allocations.
package stringpool

import "strings"

const (
	textChunk   = 4096
	maxShared   = 256
	sharedBytes = 128
)

// A Pool makes strings out of bytes, many in one allocation: layers have names by
// the hundred thousand. A string keeps the chunk that it lies in alive. The zero
// Pool is ready for use, by one goroutine.
type Pool struct {
	chunk strings.Builder
	known map[string]string
}

// Own returns b as a string.
func (t *Pool) Own(b []byte) string {
	if len(b) > textChunk/8 {
		return string(b)
	}
	if t.chunk.Cap()-t.chunk.Len() < len(b) {
		t.chunk.Reset()
		t.chunk.Grow(textChunk)
	}
	start := t.chunk.Len()
	t.chunk.Write(b)
	return t.chunk.String()[start:]
}

// Shared is Own for strings that come again and again, such as labels.
func (t *Pool) Shared(b []byte) string {
	if s, ok := t.known[string(b)]; ok {
		return s
	}
	s := t.Own(b)
	if len(t.known) < maxShared && len(b) <= sharedBytes {
		if t.known == nil {
			t.known = make(map[string]string)
		}
		t.known[s] = s
	}
	return s
}
