package serve

import (
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
)

// backings are the kept files of an image, for the kernel to read.
type backings struct{ img *image.Image }

// Backing implements fusefs.Backings.
func (b backings) Backing(n fs.Node, exec bool) (fusefs.BackingFile, bool) {
	return b.img.KeptFile(n, exec)
}

// BackingProbe implements fusefs.Backings.
func (b backings) BackingProbe() (fusefs.BackingFile, error) { return b.img.KeptFileProbe() }
