package image

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
)

// An index of others is compared with the one that a pass over the blob makes: it
// must list the same entries, as far as its format can, and give each file the
// content that the tar has.

// A comparison compares two indexes of a layer.
type comparison struct {
	theirs, ours *layerindex.Index
	// theirsAt and oursAt read the layer by the two.
	theirsAt, oursAt *reader.Reader
	hides            bool // see hidesTOC
	gone             bool // digests of theirs are not to be had
	placed           bool // what the indexes say is enough: whoever has the same digest has the same content
	proofs           *layerindex.Proofs
	places           placesTable
	buf, other       []byte
}

// errDisagree: an index of others says something else than the layer.
var errDisagree = errors.New("the layer has it otherwise")

// errUntold: digests do not tell whether contents are the same.
var errUntold = errors.New("an entry has no digest")

// agree compares an index that others made with ours, which was made of the bytes that
// blob has. It returns where the contents are that theirs has elsewhere. The error
// wraps errDisagree and names the entry.
//
// With gone parts of theirs are known not to be had: its digests are not waited for.
func agree(ctx context.Context, theirs, ours *layerindex.Index, blob reader.Blob, hides, gone bool) (placesTable, error) {
	c := &comparison{theirs: theirs, ours: ours, hides: hides, gone: gone, buf: make([]byte, comparePiece), other: make([]byte, comparePiece)}
	cache := reader.NewSpanCache(keptMemory)
	c.theirsAt = reader.New(theirs, blob, &reader.Options{Cache: cache})
	defer c.theirsAt.Close()
	c.oursAt = reader.New(ours, blob, &reader.Options{Cache: cache})
	defer c.oursAt.Close()
	if theirs.ProofKind() == layerindex.ProofOutput {
		var err error
		if c.proofs, err = theirs.Proofs(); err != nil {
			return nil, err
		}
	}
	err := c.run(ctx)
	if err == nil {
		err = c.spans(ctx)
	}
	if err != nil {
		return nil, err
	}
	if c.places.identical() {
		return nil, nil
	}
	return c.places, nil
}

// comparePiece is how much of a file is compared at a time.
const comparePiece = 256 << 10

func (c *comparison) run(ctx context.Context) error {
	list := c.theirs.ListDigests
	if c.gone {
		list = func(ctx context.Context) (*layerindex.Listing, error) { return c.theirs.List(ctx, nil) }
	}
	theirs, err := list(ctx)
	if err != nil && ctx.Err() == nil && !c.gone {
		theirs, err = c.theirs.List(ctx, nil) // digests that cannot be had say nothing
	}
	if err != nil {
		return err
	}
	ours, err := c.ours.ListDigests(ctx)
	if err != nil {
		return err
	}
	nextTheirs, stop := iter.Pull(c.shown(theirs.All()))
	defer stop()
	nextOurs, stop := iter.Pull(c.shown(ours.All()))
	defer stop()
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		t, ok := nextTheirs()
		o, okOurs := nextOurs()
		switch {
		case !ok && !okOurs:
			return errors.Join(theirs.Err(), ours.Err())
		case !ok:
			return fmt.Errorf("%w: it lacks entry %q", errDisagree, o.Name)
		case !okOurs:
			return fmt.Errorf("%w: it has entry %q, which is not there", errDisagree, t.Name)
		}
		if what := c.difference(t, o); what != "" {
			return fmt.Errorf("%w: %s of entry %q", errDisagree, what, o.Name)
		}
		if err := c.content(ctx, t, o); err != nil {
			return err
		}
	}
}

// shown leaves out what is hidden.
func (c *comparison) shown(all layerindex.Entries) layerindex.Entries {
	if c.hides {
		return withoutTOC(all)
	}
	return all
}

// tarName is a name in a tar without what means nothing in it: it may begin with ./
// or / and end with a slash.
func tarName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// difference names what of an entry is not the same, or returns "".
func (c *comparison) difference(t, o *layerindex.Entry) string {
	for _, x := range []struct {
		what string
		same bool
	}{
		{"the name", tarName(t.Name) == tarName(o.Name)},
		{"the type", t.Type == o.Type},
		{"the mode", t.Mode == o.Mode},
		{"the owner", t.UID == o.UID && t.GID == o.GID},
		{"the size", t.Size == o.Size},
		{"the link target", c.sameLink(t, o)},
		{"the time", c.sameTime(t, o)},
		{"the device number", t.Major == o.Major && t.Minor == o.Minor},
		{"the attributes", c.sameXattrs(t.Xattrs, o.Xattrs)},
		{"the digest of the content", !t.HasDigest || !o.HasDigest || t.Digest == o.Digest},
	} {
		if !x.same {
			return x.what
		}
	}
	return ""
}

func (c *comparison) sameLink(t, o *layerindex.Entry) bool {
	if o.Type == layerindex.TypeLink {
		return tarName(t.Linkname) == tarName(o.Linkname)
	}
	return t.Linkname == o.Linkname
}

