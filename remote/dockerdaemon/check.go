package dockerdaemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
)

// maxDocuments is how many documents of a stream are read to find out what has an ID.
const maxDocuments = 1000

// members are those of an archive.
type members interface {
	Member(name string) (*io.SectionReader, error)
}

// check returns an error if what was streamed is not the image with the ID that was asked
// for.
func (s *Source) check(ctx context.Context, whole *dockerarchive.Source, a members, found found) error {
	id := digest.Digest(found.ID)
	if isID(s.location.Path) {
		id = digest.Digest(s.location.Path)
	}
	config, _, err := configOf(ctx, whole)
	if err != nil {
		return err
	}
	left := maxDocuments
	if config == id || leads(a, id, config, &left) {
		return nil
	}
	if stored := found.Descriptor; stored != nil && stored.Digest == id.String() {
		if _, err := a.Member(blobName(id)); err != nil {
			return nil // of an index that is not sent nothing can be said: one platform was asked for
		}
	}
	return fmt.Errorf("%w: the daemon sends another image, whose config is %s, for %s", remote.ErrUnavailable, config, id)
}

// configOf returns the digest of an archive's config, and the manifest.
func configOf(ctx context.Context, whole *dockerarchive.Source) (config digest.Digest, manifest []byte, err error) {
	top, err := whole.Resolve(ctx)
	if err == nil {
		manifest, err = whole.Fetch(ctx, top)
	}
	if err != nil {
		return "", nil, err
	}
	var m document
	err = json.Unmarshal(manifest, &m)
	return m.Config.Digest, manifest, err
}

// A document is a manifest or an image index.
type document struct {
	Config    descriptor
	Layers    []descriptor
	Manifests []descriptor
}

type descriptor struct {
	Digest digest.Digest
	Size   int64
}

func blobName(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// leads reports whether a document in an archive that is also a layout, as docker 25 and
// later write, leads to a config: a manifest that has it, or an image index with such
// a one. left is how many more may be read.
func leads(a members, d, config digest.Digest, left *int) bool {
	if *left--; *left < 0 || d.Validate() != nil {
		return false
	}
	r, err := a.Member(blobName(d))
	if err != nil || r.Size() > maxAnswer {
		return false
	}
	content, err := io.ReadAll(r)
	var doc document
	if err != nil || d.Algorithm().FromBytes(content) != d || json.Unmarshal(content, &doc) != nil {
		return false
	}
	if doc.Config.Digest == config {
		return true
	}
	for _, m := range doc.Manifests {
		if leads(a, m.Digest, config, left) {
			return true
		}
	}
	return false
}
