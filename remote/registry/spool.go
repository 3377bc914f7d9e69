package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A spool holds a blob that a registry sent whole when a range of it was
// asked for, as pull-through caches do with blobs they do not have yet. It is
// filled by one answer, or by several after each other if they break, and
// read while it fills. The file has no name, so nothing of it stays.
type spool struct {
	of    *blobCopy
	file  remote.TempFile
	close func() error // closes the file, once

	// hash has been fed the first have bytes. Only who fills touches it.
	hash digest.Digester

	mu      sync.Mutex
	have    int64         // bytes in the file
	body    *liveBody     // being read; nil: no one fills
	err     error         // why filling ended last
	changed chan struct{} // closed when have or body changes
	users   int           // who read or fill
	gone    bool          // nobody may begin to use it
}

// unspooledTime is how long nothing is spooled after there was no room for it.
const unspooledTime = time.Minute

var (
	// errUnspooled: the disk does not take the blob. It is to be asked for
	// again, and read from the answer.
	errUnspooled = errors.New("the disk does not take the blob")
	// errSpoolGone: the spool is not the blob's any more.
	errSpoolGone = errors.New("the spool is gone")
)

// spoolInto has body, the whole blob, put into the blob's spool, unless an
// earlier one is being put there. It takes body over if it succeeds. The
// caller must leave the spool. The error is errUnspooled where the disk does
// not take it.
func (b *blobCopy) spoolInto(body *liveBody) (*spool, error) {
	for {
		_, s := b.known()
		if s == nil {
			made, err := b.newSpool()
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
				made.close()
			}
		}
		started, err := b.at.client.fill(s, body)
		if err == errSpoolGone {
			continue
		}
		if err == nil && !started {
			body.Close()
		}
		return s, err
	}
}

// newSpool makes a spool, if the disk looks as if it would take the blob.
func (b *blobCopy) newSpool() (*spool, error) {
	c := b.at.client
	if !c.maySpool() {
		return nil, errUnspooled
	}
	file, err := c.opts.newTemp(b.size)
	if err != nil {
		c.spoolFailed(b, err)
		return nil, errUnspooled
	}
	c.opts.Logf("%s: %s does not serve ranges of it; getting all of its %d bytes", b.name, b.at.Host, b.size)
	return &spool{of: b, file: file, close: sync.OnceValue(file.Close),
		hash: b.digest.Algorithm().Digester(), changed: make(chan struct{})}, nil
}

// maySpool tells whether the disk is worth trying.
func (c *Client) maySpool() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !time.Now().Before(c.unspooled)
}

// spoolFailed notes that the disk does not take a blob.
func (c *Client) spoolFailed(b *blobCopy, err error) {
	c.mu.Lock()
	now := time.Now()
	told := now.Before(c.unspooled)
	c.unspooled = now.Add(unspooledTime)
	c.mu.Unlock()
	if told {
		return
	}
	c.opts.Logf("%s: %s does not serve ranges of it, and it cannot be kept: %v; each read gets it from its beginning", b.name, b.at.Host, err)
	c.opts.SpoolFailed(err)
}

// fill starts filling s from body, which then ends with the client and not
// with the reader who asked for it. It tells whether s needed it. The caller
// must leave s, unless there is an error.
func (c *Client) fill(s *spool, body *liveBody) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.close() // there is nothing in it
		return false, &fault{class: remote.ErrUnavailable, text: "the client is closed"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false, errSpoolGone
	}
	c.spools[s] = struct{}{}
	s.users++
	if s.body != nil || s.have == s.of.size {
		return false, nil
	}
	body.unlink()
	s.body, s.err = body, nil
	s.users++
	c.fillers.Go(func() {
		err := s.copy(body)
		body.Close()
		if err == errUnspooled {
			s.drop() // what is there takes the room that others need
		}
		s.update(func() { s.body, s.err = nil, err })
		s.leave()
	})
	return true, nil
}