// sameTime compares times as exactly as their format has them.
func (c *comparison) sameTime(t, o *layerindex.Entry) bool {
	sec, nsec := o.ModSec, o.ModNsec
	if c.theirs.Losses()&layerindex.LossSubSecond != 0 {
		sec, nsec = wholeSecond(sec, nsec), 0
	}
	return t.ModSec == sec && t.ModNsec == nsec
}

// wholeSecond returns what eStargz makes of a time: it rounds, but has none in the first
// second of 1970, nor the zero time of Go (stargz-snapshotter, formatModtime).
func wholeSecond(sec int64, nsec uint32) int64 {
	t := time.Unix(sec, int64(nsec))
	if sec == 0 || t.IsZero() {
		return 0
	}
	return t.Round(time.Second).Unix()
}

func (c *comparison) sameXattrs(t, o []layerindex.Xattr) bool {
	sorted := func(list []layerindex.Xattr) []layerindex.Xattr {
		list = slices.Clone(list)
		if c.theirs.Losses()&layerindex.LossEmptyXattrs != 0 {
			list = slices.DeleteFunc(list, func(x layerindex.Xattr) bool { return x.Value == "" })
		}
		slices.SortStableFunc(list, func(a, b layerindex.Xattr) int { return cmp.Compare(a.Name, b.Name) })
		return list
	}
	return slices.Equal(sorted(t), sorted(o))
}

// content compares the content of a regular file, and notes where it is.
func (c *comparison) content(ctx context.Context, t, o *layerindex.Entry) error {
	if t.Type != layerindex.TypeReg || t.Size == 0 {
		return nil
	}
	if !slices.Equal(t.Sparse, o.Sparse) || (t.Sparse == nil) != (o.Sparse == nil) {
		return fmt.Errorf("%w: where the data are in entry %q", errDisagree, o.Name)
	}
	if c.theirsAt == nil && !c.placed {
		return nil // only what the indexes say is compared
	}
	if c.theirs.Space() == layerindex.SpaceTar {
		if t.Off != o.Off {
			return fmt.Errorf("%w: where the content of entry %q is", errDisagree, o.Name)
		}
		return nil // spans compares what is there
	}
	size := t.Size
	if t.Sparse != nil {
		size = 0
		for _, x := range t.Sparse {
			size += x.Size
		}
	}
	c.places.add(t.Off, o.Off)
	if c.theirsAt == nil && !(t.HasDigest && o.HasDigest) {
		return errUntold
	}
	if c.theirsAt == nil || c.proven(t, o) {
		return nil
	}
	sum := sha256.New()
	for at := int64(0); at < size; {
		p := c.buf[:min(size-at, comparePiece)]
		err := readFull(ctx, c.theirsAt, p, t.Off+at, t.Off+size)
		if errors.Is(err, layerindex.ErrIndex) || errors.Is(err, layerindex.ErrCompressed) {
			return fmt.Errorf("%w: the content of entry %q cannot be decoded: %w", errDisagree, o.Name, err)
		}
		if err != nil {
			return err
		}
		if o.HasDigest {
			sum.Write(p)
		} else {
			q := c.other[:len(p)]
			if err := readFull(ctx, c.oursAt, q, o.Off+at, o.Off+size); err != nil {
				return err
			}
			if !bytes.Equal(p, q) {
				return fmt.Errorf("%w: the content of entry %q", errDisagree, o.Name)
			}
		}
		at += int64(len(p))
	}
	if o.HasDigest && [32]byte(sum.Sum(nil)) != o.Digest {
		return fmt.Errorf("%w: the content of entry %q", errDisagree, o.Name)
	}
	return nil
}

// proven reports whether one proof is of the whole content, by its right digest: then
// nothing else was ever read of it.
func (c *comparison) proven(t, o *layerindex.Entry) bool {
	if c.proofs == nil || !o.HasDigest {
		return false
	}
	i := c.proofs.Find(t.Off)
	if i < 0 || i >= c.proofs.Len() {
		return false
	}
	p := c.proofs.At(i)
	return p.Off == t.Off && p.Size == t.Size && p.Sum == o.Digest
}

func readFull(ctx context.Context, r *reader.Reader, p []byte, off, end int64) error {
	n, err := r.ReadFileAt(ctx, p, off, end)
	switch {
	case n == len(p):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil || err == io.EOF:
		return fmt.Errorf("%w: content past the end", layerindex.ErrIndex)
	}
	return err
}

// A placesTable says where contents are in the uncompressed stream of one index that
// are elsewhere in that of another. nil: nowhere else.
type placesTable []place

type place struct{ from, to int64 }

// add adds the next content.
func (t *placesTable) add(from, to int64) { *t = append(*t, place{from, to}) }

func (t placesTable) identical() bool {
	return !slices.ContainsFunc(t, func(p place) bool { return p.from != p.to })
}

// find returns where byte off is, which is one of a content.
func (t placesTable) find(off int64) int64 {
	if t == nil {
		return off
	}
	i, ok := slices.BinarySearchFunc(t, off, func(p place, off int64) int { return cmp.Compare(p.from, off) })
	if !ok {
		i--
	}
	if i < 0 {
		return off
	}
	return t[i].to + off - t[i].from
}
