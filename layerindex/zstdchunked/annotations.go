package zstdchunked

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// The annotations of a layer's descriptor that Annotated reads. The first programs wrote
// them with the other prefix.
const (
	prefix      = "io.github.containers.zstd-chunked."
	firstPrefix = "io.containers.zstd-chunked."

	checksumKey = "manifest-checksum"
	positionKey = "manifest-position"
	tarSplitKey = "tarsplit-position"
)

// Annotations are what a manifest says of a zstd:chunked layer.
type Annotations struct {
	// ManifestChecksum is the digest of the TOC as it is stored, compressed, and
	// ManifestPosition where it is: offset, length, length decoded and type, with
	// colons between them.
	ManifestChecksum, ManifestPosition string
	// TarSplitPosition is where the tar-split is: offset, length and length decoded.
	// "" if the layer has none. Its digest is in the TOC.
	TarSplitPosition string
	// First says that the annotations have the prefix of the first programs. These
	// may have written less than is in the tar.
	First bool
}

// Annotated returns what the annotations of a layer's descriptor say. The error wraps
// ErrNone if the layer is not zstd:chunked by them, and layerindex.ErrIndex if they
// contradict each other.
func Annotated(annotations map[string]string) (Annotations, error) {
	var found []Annotations
	for _, p := range []string{prefix, firstPrefix} {
		a := Annotations{
			ManifestChecksum: annotations[p+checksumKey],
			ManifestPosition: annotations[p+positionKey],
			TarSplitPosition: annotations[p+tarSplitKey],
			First:            p == firstPrefix,
		}
		if a.ManifestChecksum != "" && a.ManifestPosition != "" {
			found = append(found, a)
		}
	}
	switch {
	case len(found) == 0:
		return Annotations{}, fmt.Errorf("%w: the layer has no annotations of zstd:chunked", ErrNone)
	case len(found) == 2 && (found[0].ManifestChecksum != found[1].ManifestChecksum || found[0].ManifestPosition != found[1].ManifestPosition):
		return Annotations{}, fmt.Errorf("%w: the annotations with two prefixes name two TOCs", layerindex.ErrIndex)
	}
	return found[0], nil
}

// A position is a range of the blob, and what it decodes to.
type position struct{ off, stored, raw int64 }

func (p position) end() int64 { return p.off + p.stored }

// tocType is the type of a TOC, as its position has it: the one of CRFS.
const tocType = 1

// parsePosition reads numbers with colons between them: those of a position, and as many
// as more.
func parsePosition(s string, size int64, more ...*int64) (position, error) {
	var p position
	numbers := append([]*int64{&p.off, &p.stored, &p.raw}, more...)
	parts := strings.SplitN(s, ":", len(numbers)+1)
	ok := len(parts) == len(numbers)
	for i := 0; ok && i < len(parts); i++ {
		n, err := strconv.ParseUint(parts[i], 10, 63)
		*numbers[i], ok = int64(n), err == nil
	}
	if !ok {
		return p, fmt.Errorf("%w: %q is no position", layerindex.ErrIndex, s[:min(len(s), 100)])
	}
	if p.stored == 0 || p.off > size || p.stored > size-p.off {
		return p, fmt.Errorf("%w: the position %s is not in a blob of %d bytes", layerindex.ErrIndex, s, size)
	}
	return p, nil
}