// copy reads body to its end. What the file already has is skipped, so each
// answer gets further than the one before it.
func (s *spool) copy(body io.Reader) error {
	if n, err := io.CopyN(io.Discard, body, s.have); err != nil {
		return s.of.broken(n, err)
	}
	buf, size := make([]byte, 64<<10), s.of.size
	for s.have < size {
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), size-s.have)])
		if _, err := s.file.WriteAt(buf[:n], s.have); err != nil {
			s.of.at.client.spoolFailed(s.of, err)
			return errUnspooled
		}
		s.hash.Hash().Write(buf[:n])
		have := s.have + int64(n)
		if have == size && s.hash.Digest() != s.of.digest {
			s.hash = s.of.digest.Algorithm().Digester()
			s.update(func() { s.have = 0 })
			return oddf("the whole blob is sent, and it has another digest")
		}
		s.update(func() { s.have = have })
		if err != nil && have < size {
			return s.of.broken(have, err)
		}
	}
	return nil
}

// broken is the fault of an answer that should have all of the blob, and ends
// after n bytes.
func (b *blobCopy) broken(n int64, err error) *fault {
	text := fmt.Sprintf("the whole blob is sent, and the answer ends after %d of %d bytes", n, b.size)
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		text += ": " + scrub.Text(err.Error())
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

// progress returns how many bytes are here, or with certainty will be.
func (s *spool) progress() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil {
		return s.of.size - 1
	}
	return s.have
}

// enter begins to use the spool if the first end bytes are here or on their
// way.
func (s *spool) enter(end int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.have < end && s.body == nil {
		return false
	}
	s.users++
	return true
}

// leave ends a use of the spool.
func (s *spool) leave() {
	s.mu.Lock()
	s.users--
	last := s.gone && s.users == 0
	s.mu.Unlock()
	if last {
		s.close() // it was only read from
	}
}

// drop takes the spool from its blob. Who uses it goes on, and the last one
// closes the file.
func (s *spool) drop() {
	s.of.mu.Lock()
	if s.of.spool == s {
		s.of.spool = nil
	}
	s.of.mu.Unlock()
	c := s.of.at.client
	c.mu.Lock()
	delete(c.spools, s)
	c.mu.Unlock()
	s.mu.Lock()
	s.gone = true
	s.users++
	s.mu.Unlock()
	s.leave()
}

// read fills p, waiting as long as the bytes keep coming.
func (s *spool) read(ctx context.Context, patience *patience, p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	for seen := int64(-1); ; {
		s.mu.Lock()
		have, body, err, changed := s.have, s.body, s.err, s.changed
		s.mu.Unlock()
		if seen >= 0 && have > seen {
			patience.spooledTo(seen, have)
		}
		seen = have
		switch {
		case have >= end:
			n, err := s.file.ReadAt(p, off)
			if n < len(p) {
				return n, &fault{class: remote.ErrUnavailable, text: "reading a blob that did not come in ranges: " + scrub.Text(err.Error())}
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

var _ remote.Spool = (*spool)(nil)

// Digest implements remote.Blob.
func (s *spool) Digest() digest.Digest { return s.of.digest }

// Size implements remote.Blob.
func (s *spool) Size() int64 { return s.of.size }

// ReadAt implements remote.Spool.
func (s *spool) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	if off < 0 || end > s.of.size || !s.enter(end) {
		return 0, wrap(s.of.name, oddf("bytes %d to %d are not kept", off, end-1))
	}
	defer s.leave()
	n, err := s.read(ctx, newPatience(s.of.at.client.opts, false), p, off)
	if err != nil {
		err = wrap(s.of.name, err)
	}
	return n, err
}

// Wait implements remote.Spool.
func (s *spool) Wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		whole, body, err, changed := s.have == s.of.size, s.body, s.err, s.changed
		s.mu.Unlock()
		switch {
		case body == nil && whole:
			return nil
		case body == nil && err != nil:
			return wrap(s.of.name, err)
		case body == nil:
			return wrap(s.of.name, oddf("the whole blob is not being sent"))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Release implements remote.Spool.
func (s *spool) Release() {
	s.of.at.client.opts.Logf("%s: it is in the cache now, and the copy is removed", s.of.name)
	s.drop()
}

// abort ends filling.
func (s *spool) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil {
		s.body.cancel(context.Canceled)
	}
}
