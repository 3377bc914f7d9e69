package reader

import (
	"context"
	"sync/atomic"
)

// A Meter counts the decoding that reads cause. Any goroutine may call it. It must
// not wait, and must not call the Reader.
type Meter interface {
	// Decoded is called when n bytes were decoded for a read, or ahead of it in
	// the same file. If several reads wait for the same bytes, the Meter of one
	// of them is called. Bytes decoded into a temporary file do not count.
	Decoded(n int64)
}

// MeterKey is the key of the Meter in the context of a read.
type MeterKey struct{}

// meterOf returns the meter of ctx, nil if there is none.
func meterOf(ctx context.Context) Meter {
	m, _ := ctx.Value(MeterKey{}).(Meter)
	return m
}

// A boundedMeter passes on to another Meter the decoding ahead that belongs to the
// file that was being read.
type boundedMeter struct {
	Meter
	left atomic.Int64
}

func (b *boundedMeter) Decoded(n int64) {
	if left := b.left.Add(-n) + n; left > 0 {
		b.Meter.Decoded(min(n, left))
	}
}

// meteredAhead returns a context for decoding ahead. The first left bytes belong to
// the file that is being read.
func meteredAhead(ctx context.Context, left int64) context.Context {
	m := meterOf(ctx)
	if m == nil {
		return ctx
	}
	b := &boundedMeter{Meter: m}
	b.left.Store(left)
	return context.WithValue(ctx, MeterKey{}, b)
}
