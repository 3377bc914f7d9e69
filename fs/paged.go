package fs

const (
	pageBits = 12
	pageLen  = 1 << pageBits
)

// paged is a list in pages: it grows without a copy, so that it never takes the
// memory of two.
type paged[E any] struct {
	pages [][]E // whole, but for the last one
	n     int
}

func (p *paged[E]) at(i uint32) *E { return &p.pages[i>>pageBits][i&(pageLen-1)] }

// push appends an element and returns its position.
func (p *paged[E]) push(e E) uint32 {
	if p.n == len(p.pages)*pageLen {
		p.pages = append(p.pages, make([]E, 0, pageLen))
	}
	last := &p.pages[len(p.pages)-1]
	*last = append(*last, e)
	p.n++
	return uint32(p.n - 1)
}

// cut drops all but the first n elements, and the room for others.
func (p *paged[E]) cut(n int) {
	p.pages, p.n = p.pages[:(n+pageLen-1)/pageLen], n
	if last := len(p.pages) - 1; last >= 0 {
		p.pages[last] = trim(p.pages[last][:n-last*pageLen])
	}
	p.pages = trim(p.pages)
}
