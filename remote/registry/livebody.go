package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// drain closes a body, and before that reads the little that may be left of it,
// so that the connection can be used again. It waits a moment at most.
func drain(body io.ReadCloser) {
	const most, wait = 8 << 10, 250 * time.Millisecond
	timer := time.AfterFunc(wait, func() { body.Close() })
	// A body that cannot be read is closed all the same.
	_, _ = io.CopyN(io.Discard, body, most)
	timer.Stop()
	body.Close()
}

// A liveBody is the body of an answer with a watch on its progress.
type liveBody struct {
	body   io.ReadCloser
	stall  time.Duration // without a byte
	most   time.Duration // without progress; negative: any
	pace   pace
	watch  *time.Timer
	slow   atomic.Bool // watch is for a trickle
	cancel context.CancelCauseFunc
	unlink func() bool // makes it independent of the context it was asked with
	cause  func() error
	host   string        // that sends it
	leads  address.Reach // how near the servers may be that the answer leads to

	received *atomic.Int64 // counts the bytes that come; nil: nobody counts
}

// Read gives the answer up when nothing comes, or a trickle. Only the time
// within it counts: its caller may have other things to do.
func (b *liveBody) Read(p []byte) (int, error) {
	wait, left := b.stall, b.most-b.pace.spent
	slow := b.most >= 0 && left < wait
	if slow {
		wait = max(left, 0)
	}
	b.slow.Store(slow && b.pace.got > 0)
	begun := time.Now()
	b.watch.Reset(wait)
	n, err := b.body.Read(p)
	b.watch.Stop()
	b.pace.add(n, time.Since(begun))
	if b.received != nil {
		b.received.Add(int64(n))
	}
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

// peek returns the beginning of the body, which Read still gives.
func (b *liveBody) peek() []byte {
	start := make([]byte, 512)
	n, err := b.Read(start)
	rest := b.body
	var reader io.Reader = rest
	if err != nil {
		reader = failing{err}
	}
	b.body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start[:n]), reader), rest}
	return start[:n]
}

// failing is a reader of an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// late ends the request.
func (b *liveBody) late() {
	if b.slow.Load() {
		b.cancel(errSlow)
		return
	}
	b.cancel(errStalled)
}

// explain returns why the request was ended, if we ended it and err does not
// say more.
func (b *liveBody) explain(err error) error {
	var known *fault
	if errors.As(err, &known) {
		return err
	}
	if cause := b.cause(); cause != nil {
		return cause
	}
	return err
}

func (b *liveBody) Close() error {
	err := b.body.Close()
	b.end()
	return err
}

func (b *liveBody) end() {
	b.watch.Stop()
	b.unlink()
	b.cancel(context.Canceled)
}
