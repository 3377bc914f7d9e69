package network

import (
	"context"
	"io"
	"time"
)

// A Meter stands before a registry and counts what goes through. It has no delay and no
// bound, unless it is given some.
type Meter struct{ p *proxy }

// NewMeter starts a Meter before the registry at a host.
func NewMeter(registry string) (*Meter, error) {
	p, err := newProxy(registry)
	return &Meter{p}, err
}

// Host returns where it listens.
func (m *Meter) Host() string { return m.p.host }

// Slow gives it a round trip that each request takes, and a bound in megabits a second: none
// if they are 0.
func (m *Meter) Slow(delay time.Duration, mbps float64) { m.p.set(delay, mbps*1e6/8) }

// Forget begins to count anew.
func (m *Meter) Forget() { m.p.forget() }

// Traffic is how many requests for blobs came, and how many bytes of blobs went, since
// Forget.
func (m *Meter) Traffic() (requests, bytes int64) {
	seen := m.p.seen().all(blobs)
	return seen.Requests, seen.Bytes
}

// Trace writes the requests since Forget, a line each.
func (m *Meter) Trace(w io.Writer, title string) { m.p.write(w, title) }

// Blobs calls do, and returns the bytes of blobs that went through meanwhile.
func (m *Meter) Blobs(ctx context.Context, do func() error) (int64, error) {
	m.p.forget()
	if err := do(); err != nil {
		return 0, err
	}
	seen, err := m.p.settled(ctx)
	return seen.all(blobs).Bytes, err
}

// Close ends all connections.
func (m *Meter) Close() error { return m.p.close() }
