package registry

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// A blob reads a blob of a repository from the first endpoint that gives it.
// A read that one endpoint breaks off goes on at the next.
type blob struct {
	repo   *Repository
	digest digest.Digest
	size   int64
	served servings

	received atomic.Int64 // see TakeReceived

	mu     sync.Mutex
	copies map[*endpoint]*blobCopy
	said   int64 // the size that a server says it has, if that is another one; else 0
}

var (
	_ remote.ElsewhereBlob = (*blob)(nil)
	_ remote.ProgressBlob  = (*blob)(nil)
	_ remote.WholeBlob     = (*blob)(nil)
	_ remote.SizedBlob     = (*blob)(nil)
	_ remote.Counted       = (*blob)(nil)
)

func newBlob(r *Repository, desc ocispec.Descriptor) *blob {
	return &blob{repo: r, digest: desc.Digest, size: desc.Size, copies: make(map[*endpoint]*blobCopy)}
}

func (b *blob) Digest() digest.Digest { return b.digest }

func (b *blob) Size() int64 { return b.size }

// TakeReceived implements remote.Counted.
func (b *blob) TakeReceived() (int64, bool) { return b.received.Swap(0), true }

// ReadAt reads from the first mirror that answers, or the registry. What it
// returns is not verified.
func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.readAt(ctx, p, off, &failover{}, reading{})
}

// ReadAtProgress is ReadAt that tells how far it has come.
func (b *blob) ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	return b.readAt(ctx, p, off, &failover{}, reading{arrived: arrived})
}

// ReadElsewhere is ReadAt for a range of which ReadAt gave wrong bytes. The
// mirror that they came from is not asked for some minutes; if they came from
// the registry, its mirrors are asked before it. No cache on the way may
// answer, nor an address that was known.
func (b *blob) ReadElsewhere(ctx context.Context, p []byte, off int64) (int, error) {
	from, all := b.served.at(off, min(int64(len(p)), b.size-off))
	if all && from != b.lastEndpoint(ctx) {
		b.repo.client.cooldowns.begin(from, &fault{class: remote.ErrDigest, text: fmt.Sprintf("wrong bytes of blob %s", b.digest)})
	}
	return b.readAt(ctx, p, off, &failover{avoid: from}, reading{fresh: true})
}

// lastEndpoint returns the one that has the last word.
func (b *blob) lastEndpoint(ctx context.Context) *endpoint {
	endpoints, err := b.repo.endpointsFor(ctx, false)
	if err != nil {
		return nil
	}
	return endpoints[len(endpoints)-1]
}

func (b *blob) readAt(ctx context.Context, p []byte, off int64, w *failover, how reading) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("%s: read at negative offset %d", b.name(), off)
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case len(p) == 0:
		return 0, nil
	case off >= b.size:
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), b.size-off)]
	n, err := b.readFull(ctx, want, off, w, how)
	if err != nil {
		return n, wrap(b.name(), err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *blob) name() string {
	return fmt.Sprintf("blob %s of %s", b.digest, b.repo.Repository())
}

// readFull fills p, with as many requests and endpoints as that takes.
func (b *blob) readFull(ctx context.Context, p []byte, off int64, w *failover, how reading) (n int, err error) {
	whole := false
	err = b.failover(w).run(ctx, func(ctx context.Context, e *endpoint) error {
		c := b.at(e)
		for n < len(p) {
			m, err := c.read(ctx, p[n:], off+int64(n), how.after(n))
			b.served.note(off+int64(n), int64(m), e)
			n += m
			if err == errWhole {
				whole = true
				return nil // it is no fault of the endpoint
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && whole {
		return n, errWhole
	}
	return n, err
}

// failover completes one that reads the blob.
func (b *blob) failover(w *failover) *failover {
	w.repo, w.what, w.budget = b.repo, b.name(), newRetryBudget(b.repo.client.opts, true)
	w.budget.received, w.extra = &b.received, b.repo.isExtra(b.digest)
	return w
}

// A reading says how a range is read.
type reading struct {
	fresh   bool        // without what is known or kept on the way
	ranged  bool        // not from an answer that is the whole blob: then errWhole
	arrived func(n int) // is told how much of the range is there; may be nil
}

// after is the reading of what comes behind the first n bytes of the range.
func (r reading) after(n int) reading {
	if arrived := r.arrived; arrived != nil {
		r.arrived = func(m int) { arrived(n + m) }
	}
	return r
}

// body returns a reader of body that calls arrived.
func (r reading) body(body io.Reader) io.Reader {
	if r.arrived == nil {
		return body
	}
	n := 0
	return &counted{body, func(m int) {
		n += m
		r.arrived(n)
	}}
}

// at returns the blob as it is at one endpoint.
func (b *blob) at(e *endpoint) *blobCopy {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.copies[e]
	if c == nil {
		c = &blobCopy{at: e, name: b.name(), digest: b.digest, size: b.size, saySize: b.saySize, finding: newCtxMutex()}
		b.copies[e] = c
	}
	return c
}

// servings remembers which endpoint gave which range of a blob lately, for a
// reader that finds out that it is wrong. It is safe for concurrent use.
type servings struct {
	mu   sync.Mutex
	ring []serving
	next int // where the oldest is
}

type serving struct {
	off, end int64
	from     *endpoint
}

// maxServings is more than a blob has requests at a time.
const maxServings = 64

func (s *servings) note(off, n int64, from *endpoint) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) > 0 {
		last := &s.ring[(s.next-1+len(s.ring))%len(s.ring)]
		if last.from == from && last.end == off {
			last.end += n
			return
		}
	}
	if len(s.ring) < maxServings {
		s.ring = append(s.ring, serving{})
	}
	s.ring[s.next] = serving{off, off + n, from}
	s.next = (s.next + 1) % maxServings
}

// at returns the endpoint that gave the byte at off last, nil if that is not
// known any more, and whether it gave all n bytes from there.
func (s *servings) at(off, n int64) (from *endpoint, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for end := off + n; off < end; {
		r := s.find(off)
		if r == nil || from != nil && r.from != from {
			return from, false
		}
		from, off = r.from, r.end
	}
	return from, from != nil
}

// find returns the latest serving of the byte at off. The caller holds mu.
func (s *servings) find(off int64) *serving {
	for i := range s.ring {
		r := &s.ring[(s.next-1-i+maxServings)%maxServings]
		if r.off <= off && off < r.end {
			return r
		}
	}
	return nil
}
