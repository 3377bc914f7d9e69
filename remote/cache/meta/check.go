package meta

import (
	"context"
	"encoding/json"
	"path"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// Verify checks manifests, configs, references, verification marks, profiles and
// records of images, and removes those that are wrong; it returns how many files it looked at, and the
// paths below the directory of those that it removed. Files whose names are
// none of the cache's are left alone, and not counted.
//
// Others may use the directory meanwhile. The error is ctx.Err(), or that the
// disk fails.
func (c *Cache) Verify(ctx context.Context) (checked int, removed []string, err error) {
	for _, dir := range []struct {
		name  string
		right func(name string, data []byte) bool
	}{
		{directory.Meta, rightMeta},
		{directory.Refs, rightRef},
		{directory.Verified, rightMark},
		{directory.Images, rightImage},
		{directory.Profiles, rightProfile},
	} {
		some, wrong, err := c.dir.VerifyRecords(ctx, dir.name, dir.right)
		checked += some
		removed = append(removed, wrong...)
		if err != nil {
			return checked, removed, err
		}
	}
	return checked, removed, nil
}

// rightMeta reports whether data is what the name of a manifest or config says.
func rightMeta(name string, data []byte) bool {
	d, ours := directory.DigestOf(name)
	return ours && d.Algorithm().FromBytes(data) == d
}

// rightImage reports whether data is the record of an image of this name.
func rightImage(name string, data []byte) bool {
	img, ok := parseImage(data)
	return ok && img.fileName() == path.Base(name)
}

// rightRef reports whether data is a reference of this name.
func rightRef(name string, data []byte) bool {
	var r ref
	return json.Unmarshal(data, &r) == nil && r.Descriptor.Digest.Validate() == nil && refPath(r.Name) == name
}
