package zstd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A source is one that ends with its context.
type source struct {
	io.Reader
	context.Context
}

// TestWaitEnds: a decoder that waits for the large one gives up when its source
// has ended, and the next one does not have to wait for it.
func TestWaitEnds(t *testing.T) {
	testenv.Slow(t)
	large.held <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	d, err := Resume(source{bytes.NewReader(farStream(t)), ctx}, codec.Checkpoint{Start: true})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := d.Next(); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, errEnded) {
			t.Errorf("got error %v, want %v", err, errEnded)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits")
	}
	<-large.held
	check(t, farStream(t), farData(), 1<<20)
}
