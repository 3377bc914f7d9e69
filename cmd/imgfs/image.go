package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
)

// imageOptions returns the options for opening images that the flags give, but not
// the cache.
func (e *env) imageOptions() *image.Options {
	opts := &image.Options{
		CacheDir: e.cacheDir.String(), Platform: e.platform, Offline: e.offline, AuthFile: e.authfile, DockerHost: e.dockerHost, StreamNow: e.streamNow,
		Directories: e.directories, Layers: e.lowest, Stdin: e.stdin.take, Debugf: e.Debugf, Warnf: e.Warnf,
	}
	e.limits.configure(opts)
	e.network.configure(&opts.Registry)
	opts.Registry.UserAgent, opts.Registry.Logf, opts.Registry.Tracef = "imgfs/"+version(), e.Debugf, e.Debugf
	if e.credentials != "" {
		opts.Registry.Fallback = containerd.AskAt(e.credentials)
	}
	if e.tlsVerify.Given {
		opts.Registry.TLSVerify = &e.tlsVerify.Value
	}
	return opts
}

// openCache opens the cache directory.
func (e *env) openCache() (*cache.Cache, error) { return e.openCacheOr(false) }

// openCacheOr is openCache; with without a directory that cannot be used is one that takes
// nothing.
func (e *env) openCacheOr(without bool) (*cache.Cache, error) {
	size := e.cacheSize
	if text := os.Getenv("IMGFS_CACHE_SIZE"); !size.Given && text != "" {
		if err := size.Set(text); err != nil {
			return nil, cli.Usagef("the variable IMGFS_CACHE_SIZE: %v", err)
		}
	}
	opts := e.imageOptions()
	opts.CacheSize, opts.AnyCache = size.Option(), without
	return image.OpenCache(opts)
}

// resolve finds an image, and reads its manifest and config.
func (e *env) resolve(ctx context.Context, name string, disk *cache.Cache) (*image.Resolved, error) {
	name, err := e.located(ctx, name)
	if err != nil {
		return nil, err
	}
	opts := e.imageOptions()
	opts.Cache = disk
	if err := e.indexes.configure(opts); err != nil {
		return nil, err
	}
	if e.adjust != nil {
		e.adjust(opts)
	}
	unpacked := e.showUnpacking(opts)
	r, err := image.Resolve(ctx, name, opts)
	unpacked()
	if err != nil {
		return nil, e.advise(ctx, name, authfileError(err))
	}
	e.network.servers.Watch(r.Servers)
	return r, nil
}

// showUnpacking has what opts are for show how much of an archive is unpacked, until
// done is called.
func (e *env) showUnpacking(opts *image.Options) (done func()) {
	var bar *show.Bar
	opts.Unpacking = func(read, size int64) {
		if bar == nil {
			bar = show.NewBar(e, "unpacking")
		}
		bar.Update(read, size)
	}
	return func() {
		if bar != nil {
			bar.Finish()
		}
	}
}

// authfileError says of an error about the file that --authfile names that it is.
func authfileError(err error) error {
	if failed := (*image.Error)(nil); errors.As(err, &failed) && failed.Hint == image.HintAuthFile {
		return fmt.Errorf("--authfile: %w", err)
	}
	return err
}

// layers opens an image and all of its layers, and shows the progress of that.
func (e *env) layers(ctx context.Context, name string, disk *cache.Cache) (*image.Layers, error) {
	r, err := e.resolve(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	return e.openLayers(ctx, r)
}

// openLayers opens all layers of an image, and shows the progress of that.
func (e *env) openLayers(ctx context.Context, r *image.Resolved) (*image.Layers, error) {
	all := make([]show.Layer, len(r.Layers))
	for i, l := range r.Layers {
		all[i] = show.Layer{Digest: l.Digest(), Size: l.Size()}
	}
	progress := show.NewLayers(e, all)
	layers, err := r.OpenLayers(ctx, func(p image.Progress) {
		progress.Update(show.LayerUpdate{Layer: p.Layer, Read: p.Read, Index: p.Index, Done: p.Done})
	})
	progress.Finish(err == nil)
	return layers, err
}

// tree opens an image as one tree.
func (e *env) tree(ctx context.Context, name string, disk *cache.Cache) (*image.Image, error) {
	layers, err := e.layers(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	return e.merge(ctx, layers)
}

// merge makes one tree of the layers of an image.
func (e *env) merge(ctx context.Context, layers *image.Layers) (*image.Image, error) {
	limitMemory(e.limits.held + e.mergeMemory(layers))
	return layers.Merge(ctx)
}

// mergeSurvey makes one tree of the layers of an image, and a survey of what they do,
// which takes as much again.
func (e *env) mergeSurvey(ctx context.Context, layers *image.Layers) (*image.Image, *fs.Survey, error) {
	limitMemory(e.limits.held + 2*e.mergeMemory(layers))
	return layers.MergeSurvey(ctx)
}

// mergeMemory returns how many bytes merging the layers of an image takes at most.
func (e *env) mergeMemory(layers *image.Layers) int64 {
	return mergeMemory(layers.All(), cmp.Or(e.limits.metadata.Option(), image.DefaultMaxMetadata))
}

// reportTraffic says with --verbose what has come over the network.
func (e *env) reportTraffic(disk *cache.Cache) {
	n := disk.Stats()
	e.Debugf("fetched %s: %s of layers to index them, %s of layers to read them, %s of manifests and configs",
		show.Bytes(n.Recorded+n.Fetched+n.MetaFetched), show.Bytes(n.Recorded), show.Bytes(n.Fetched), show.Bytes(n.MetaFetched))
}

// absLocation makes the path in an image's name absolute, for a process with
// another working directory.
func absLocation(name string) (string, error) {
	loc, err := remote.ParseLocation(name)
	if err != nil || !loc.InFile() {
		return name, err
	}
	if loc.Path, err = filepath.Abs(loc.Path); err != nil {
		return "", err
	}
	return loc.String(), nil
}
