package registry

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// A spool holds a blob that a registry sent whole when a range of it was
// asked for, as pull-through caches do with blobs they do not have yet. It is
// filled by one answer, or by several after each other if they break, and
// read while it fills. The file has no name, so nothing of it stays.
type spool struct {
	digest digest.Digest
	size   int64
	file   *os.File

	// hash has been fed the first have bytes. Only who fills touches it.
	hash digest.Digester

	mu      sync.Mutex
	have    int64         // bytes in the file
	body    *liveBody     // being read; nil: no one fills
	err     error         // why filling ended last
	changed chan struct{} // closed when have or body changes
}

// spoolInto has body, the whole blob, put into the blob's spool, unless an
// earlier one is being put there. It takes body over if it succeeds.
func (b *blobCopy) spoolInto(body *liveBody) (*spool, error) {
	_, s := b.known()
	if s == nil {
		made, err := newSpool(b)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		if b.spool == nil {
			b.spool = made
		}
		s = b.spool
		b.mu.Unlock()
		if s != made {
			made.file.Close()
		}
	}
	started, err := b.at.client.fill(s, body)
	if err == nil && !started {
		body.Close()
	}
	return s, err
}

func newSpool(b *blobCopy) (*spool, error) {
	opts := b.at.client.opts
	opts.Logf("%s: %s does not serve ranges of it; getting all of its %d bytes", b.name, b.at.host, b.size)
	file, err := os.CreateTemp(opts.SpoolDir, "imgfs-spool-")
	if err == nil {
		if err = os.Remove(file.Name()); err != nil {
			file.Close()
		}
	}
	if err != nil {
		return nil, spoolFault(err)
	}
	return &spool{digest: b.digest, size: b.size, file: file,
		hash: b.digest.Algorithm().Digester(), changed: make(chan struct{})}, nil
}

func spoolFault(err error) *fault {
	return &fault{class: remote.ErrUnavailable, text: "keeping a blob that does not come in ranges: " + scrub(err.Error())}
}

// fill starts filling s from body, which then ends with the client and not
// with the reader who asked for it. It tells whether s needed it.
func (c *Client) fill(s *spool, body *liveBody) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, &fault{class: remote.ErrUnavailable, text: "the client is closed"}
	}
	c.spools[s] = struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil || s.have == s.size {
		return false, nil
	}
	body.unlink()
	s.body, s.err = body, nil
	c.fillers.Go(func() {
		err := s.copy(body)
		body.Close()
		s.update(func() { s.body, s.err = nil, err })
	})
	return true, nil
}

// copy reads body to its end. What the file already has is skipped, so each
// answer gets further than the one before it.
func (s *spool) copy(body io.Reader) error {
	if n, err := io.CopyN(io.Discard, body, s.have); err != nil {
		return s.broken(n, err)
	}
	buf := make([]byte, 64<<10)
	for s.have < s.size {
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), s.size-s.have)])
		if _, err := s.file.WriteAt(buf[:n], s.have); err != nil {
			return spoolFault(err)
		}
		s.hash.Hash().Write(buf[:n])
		have := s.have + int64(n)
		if have == s.size && s.hash.Digest() != s.digest {
			s.hash = s.digest.Algorithm().Digester()
			s.update(func() { s.have = 0 })
			return oddf("the whole blob is sent, and it has another digest")
		}
		s.update(func() { s.have = have })
		if err != nil && have < s.size {
			return s.broken(have, err)
		}
	}
	return nil
}

func (s *spool) broken(n int64, err error) *fault {
	text := fmt.Sprintf("the whole blob is sent, and the answer ends after %d of %d bytes", n, s.size)
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		text += ": " + scrub(err.Error())
	}
	return &fault{verdict: busy, class: remote.ErrUnavailable, text: text}
}

func (s *spool) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// serves tells whether the first end bytes are here or on their way.
func (s *spool) serves(end int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have >= end || s.body != nil
}

// read fills p, waiting as long as the bytes keep coming.
func (s *spool) read(ctx context.Context, patience *patience, p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	for seen := int64(-1); ; {
		s.mu.Lock()
		have, body, err, changed := s.have, s.body, s.err, s.changed
		s.mu.Unlock()
		if seen >= 0 && have > seen {
			patience.progress(int(have - seen))
		}
		seen = have
		switch {
		case have >= end:
			n, err := s.file.ReadAt(p, off)
			if n < len(p) {
				return n, spoolFault(err)
			}
			return n, nil
		case body == nil && err != nil:
			return 0, err
		case body == nil:
			return 0, oddf("the whole blob is sent, and is no longer there")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// abort ends filling.
func (s *spool) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil {
		s.body.cancel(context.Canceled)
	}
}
