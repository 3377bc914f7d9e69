package main

import (
	"github.com/imgfs/imgfs/fs"
	"github.com/spf13/pflag"
)

// What an image may take unless the user allows more.
const (
	defaultMaxMetadata = 1 << 30
	defaultMaxLayer    = 64 << 30 // of its tar, in bytes
	defaultMaxBlob     = 16 << 30 // of the same layer as it is sent, in bytes
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

// configure sets what l says in opts.
func (l *limits) configure(opts *fs.Options) {
	opts.MaxMetadata = l.metadata.orDefault(defaultMaxMetadata)
	opts.Metadata = raiseMemory
	opts.MaxLayer, opts.MaxBlob = l.layer()
}

// layer returns how many bytes a layer may have when it is unpacked and as it
// is sent, 0 for any. A size that the user gives bounds both: a layer that is not
// compressed is as big when it is sent.
func (l *limits) layer() (unpacked, sent int64) {
	return l.layerSize.orDefault(defaultMaxLayer), l.layerSize.orDefault(defaultMaxBlob)
}
