package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"maps"

	"github.com/imgfs/imgfs/remote/magic"
)

// maxLook is how much of a compressed tar Look unpacks.
const maxLook = 16 << 20

// Look returns the names of what is in the tar in a regular file, directories too,
// without unpacking it to anywhere: of a compressed one those that come first. If
// the file, or what is compressed in it, is no tar the format says what it is
// instead, as far as that is known. It is for messages: what is damaged ends the
// names, and there are none of what is compressed in a way that Decompress does not
// know, or twice.
func Look(ctx context.Context, name string) (names []string, format magic.Format, err error) {
	file, info, err := openFile(name)
	if err != nil {
		return nil, format, err
	}
	defer file.Close()
	if !info.Mode().IsRegular() {
		return nil, format, errors.New("it is not a regular file")
	}
	head := make([]byte, magic.HeadSize)
	n, err := file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, format, err
	}
	if head = head[:n]; magic.IsTar(head) {
		return list(ctx, io.NewSectionReader(file, 0, info.Size())), format, nil
	}
	if format = magic.Of(head); !format.Compression {
		return nil, format, nil
	}
	r, _, err := Decompress(ctx, file)
	if err != nil {
		return nil, format, nil
	}
	defer r.Close()
	n, err = io.ReadFull(r, head[:cap(head)])
	if n == 0 && err != nil {
		return nil, magic.Format{}, nil
	}
	if head = head[:n]; !magic.IsTar(head) {
		inner := magic.Of(head)
		if inner.Compression {
			inner.Name += " in " + format.Name
		}
		return nil, inner, nil
	}
	return list(ctx, io.LimitReader(io.MultiReader(bytes.NewReader(head), r), maxLook)), magic.Format{}, nil
}

// list returns the names in a tar, as far as they can be read.
func list(ctx context.Context, r io.Reader) []string {
	names := []string{}
	tr := tar.NewReader(r)
	for len(names) < maxMembers && ctx.Err() == nil {
		h, err := tr.Next()
		if err != nil {
			break
		}
		if h.Typeflag != tar.TypeXGlobalHeader && len(h.Name) <= maxName {
			names = append(names, clean(h.Name))
		}
	}
	return names
}

// Names returns the names of an archive's members, in no order.
func (a *Archive) Names() iter.Seq[string] { return maps.Keys(a.members) }
