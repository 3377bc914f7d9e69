package main

import (
	"context"
	"os"
	"time"
)

// openWaiting is os.OpenFile, which waits for the other end of a pipe, until ctx ends. So
// does what reads or writes the pipe later: it fails with os.ErrDeadlineExceeded.
func openWaiting(ctx context.Context, name string, flag int) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	c := make(chan opened, 1)
	go func() {
		f, err := os.OpenFile(name, flag, 0)
		c <- opened{f, err}
	}()
	select {
	case o := <-c:
		if o.err == nil {
			// Regular files have no deadline, and need none.
			context.AfterFunc(ctx, func() { _ = o.file.SetDeadline(time.Unix(1, 0)) })
		}
		return o.file, o.err
	case <-ctx.Done():
		// Nothing ends the wait of open(2) but this process.
		return nil, ctx.Err()
	}
}
