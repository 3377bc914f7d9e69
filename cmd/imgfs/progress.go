package main

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/opencontainers/go-digest"
)

// A progress shows how much has been read of an image's layers.
type progress struct{ bars *show.LayerBars }

func (e *env) newProgress(img *remote.Image) progress {
	layers := make([]digest.Digest, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = l.Digest()
	}
	return progress{show.NewLayerBars(e, layers)}
}

// update is for image.Options.Progress.
func (p progress) update(u image.Progress) {
	p.bars.Update(show.LayerUpdate{Layer: u.Layer, Read: u.Read, Size: u.Size, Done: u.Done})
}

// finish waits until all is drawn.
func (p progress) finish() { p.bars.Finish() }
