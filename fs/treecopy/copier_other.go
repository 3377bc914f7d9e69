//go:build !linux

package treecopy

import (
	"context"
	"errors"
	"os"

	"github.com/imgfs/imgfs/fs"
)

// A Copier copies files of images.
type Copier struct{ opts Options }

// New returns a Copier. nil options are the defaults.
func New(opts *Options) *Copier {
	if opts == nil {
		opts = new(Options)
	}
	return &Copier{*opts}
}

// Copy fails: this system does not have what it needs.
func (c *Copier) Copy(context.Context, *fs.Tree, string, fs.Node, *os.File, string) error {
	return errors.ErrUnsupported
}
