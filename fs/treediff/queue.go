package treediff

import "context"

// A pending change is one that may still wait for contents to be read.
type pending struct {
	change  Change
	content *verdict // nil: nothing is read for it
}

// maxPending is how many changes wait at most behind one whose content is read.
const maxPending = 1024

// A queue tells changes in the order in which they were added, while contents are read.
type queue struct {
	ctx     context.Context // of the caller
	yield   func(Change, error) bool
	waiting []pending
	readers int  // of those that wait
	ended   bool // nothing is told any more
}

// add tells a change, when it is known whether it is one. It reports whether to go on.
func (q *queue) add(p pending) bool {
	if q.ended {
		return false
	}
	q.waiting = append(q.waiting, p)
	if p.content != nil {
		q.readers++
		return q.flush(maxPending)
	}
	if q.readers == 0 {
		return q.flush(0)
	}
	return q.flush(maxPending)
}

// flushReaders tells changes until no more than most of those that wait are read.
func (q *queue) flushReaders(most int) {
	for q.readers > most && q.tell() {
	}
}

// flush tells what is ready at the head of the queue, and waits until no more than most
// changes are left.
func (q *queue) flush(most int) bool {
	for len(q.waiting) > most || len(q.waiting) > 0 && q.waiting[0].ready() {
		if !q.tell() {
			return false
		}
	}
	return !q.ended
}

func (p pending) ready() bool {
	if p.content == nil {
		return true
	}
	select {
	case <-p.content.done:
		return true
	default:
		return false
	}
}

// tell tells the first change that waits.
func (q *queue) tell() bool {
	if q.ended {
		return false
	}
	p := q.waiting[0]
	var err error
	if p.content != nil {
		select {
		case <-p.content.done:
		case <-q.ctx.Done():
			return q.end()
		}
		q.readers--
		if err = p.content.err; err != nil && q.ctx.Err() != nil {
			return q.end()
		}
		if err == nil && !p.content.same {
			p.change.What |= Content
		}
		if err == nil && p.change.What == 0 {
			q.pop()
			return true
		}
	}
	q.pop()
	q.ended = !q.yield(p.change, err)
	return !q.ended
}

func (q *queue) pop() {
	q.waiting[0] = pending{}
	q.waiting = q.waiting[1:]
}

// end tells that the context has ended.
func (q *queue) end() bool {
	if !q.ended {
		q.ended = true
		q.yield(Change{}, q.ctx.Err())
	}
	return false
}
