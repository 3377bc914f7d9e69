package image

import (
	"context"

	"github.com/imgfs/imgfs/remote"
)

// Document returns what a name means, as Resolve has names, byte for byte: the
// manifest of an image, an image index, the manifest of an artifact, or whatever else
// is there. No platform is chosen, and nothing is read that is not returned: see
// remote.OpenDocument. Opts and errors are those of Resolve.
func Document(ctx context.Context, name string, opts *Options) ([]byte, error) {
	return document(ctx, name, opts, func(ctx context.Context, src remote.Source, _ string) (*remote.Document, error) {
		return remote.OpenDocument(ctx, src)
	})
}

// Config returns the config of what a name means, as Resolve has names, byte for byte:
// an image's for Options.Platform, or what an artifact has in its place. Opts and
// errors are those of Resolve.
func Config(ctx context.Context, name string, opts *Options) ([]byte, error) {
	return document(ctx, name, opts, remote.OpenConfig)
}

func document(ctx context.Context, name string, opts *Options, open func(context.Context, remote.Source, string) (*remote.Document, error)) ([]byte, error) {
	r, err := newResolved(opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	src, err := r.source(ctx, name)
	if err != nil {
		return nil, err
	}
	doc, err := open(ctx, src, r.opts.Platform)
	if err != nil {
		return nil, r.adviseName(ctx, src, err)
	}
	r.warn(doc.Warnings)
	return doc.Content, nil
}
