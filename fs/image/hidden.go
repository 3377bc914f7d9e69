package image

import (
	"path"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/remote"
)

// hidesTOC reports whether the files of a layer that are there for snapshotters alone
// are hidden: what the manifest says of the layer decides, and not which index serves
// it (docs/semantics.md).
func hidesTOC(l remote.Layer) bool {
	_, ok := l.Annotations[estargz.TOCDigestAnnotation]
	return ok
}

// isTOCFile reports whether an entry is a file that eStargz adds to a layer: its table
// of contents, or a landmark.
func isTOCFile(e *layerindex.Entry) bool {
	if e.Type != layerindex.TypeReg {
		return false
	}
	switch path.Clean("/" + e.Name) {
	case "/stargz.index.json", "/.prefetch.landmark", "/.no.prefetch.landmark":
		return true
	}
	return false
}

// withoutTOC returns the entries but for those that isTOCFile is true of.
func withoutTOC(all layerindex.Entries) layerindex.Entries {
	return func(yield func(*layerindex.Entry) bool) {
		for e := range all {
			if !isTOCFile(e) && !yield(e) {
				return
			}
		}
	}
}
