package network

import "context"

// A Meter stands before a registry and counts what goes through, with no delay and no
// bound. It is for the groups that measure what is moved and not how long that takes.
type Meter struct{ p *proxy }

// NewMeter starts a Meter before the registry at a host.
func NewMeter(registry string) (*Meter, error) {
	p, err := newProxy(registry)
	return &Meter{p}, err
}

// Host returns where it listens.
func (m *Meter) Host() string { return m.p.host }

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
