package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A payload is the content that a request carries. A request that is sent again
// reads it again from its beginning.
type payload struct {
	mediaType string
	size      int64 // -1: not known
	// open returns the payload from its beginning. It may be called while a
	// reader that it returned before is still being read, and a reader may be
	// read for a moment after its request has ended.
	open func() (io.ReadCloser, error)
	once bool // open works only the first time

	read   atomic.Bool // something of it may have been sent
	failed atomic.Pointer[error]
}

// errOnce: a payload that can be read only once would have to be sent again.
var errOnce = errors.New("what was sent cannot be read a second time")

// replays tells whether the payload can be sent from its beginning.
func (p *payload) replays() bool { return p == nil || !p.once || !p.read.Load() }

// attach makes p the body of a request that is on its way in s.
func (p *payload) attach(req *http.Request, s *sending) {
	if p == nil {
		return
	}
	req.Header.Set("Content-Type", p.mediaType)
	req.ContentLength = p.size
	if p.size == 0 {
		req.Body, req.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return
	}
	req.Body = &outgoing{payload: p, sending: s}
	req.GetBody = func() (io.ReadCloser, error) {
		if !p.replays() {
			return nil, errOnce
		}
		return &outgoing{payload: p, sending: s}, nil
	}
}

// failure returns why the payload could not be read, nil if it could.
func (p *payload) failure() error {
	if p == nil {
		return nil
	}
	if err := p.failed.Load(); err != nil {
		return &fault{class: *err, text: "reading what is to be sent"}
	}
	return nil
}

func (p *payload) fail(err error) error {
	p.failed.Store(&err)
	return err
}

// An outgoing is a payload on its way. It is opened when its first byte is
// wanted: a request that reaches nobody leaves it unread.
type outgoing struct {
	payload *payload
	sending *sending
	n       int64

	mu     sync.Mutex
	body   io.ReadCloser // nil: not opened
	closed bool
}

func (o *outgoing) Read(p []byte) (int, error) {
	body, err := o.opened()
	if err != nil {
		return 0, err
	}
	n, err := body.Read(p)
	o.n += int64(n)
	o.sending.moved(n, err != nil)
	size := o.payload.size
	switch {
	case err != nil && err != io.EOF:
		return n, o.payload.fail(err)
	case size >= 0 && (o.n > size || err == io.EOF && o.n < size):
		return n, o.payload.fail(fmt.Errorf("there are not the %d bytes that were announced", size))
	}
	return n, err
}

func (o *outgoing) opened() (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return nil, http.ErrBodyReadAfterClose
	case o.body != nil:
		return o.body, nil
	}
	if o.payload.read.Swap(true) && o.payload.once {
		return nil, errOnce
	}
	body, err := o.payload.open()
	if err != nil {
		return nil, o.payload.fail(err)
	}
	o.body = body
	return body, nil
}

func (o *outgoing) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	if o.body == nil {
		return nil
	}
	o.sending.moved(0, true)
	return o.body.Close()
}

// A sending watches the payload of a request on its way. It is safe for
// concurrent use: net/http reads the payload in a goroutine of its own.
type sending struct {
	stall time.Duration // in which nothing of it is taken
	wait  time.Duration // for the answer; negative: for ever
	late  func()

	mu    sync.Mutex
	timer *time.Timer // nil: nothing was taken yet
	due   time.Time   // when it is late; zero: never
	total int64       // bytes that were taken, again and again
	done  bool
}

// moved notes that n bytes were taken, and whether they were the last.
func (s *sending) moved(n int, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += int64(n)
	limit := s.stall
	if last {
		limit = s.wait
	}
	switch {
	case s.done:
	case limit < 0:
		s.due = time.Time{}
	default:
		s.due = time.Now().Add(limit)
		if s.timer == nil {
			s.timer = time.AfterFunc(limit, s.check)
		} else {
			s.timer.Reset(limit)
		}
	}
}

// check ends the request if it is late.
func (s *sending) check() {
	s.mu.Lock()
	late := !s.done && !s.due.IsZero() && !time.Now().Before(s.due)
	s.mu.Unlock()
	if late {
		s.late()
	}
}

// begun tells whether something was taken.
func (s *sending) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total > 0
}

// end ends watching, and returns how many bytes were taken.
func (s *sending) end() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.timer != nil {
		s.timer.Stop()
	}
	return s.total
}

// bytesPayload is a payload in memory.
func bytesPayload(mediaType string, content []byte) *payload {
	return &payload{mediaType: mediaType, size: int64(len(content)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}
}
