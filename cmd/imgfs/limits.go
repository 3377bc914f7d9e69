package main

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

// limits bound how much of this machine one image may take.
type limits struct {
	metadata  cli.Bound
	layerSize cli.Bound

	held int64 // how many bytes images take that stay open while another is opened
}

// flags declares the flags of the limits.
func (l *limits) flags(f *pflag.FlagSet) {
	f.Var(&l.metadata, "max-metadata", "`SIZE` refuse images with more names and attributes (1G)")
	f.Var(&l.layerSize, "max-layer-size", "`SIZE` refuse bigger layers (64G unpacked, 16G as sent)")
}

// configure sets what l says in opts. A size that the user gives for layers bounds
// both forms of them.
func (l *limits) configure(opts *image.Options) {
	opts.MaxMetadata = l.metadata.Option()
	opts.Metadata = func(used int64) { raiseMemory(l.held + used) }
	// A layer that is not compressed is as big when it is sent.
	opts.MaxLayer, opts.MaxBlob = l.layerSize.Option(), l.layerSize.Option()
}
