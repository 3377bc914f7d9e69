package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrStoreFull says that the disk of containerd's content store is full. It comes wrapped.
var ErrStoreFull = errors.New("the disk of containerd's content store is full")

var (
	// errWrongBytes: what came was not the blob.
	errWrongBytes = errors.New("what came is not the blob")
	// errLate is why a call of containerd ended that took too long.
	errLate = errors.New("no answer")
)

const (
	// writeLimit is how long containerd may take for a piece of a blob, and how long
	// another client may take for one that is writing the same blob.
	writeLimit = 2 * time.Minute
	// hashLimit is how long it may take to read again what there is of a blob, or to have
	// all of it on the disk.
	hashLimit = 30 * time.Minute
	// pieceSize is how much of a blob is written by one call.
	pieceSize = 1 << 20
	// lockPause is the time between looks at what another client writes.
	lockPause = 500 * time.Millisecond
)

// A storeError is one of containerd, or of its disk: asking another registry does not help.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// from brings a blob from one origin. Bytes that are wrong are asked for once more.
func (r *fetching) from(ctx context.Context, o snapshotter.Image, b missing) error {
	had := r.have
	err := r.ingest(ctx, o, b.Descriptor, false)
	if errors.Is(err, errWrongBytes) && ctx.Err() == nil {
		r.debugf("blob %s of %s: %v; it is fetched again", b.Digest, printable.Name(NameOf(o)), err)
		r.progress(had - r.have)
		err = r.ingest(ctx, o, b.Descriptor, true)
	}
	return err
}

// ingest writes a blob into the content store, which checks its digest. What is there of it
// from before stays, as far as it goes.
func (r *fetching) ingest(ctx context.Context, o snapshotter.Image, d ocispec.Descriptor, again bool) error {
	w, err := r.openIngest(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		r.progress(d.Size)
		return nil
	}
	if err != nil {
		return err
	}
	defer w.close()
	r.progress(w.off)
	if w.off < d.Size { // else another namespace has it: there is nothing to write
		from, err := r.Open(ctx, o, d, w.off, again)
		if err != nil {
			return r.abort(ctx, w, err)
		}
		defer from.Close()
		w.progress = r.progress
		if _, err := io.CopyBuffer(w, from, make([]byte, pieceSize)); err != nil {
			return r.abort(ctx, w, err)
		}
	}
	err = w.commit(ctx, d, sourceLabel(o))
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	return r.abort(ctx, w, err)
}

// An ingest is a blob that is being written.
type ingest struct {
	content.Writer
	c        *Client
	ref      string
	off      int64 // how much of it containerd has, at least
	begun    bool  // something was there, or was sent
	progress func(n int64)

	cancel context.CancelCauseFunc // ends the call
	cause  func() error            // why it has ended; nil: it has not
}

// openIngest begins to write a blob, or goes on with it. It waits while another client
// writes the same one. The error is that of errdefs if the blob is there.
func (r *fetching) openIngest(ctx context.Context, d ocispec.Descriptor) (*ingest, error) {
	last, since := int64(-1), time.Now()
	for {
		w, err := r.Client.tryIngest(ctx, d)
		if err == nil || !errdefs.IsUnavailable(err) {
			return w, err
		}
		// Either somebody has it locked, or containerd has gone.
		var written int64
		again := r.Client.call(ctx, func(ctx context.Context) error {
			st, err := r.Client.content.Status(ctx, refOf(d))
			written = st.Offset
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case again != nil && !errdefs.IsNotFound(again):
			return nil, &storeError{again}
		case written != last:
			r.debugf("blob %s: another client of containerd writes it, and has %d bytes of %d", d.Digest, written, d.Size)
			last, since = written, time.Now()
		case time.Since(since) > writeLimit:
			return nil, fmt.Errorf("another client of containerd (ctr content active) has not gone on with it for %v: %w", writeLimit, err)
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// refOf returns what containerd's own clients call a blob while it is written: of two that
// fetch it at the same time one waits for the other.
func refOf(d ocispec.Descriptor) string {
	switch {
	case images.IsLayerType(d.MediaType):
		return "layer-" + d.Digest.String()
	case images.IsKnownConfig(d.MediaType):
		return "config-" + d.Digest.String()
	case images.IsAttestationType(d.MediaType):
		return "attestation-" + d.Digest.String()
	}
	return "unknown-" + d.Digest.String()
}

// tryIngest is openIngest without waiting.
func (c *Client) tryIngest(ctx context.Context, d ocispec.Descriptor) (*ingest, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &ingest{c: c, ref: refOf(d), cancel: cancel, cause: func() error { return context.Cause(ctx) }, progress: func(int64) {}}
	err := w.within(hashLimit, func() (err error) {
		w.Writer, err = c.content.Writer(ctx, content.WithRef(w.ref), content.WithDescriptor(ocispec.Descriptor{Digest: d.Digest, Size: d.Size}))
		if err != nil {
			return err
		}
		st, err := w.Status()
		w.off = st.Offset
		return err
	})
	w.begun = w.off > 0
	if err == nil && w.off > d.Size { // no part of it
		w.off, err = 0, w.Truncate(0)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return w, nil
}

// within calls containerd, which may take so long. The error says whose it is.
func (w *ingest) within(limit time.Duration, f func() error) error {
	timer := time.AfterFunc(limit, func() { w.cancel(errLate) })
	defer timer.Stop()
	err := f()
	switch cause := w.cause(); {
	case err == nil:
		return nil
	case errors.Is(cause, errLate):
		return &storeError{fmt.Errorf("containerd at %s: %w for %v", printable.Name(w.c.address), errLate, limit)}
	case cause != nil:
		return cause
	}
	said := w.c.fault(err)
	if text := err.Error(); strings.Contains(text, "no space left on device") || strings.Contains(text, "disk quota exceeded") {
		said = fmt.Errorf("%w: %w", ErrStoreFull, said)
	}
	return &storeError{said}
}

// Write implements io.Writer.
func (w *ingest) Write(p []byte) (n int, err error) {
	w.begun = true
	err = w.within(writeLimit, func() error {
		n, err = w.Writer.Write(p)
		return err
	})
	w.off += int64(n)
	w.progress(int64(n))
	return n, err
}

// commit ends the writing: the blob is there then.
func (w *ingest) commit(ctx context.Context, d ocispec.Descriptor, labels map[string]string) error {
	err := w.within(hashLimit, func() error { return w.Commit(ctx, d.Size, d.Digest, content.WithLabels(labels)) })
	if errdefs.IsFailedPrecondition(err) { // it has another size, or another digest
		return fmt.Errorf("%w: %v", errWrongBytes, err)
	}
	return err
}

// close ends the call. What was written is kept.
func (w *ingest) close() {
	_ = w.Close() // nothing more is to be said
	w.cancel(nil)
}

// abort ends an ingest that failed, and returns why. What was written stays for the next
// time, unless it is wrong, stands in the way, or is nothing.
func (r *fetching) abort(ctx context.Context, w *ingest, err error) error {
	w.close()
	if w.begun && !errors.Is(err, errWrongBytes) && !errors.Is(err, ErrStoreFull) {
		return err
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall)
	defer cancel()
	for {
		again := r.Client.content.Abort(limited, w.ref)
		if again == nil || errdefs.IsNotFound(again) {
			return err
		}
		select { // containerd may not have closed its file yet
		case <-time.After(20 * time.Millisecond):
		case <-limited.Done():
			r.debugf("blob %s: what was written of it stays for a day: %v", w.ref, r.Client.fault(again))
			return err
		}
	}
}
