package cache

import (
	"encoding/json"
	"path"
)

// rightMeta reports whether data is what the name of a manifest or config says.
func rightMeta(name string, data []byte) bool {
	d, ours := digestOf(name)
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
