package layerindex

import (
	"sync"
	"sync/atomic"
)

// A lazy is a value that is read when it is first needed, by one goroutine for all
// that wait. The value is kept. An error is not: the next call reads again. The zero
// lazy has no value.
type lazy[T any] struct {
	value atomic.Pointer[T]

	mu  sync.Mutex
	try *lazyTry // under way, or nil
}

type lazyTry struct {
	over chan struct{} // closed when err is set, and the value if there is one
	err  error
}

// get returns the value, which is read by read if it is not there.
func (l *lazy[T]) get(read func() (T, error)) (T, error) {
	if v := l.value.Load(); v != nil {
		return *v, nil
	}
	l.mu.Lock()
	try := l.try
	mine := try == nil && l.value.Load() == nil
	if mine {
		try = &lazyTry{over: make(chan struct{})}
		l.try = try
	}
	l.mu.Unlock()
	if mine {
		l.run(try, read)
	} else if try != nil {
		<-try.over
	}
	if v := l.value.Load(); v != nil {
		return *v, nil
	}
	var none T
	return none, try.err
}

// run does one try.
func (l *lazy[T]) run(try *lazyTry, read func() (T, error)) {
	v, err := read()
	if try.err = err; err == nil {
		l.value.Store(&v)
	}
	l.mu.Lock()
	l.try = nil
	l.mu.Unlock()
	close(try.over)
}
