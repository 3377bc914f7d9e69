package serve

import (
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
)

// backings are the kept files of a mount's image, for the kernel to read.
type backings struct{ of *Mount }

// Backing implements fusefs.Backings.
func (b backings) Backing(n fs.Node, exec bool) (fusefs.BackingFile, bool) {
	return b.of.opened.Load().KeptFile(n, exec) // what is opened is of an image that is open
}

// BackingProbe implements fusefs.Backings.
func (b backings) BackingProbe() (fusefs.BackingFile, error) {
	return b.of.opened.Load().KeptFileProbe()
}
