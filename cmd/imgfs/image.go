package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
)

// imageOptions returns what the flags say of opening images, but for the cache.
func (e *env) imageOptions() *image.Options {
	opts := &image.Options{
		CacheDir: e.cacheDir, Platform: e.platform, Offline: e.offline, AuthFile: e.authfile,
		Debugf: e.Debugf, Warnf: e.Warnf,
	}
	e.limits.configure(opts)
	e.network.configure(&opts.Registry)
	opts.Registry.UserAgent, opts.Registry.Logf, opts.Registry.Tracef = "imgfs/"+version(), e.Debugf, e.Debugf
	if e.tlsVerify.Given {
		opts.Registry.TLSVerify = &e.tlsVerify.Value
	}
	return opts
}

// openCache opens the cache directory.
func (e *env) openCache() (*cache.Cache, error) {
	size := e.cacheSize
	if text := os.Getenv("IMGFS_CACHE_SIZE"); !size.Given && text != "" {
		if err := size.Set(text); err != nil {
			return nil, cli.Usagef("the variable IMGFS_CACHE_SIZE: %v", err)
		}
	}
	opts := e.imageOptions()
	opts.CacheSize = size.Option()
	return image.OpenCache(opts)
}

// resolve finds an image, and what it says of itself.
func (e *env) resolve(ctx context.Context, name string, disk *cache.Cache) (*image.Resolved, error) {
	opts := e.imageOptions()
	opts.Cache = disk
	r, err := image.Resolve(ctx, name, opts)
	if err != nil {
		if failed := (*image.Error)(nil); errors.As(err, &failed) && failed.Hint == image.HintAuthFile {
			err = fmt.Errorf("--authfile: %w", err)
		}
		return nil, err
	}
	e.network.servers.Watch(r.Servers)
	return r, nil
}

// layers opens an image and all of its layers, and shows how far that is.
func (e *env) layers(ctx context.Context, name string, disk *cache.Cache) (*image.Layers, error) {
	r, err := e.resolve(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	p := e.newProgress(r.Image)
	defer p.finish()
	return r.OpenLayers(ctx, p.update)
}

// tree opens an image as one tree.
func (e *env) tree(ctx context.Context, name string, disk *cache.Cache) (*image.Image, error) {
	layers, err := e.layers(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	limitMemory(mergeMemory(layers.All(), cmp.Or(e.limits.metadata.Option(), image.DefaultMaxMetadata)))
	return layers.Merge(ctx)
}

// openTree opens an image as one tree with the user's cache. done closes both.
func (e *env) openTree(ctx context.Context, name string) (img *image.Image, done func(), err error) {
	disk, err := e.openCache()
	if err != nil {
		return nil, nil, err
	}
	if img, err = e.tree(ctx, name, disk); err != nil {
		disk.Close()
		return nil, nil, err
	}
	return img, func() { img.Close(); disk.Close() }, nil
}

// imageHint returns what to type about an error of opening an image.
func imageHint(err *image.Error) string {
	switch err.Hint {
	case image.HintDefaultCacheDir:
		return "name a cache directory with --cache-dir DIR"
	case image.HintCacheDir:
		hint := "name another cache directory with --cache-dir DIR or IMGFS_CACHE_DIR"
		if err.Advice != "" {
			hint = err.Advice + ", or " + hint
		}
		return hint
	case image.HintUnpack:
		return "unpack it yourself, which needs no copy, or give the cache more room with --cache-size SIZE or --cache-dir DIR"
	case image.HintFetch:
		return "imgfs index --fetch " + printable.Word(err.Name) + ", without --offline, brings all of it into the cache"
	case image.HintAllowPrivate:
		return "if you trust " + err.Host + " with what this machine can reach: --allow-private"
	case image.HintCertificate:
		return "put the certificate to trust into /etc/containers/certs.d/" + err.Host + "/ca.crt, or do without: --tls-verify=false"
	case image.HintLogin:
		return "podman login " + err.Host + " (or docker login), or --authfile FILE; registries say so of images that do not exist, too"
	}
	return ""
}

// absLocation makes the path in an image's name absolute, for a process with
// another working directory.
func absLocation(name string) (string, error) {
	loc, err := remote.ParseLocation(name)
	if err != nil || loc.Transport == remote.TransportDocker {
		return name, err
	}
	if loc.Path, err = filepath.Abs(loc.Path); err != nil {
		return "", err
	}
	return loc.String(), nil
}
