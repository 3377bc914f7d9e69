package main

import (
	"github.com/imgfs/imgfs/fs"
	"github.com/spf13/pflag"
)

// limits are what one image may take of this machine.
type limits struct {
	metadata  boundFlag
	layerSize boundFlag
}

// flags declares the flags of the limits.
func (l *limits) flags(f *pflag.FlagSet) {
	f.Var(&l.metadata, "max-metadata", "")
	f.Var(&l.layerSize, "max-layer-size", "")
}

// configure sets what l says in opts. A size that the user gives for layers bounds
// both forms of them.
func (l *limits) configure(opts *fs.Options) {
	opts.MaxMetadata = l.metadata.option()
	opts.Metadata = raiseMemory
	// A layer that is not compressed is as big when it is sent.
	opts.MaxLayer, opts.MaxBlob = l.layerSize.option(), l.layerSize.option()
}
