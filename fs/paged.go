package fs

import "unsafe"

const (
	pageBits = 12
	pageLen  = 1 << pageBits
)

// paged is a list in pages: it grows without a copy, so that it never takes the
// memory of two.
type paged[E any] struct {
	pages [][]E // whole, but for the last one
	n     int
	room  Room
}

// A Room has memory for the arrays of a tree; see BuilderOptions.Room. It is safe for
// concurrent use.
type Room interface {
	// Alloc returns zeroed memory of so many bytes, aligned for any type, or nil if there is
	// none. It stays as long as the tree does, what is made of it, and all strings of it.
	Alloc(bytes int) []byte
	// Check is called now and then while the arrays are made, so that less of them may be
	// in memory.
	Check()
}

// makeIn returns a slice for n elements without pointers, of the length 0.
func makeIn[E any](room Room, n int) []E {
	var e E
	if size := int(unsafe.Sizeof(e)) * n; room != nil && n > 0 {
		if b := room.Alloc(size); len(b) >= size {
			return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(b))), n)[:0]
		}
	}
	return make([]E, 0, n)
}

func (p *paged[E]) at(i uint32) *E { return &p.pages[i>>pageBits][i&(pageLen-1)] }

// push appends an element and returns its position.
func (p *paged[E]) push(e E) uint32 {
	if p.n == len(p.pages)*pageLen {
		p.pages = append(p.pages, makeIn[E](p.room, pageLen))
	}
	last := &p.pages[len(p.pages)-1]
	*last = append(*last, e)
	p.n++
	return uint32(p.n - 1)
}

// cut drops all but the first n elements, and the room for others.
func (p *paged[E]) cut(n int) {
	p.pages, p.n = p.pages[:(n+pageLen-1)/pageLen], n
	if last := len(p.pages) - 1; last >= 0 && p.room != nil {
		p.pages[last] = p.pages[last][:n-last*pageLen]
	} else if last >= 0 {
		p.pages[last] = trim(p.pages[last][:n-last*pageLen])
	}
	p.pages = trim(p.pages)
}
