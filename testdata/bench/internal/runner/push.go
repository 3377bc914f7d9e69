package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushAll copies an image into the registry, byte for byte, and all that belongs to it:
// skopeo refuses image indexes with artifacts. It returns the image's reference there.
func (r *Runner) PushAll(img *labimage.Image, repository, tag string) (string, error) {
	host, err := r.Registry()
	if err != nil {
		return "", err
	}
	p := &pusher{r: r, img: img, base: "http://" + host + "/v2/" + repository}
	if err := p.manifest(img.Top, tag); err != nil {
		return "", fmt.Errorf("pushing %s: %w", img.Layout, err)
	}
	return host + "/" + repository + ":" + tag, nil
}

// A pusher copies from a layout on disk to a repository.
type pusher struct {
	r    *Runner
	img  *labimage.Image
	base string
}

// manifest puts a manifest or an image index behind all that it names.
func (p *pusher) manifest(d ocispec.Descriptor, reference string) error {
	text, err := os.ReadFile(p.img.Blob(d.Digest))
	if err != nil {
		return err
	}
	var doc struct {
		Manifests []ocispec.Descriptor
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	for _, m := range doc.Manifests {
		if err := p.manifest(m, m.Digest.String()); err != nil {
			return err
		}
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, b := range doc.Layers {
		if err := p.blob(b.Digest); err != nil {
			return err
		}
	}
	_, err = p.send(http.MethodPut, p.base+"/manifests/"+reference, d.MediaType, bytes.NewReader(text), int64(len(text)), http.StatusCreated)
	return err
}

// blob puts a blob, unless it is there.
func (p *pusher) blob(d digest.Digest) error {
	if _, err := p.send(http.MethodHead, p.base+"/blobs/"+d.String(), "", nil, 0, http.StatusOK); err == nil {
		return nil
	}
	f, err := os.Open(p.img.Blob(d))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	to, err := p.send(http.MethodPost, p.base+"/blobs/uploads/", "", nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	query := to.Query()
	query.Set("digest", d.String())
	to.RawQuery = query.Encode()
	_, err = p.send(http.MethodPut, to.String(), "application/octet-stream", f, info.Size(), http.StatusCreated)
	return err
}

// send sends a request and returns where the answer leads to.
func (p *pusher) send(method, to, mediaType string, body io.Reader, size int64, want int) (*url.URL, error) {
	req, err := http.NewRequestWithContext(p.r.Ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return nil, fmt.Errorf("%s %s: %s: %s", method, to, resp.Status, text)
	}
	location, err := resp.Location()
	if err == http.ErrNoLocation {
		return nil, nil
	}
	return location, err
}
