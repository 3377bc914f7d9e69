package registry

import (
	"context"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// DeleteManifest is deleteManifest.
func (r *Repository) DeleteManifest(ctx context.Context, d digest.Digest) error {
	return r.deleteManifest(ctx, d)
}

// PutStream puts a manifest under its digest from a reader that cannot begin
// again.
func (r *Repository) PutStream(ctx context.Context, mediaType string, d digest.Digest, body io.ReadCloser, size int64) error {
	p := &payload{mediaType: mediaType, size: size, once: true, open: func() (io.ReadCloser, error) { return body, nil }}
	return r.write(ctx, "a stream", func(ctx context.Context, e *endpoint) error {
		at, err := e.location(ctx, "manifests/"+d.String())
		if err != nil {
			return err
		}
		resp, _, err := e.change(ctx, &request{method: http.MethodPut, actions: pushing, payload: p}, at, http.StatusCreated)
		if err != nil {
			return err
		}
		drain(resp.Body)
		return nil
	})
}
