package cli

import (
	"context"
	"io"
)

// A writer is a writer of NewWriter.
type writer struct {
	ctx  context.Context // of the command that prints
	w    io.Writer
	done chan result
}

type result struct {
	n   int
	err error
}

// NewWriter returns a writer to w whose Write returns when ctx ends, even if nobody
// takes what is written any more. That Write goes on in the background, so its
// bytes may not change.
func NewWriter(ctx context.Context, w io.Writer) io.Writer {
	return &writer{ctx: ctx, w: w, done: make(chan result, 1)}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	go func() {
		n, err := w.w.Write(p)
		w.done <- result{n, err}
	}()
	select {
	case r := <-w.done:
		return r.n, r.err
	case <-w.ctx.Done():
		return 0, w.ctx.Err()
	}
}
