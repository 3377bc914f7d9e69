package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// An upload puts one blob into a repository. Bytes that the registry has are not
// sent again as long as it says how many it has. It belongs to one
// goroutine. OCI distribution-spec, "Push".
type upload struct {
	desc    ocispec.Descriptor
	content io.ReaderAt
	chunk   int64 // bytes of a request; 0: all in one

	session *location // nil: none is open
	off     int64     // the registry has so many bytes
	best    int64     // and had so many at most
	unsure  bool      // off has to be asked for
	unasked bool      // nobody has asked yet whether the registry has the blob
	closing bool      // the registry may have the blob, as it was sent
	sent    reporter
}

// run does the upload, or goes on where an earlier run stopped.
func (u *upload) run(ctx context.Context, e *endpoint) error {
	if u.unasked || u.closing {
		switch has, err := u.arrived(ctx, e); {
		case has:
			return nil
		case err == nil, u.unasked && classify(err).verdict == odd && classify(err).status != 0:
			// To ask so may be what it does not allow.
		default:
			return err
		}
		u.unasked, u.closing = false, false
	}
	if err := u.open(ctx, e); err != nil {
		return err
	}
	for u.chunk > 0 && u.off < u.desc.Size {
		if err := u.patch(ctx, e); err != nil {
			return err
		}
	}
	return u.close(ctx, e)
}

// arrived tells whether the registry has the blob.
func (u *upload) arrived(ctx context.Context, e *endpoint) (bool, error) {
	at, err := e.location(ctx, "blobs/"+u.desc.Digest.String())
	if err != nil {
		return false, err
	}
	resp, at, err := e.ask(ctx, &request{method: http.MethodHead, actions: pushing}, at)
	if err != nil {
		return false, err
	}
	drain(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, e.refusal(resp, at)
}

// pushing are the actions that uploads need a token for.
var pushing = []string{actionPull, actionPush}

// open opens a session, or finds out how far the one that is open has come.
func (u *upload) open(ctx context.Context, e *endpoint) error {
	if u.session != nil && u.unsure {
		if err := u.resume(ctx, e); err != nil {
			return err
		}
	}
	if u.session != nil {
		return nil
	}
	at, err := e.location(ctx, "blobs/uploads/")
	if err != nil {
		return err
	}
	// A session that is begun twice is only forgotten once.
	resp, at, err := e.change(ctx, &request{method: http.MethodPost, actions: pushing}, at, http.StatusAccepted)
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	u.off, u.unsure = 0, false
	u.session, err = e.resourceOf(resp, at)
	return err
}

// resume asks how much the registry has. Without an answer of use the session
// is given up.
func (u *upload) resume(ctx context.Context, e *endpoint) error {
	resp, at, err := e.ask(ctx, &request{method: http.MethodGet, actions: pushing}, u.session)
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	if resp.StatusCode != http.StatusNoContent {
		if f := e.refusal(resp, at); f.verdict == busy {
			return f
		}
		u.session = nil
		return nil
	}
	end, ok := u.taken(resp)
	if !ok {
		u.session = nil
		return nil
	}
	return u.moveTo(ctx, e, resp, at, end)
}

// moveTo notes that the registry has the first end bytes, and where it wants
// the others.
func (u *upload) moveTo(ctx context.Context, e *endpoint, resp *http.Response, at *location, end int64) (err error) {
	if u.off, u.unsure = end, false; end > u.best {
		attemptOf(ctx).budget.progress(int(end - u.best))
		u.best = end
	}
	if resp.Header.Get("Location") != "" {
		u.session, err = e.resourceOf(resp, at)
	}
	return err
}

// uploadRange is how a registry says which bytes it has.
var uploadRange = regexp.MustCompile(`^(?:bytes=)?0-(\d{1,18})$`)

// taken returns how many bytes an answer says that the registry has. It cannot
// be told from 0-0 whether that is one or none.
func (u *upload) taken(resp *http.Response) (int64, bool) {
	m := uploadRange.FindStringSubmatch(resp.Header.Get("Range"))
	if m == nil {
		return 0, false
	}
	last, _ := strconv.ParseInt(m[1], 10, 64) // eighteen digits fit
	return last + 1, last > 0 && last < u.desc.Size
}

// patch sends the next chunk.
func (u *upload) patch(ctx context.Context, e *endpoint) error {
	n := min(u.chunk, u.desc.Size-u.off)
	end := u.off + n
	req := &request{method: http.MethodPatch, actions: pushing, resumes: true, payload: u.section(u.off, n),
		header: http.Header{"Content-Range": {fmt.Sprintf("%d-%d", u.off, end-1)}}}
	u.unsure = true
	resp, at, err := e.change(ctx, req, u.session, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return u.lost(err)
	}
	defer drain(resp.Body)
	if got, ok := u.taken(resp); ok && got != end || !ok && end > 1 {
		return oddf("%s says of bytes %d to %d that it has %q", e.Host, u.off, end-1, resp.Header.Get("Range"))
	}
	return u.moveTo(ctx, e, resp, at, end)
}

// lost has an upload that the registry knows nothing of begin anew, and one
// whose bytes it does not want there be asked for again.
func (u *upload) lost(err error) error {
	var f *fault
	if !errors.As(err, &f) || f.status != http.StatusNotFound && f.status != http.StatusRequestedRangeNotSatisfiable {
		return err
	}
	if f.status == http.StatusNotFound {
		u.session = nil
	}
	again := *f
	again.verdict = odd
	return &again
}

// close sends the rest, and has the registry make the blob of all bytes. However
// the request ends, so does the session.
func (u *upload) close(ctx context.Context, e *endpoint) error {
	query := u.session.url.Query()
	query.Set("digest", u.desc.Digest.String())
	at := *u.session
	last := *at.url
	last.RawQuery = query.Encode()
	at.url = &last
	req := &request{method: http.MethodPut, actions: pushing, payload: u.section(u.off, u.desc.Size-u.off)}
	u.session, u.closing = nil, true
	resp, _, err := e.change(ctx, req, &at, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return u.lost(err)
	}
	drain(resp.Body)
	return nil
}

// section is n bytes of the blob from off.
func (u *upload) section(off, n int64) *payload {
	return &payload{mediaType: "application/octet-stream", size: n, open: func() (io.ReadCloser, error) {
		return io.NopCloser(&toldReader{io.NewSectionReader(u.content, off, n), off, &u.sent}), nil
	}}
}

// deleteManifest removes a manifest, and all tags of it.
func (r *Repository) deleteManifest(ctx context.Context, d digest.Digest) error {
	unsure := false // whether an earlier request did it
	return r.write(ctx, fmt.Sprintf("removal of manifest %s from %s", d, r.Repository()), func(ctx context.Context, e *endpoint) error {
		at, err := e.location(ctx, "manifests/"+d.String())
		if err != nil {
			return err
		}
		resp, _, err := e.change(ctx, &request{method: http.MethodDelete, actions: []string{actionDelete}}, at, http.StatusAccepted)
		if unsure && errors.Is(err, remote.ErrNotFound) {
			return nil
		}
		if err != nil {
			unsure = unsure || !classify(err).undone()
			return err
		}
		drain(resp.Body)
		return nil
	})
}
