package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"

	"github.com/imgfs/imgfs/fs"
)

// Identity returns a text that says which tree the image has. Trees of images with the
// same identity are the same, entry for entry and in the same order, with the same inode
// numbers, attributes and sizes, and the same content as far as its index vouches for it;
// in whatever process, and by whatever version of imgfs. It does not change while the image
// is open, though a layer may come to be read by another index than it was opened by.
//
// It is made of fs.TreeVersion, of the index that the tree was made of for each layer, of
// the platform, and of Options.Directories. What a mount shows otherwise than the tree has
// it, as fusefs.Options.Owners and DeadDevices, the caller adds.
//
// Different identities need not mean different trees: the index that imgfs makes of a
// layer, and one that is made of its table of contents, are not the same.
func (i *Image) Identity() string {
	sum := sha256.New()
	r := i.layers.from
	fmt.Fprintf(sum, "tree %d\n", fs.TreeVersion)
	if r.Image != nil {
		p := r.Platform
		fmt.Fprintf(sum, "platform %q\n", path.Join(p.OS, p.Architecture, p.Variant))
	}
	for at, l := range i.layers.all {
		fmt.Fprintf(sum, "layer %x %v %v\n", l.opened.index.HeaderSum(), hidesTOC(l.Layer), repeats(i.layers.all, at))
	}
	for _, dir := range r.opts.Directories {
		fmt.Fprintf(sum, "directory %q\n", dir)
	}
	return fmt.Sprintf("%d-%s", fs.TreeVersion, hex.EncodeToString(sum.Sum(nil)))
}
