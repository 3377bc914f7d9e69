package estargz

import (
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
	"github.com/imgfs/imgfs/layerindex/internal/toc"
)

// maxBetween bounds what is read and decoded to find out whether the TOC is a part of
// the tar: the last content, and the headers behind it.
const maxBetween = 16 << 20

// addTOC adds the file that the TOC is in, as the tar has it. Without an annotation
// nothing tells it from any other file of the layer, so it is in the tree.
func (r *indexer) addTOC() error {
	in, err := r.inTar()
	if err != nil || !in {
		return err
	}
	// It is one more content, behind the others.
	r.builder.Extend(r.layer.Size - r.footer.size)
	return r.builder.Add(&toc.Entry{Entry: r.entry, Offset: r.footer.toc, InnerOffset: r.entry.Off})
}

// inTar reports whether the TOC is a file of the tar. Whoever keeps the tar's bytes, as
// BuildKit does, writes the TOC behind the blocks of zeros that a tar ends with, where no
// reader looks. So it is looked at what is between the last content and the TOC.
func (r *indexer) inTar() (bool, error) {
	in, inner, pad := r.builder.Last()
	if r.footer.toc-in > maxBetween || inner > maxBetween {
		return false, fmt.Errorf("%w: the last content is too long to find out where the tar ends", ErrNone)
	}
	scan := tarscan.New(func(*layerindex.Entry) error { return nil }, &tarscan.Options{NoDigests: true})
	defer scan.Release()
	if r.footer.toc > in {
		if err := r.scanBehind(scan, in, inner+pad); err != nil {
			return false, err
		}
	}
	if _, err := scan.Write(r.head); err != nil {
		return false, asIndexError(err)
	}
	return scan.Content() > 0, nil
}

// scanBehind scans the tar from byte skip of what the member at byte in decodes to, up
// to the TOC.
func (r *indexer) scanBehind(scan *tarscan.Scanner, in, skip int64) error {
	stored, err := r.read(in, r.footer.toc)
	if err != nil {
		return err
	}
	text, err := toc.NewText(r.ctx, layerindex.Gzip, stored, 2*maxBetween)
	if err != nil {
		return err
	}
	defer text.Close()
	if _, err = io.CopyN(io.Discard, text, skip); err == nil {
		_, err = io.Copy(scan, text)
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the last content is cut off", layerindex.ErrIndex)
	}
	return asIndexError(err)
}
