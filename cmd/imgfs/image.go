package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/dockerarchive"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// openCache opens the cache directory.
func (e *env) openCache() (*cache.Cache, error) {
	dir := e.cacheDir
	if dir == "" {
		var err error
		if dir, err = cache.DefaultDir(); err != nil {
			return nil, cli.WithHint(err, "name a cache directory with --cache-dir DIR")
		}
	}
	budget, err := e.budget()
	if err != nil {
		return nil, err
	}
	disk, err := cache.Open(dir, &cache.Options{Budget: budget, Warnf: e.Warnf})
	if err != nil {
		hint := "name another cache directory with --cache-dir DIR or IMGFS_CACHE_DIR"
		if unfit := (*cache.DirError)(nil); errors.As(err, &unfit) && unfit.Hint != "" {
			hint = unfit.Hint + ", or " + hint
		}
		return nil, cli.WithHint(err, hint)
	}
	return disk, nil
}

// budget returns how many bytes the cache directory may take, as
// cache.Options have it.
func (e *env) budget() (int64, error) {
	size := e.cacheSize
	if text := os.Getenv("IMGFS_CACHE_SIZE"); !size.Given && text != "" {
		if err := size.Set(text); err != nil {
			return 0, cli.Usagef("the variable IMGFS_CACHE_SIZE: %v", err)
		}
	}
	if size.Given {
		return size.Bytes, nil
	}
	return cache.DefaultBudget, nil
}

// source finds out what kind of place an image's name means. Nothing is asked
// of a registry yet. It stays open until the command ends.
func (e *env) source(ctx context.Context, name string, disk *cache.Cache) (remote.Source, error) {
	loc, err := remote.ParseLocation(name)
	if err != nil {
		return nil, err
	}
	switch loc.Transport {
	case remote.TransportOCI:
		return ocilayout.Open(loc.Path, loc.Image)
	case remote.TransportOCIArchive, remote.TransportDockerArchive:
		return e.archive(ctx, loc, disk)
	}
	conf, err := (&hosts.ConfigFiles{Logf: e.Debugf}).Load()
	if err != nil {
		return nil, err
	}
	full := loc.Path
	if !strings.HasPrefix(name, "docker://") {
		// As for podman and skopeo the transport says that it is no short name.
		if full, err = conf.ShortName(loc.Path); err != nil {
			return nil, err
		}
	}
	ref, err := remote.ParseReference(full)
	if err != nil {
		return nil, err
	}
	return e.repository(ref, conf, disk)
}

// archive opens an image in a file. What has to be unpacked of it goes to the
// cache directory, and counts there.
func (e *env) archive(ctx context.Context, loc remote.Location, disk *cache.Cache) (remote.Source, error) {
	var src interface {
		remote.Source
		io.Closer
	}
	var err error
	opts := &remote.ArchiveOptions{NewTemp: func() (remote.TempFile, error) { return tempFile(disk) }}
	opts.MaxSize = e.limits.layerSize.Option()
	if loc.Transport == remote.TransportOCIArchive {
		src, err = ocilayout.OpenArchive(ctx, loc.Path, loc.Image, opts)
	} else {
		src, err = dockerarchive.Open(ctx, loc.Path, loc.Image, opts)
	}
	if errors.Is(err, cache.ErrFull) {
		return nil, cli.WithHint(err, "unpack it yourself, which needs no copy, or give the cache more room with --cache-size SIZE or --cache-dir DIR")
	}
	if err != nil {
		return nil, err
	}
	e.closing = append(e.closing, src)
	return src, nil
}

// tempFile makes a temporary file within the budget.
func tempFile(disk *cache.Cache) (remote.TempFile, error) {
	f, err := disk.NewTempFile(nil)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// repository returns an image in a registry.
func (e *env) repository(ref remote.Reference, conf *hosts.Configuration, disk *cache.Cache) (remote.Source, error) {
	opts := &registry.Options{
		Sites:      conf.Sites,
		Credential: conf.Credentials(e.authfile),
		UserAgent:  "imgfs/" + version(),
		Logf:       e.Debugf,
		Tracef:     e.Debugf,
	}
	e.network.configure(opts)
	if e.tlsVerify.Given {
		opts.TLSVerify = &e.tlsVerify.Value
	}
	if e.authfile != "" {
		// A file that is not there would be noticed only by a registry that
		// wants a login.
		if _, err := os.Stat(e.authfile); err != nil {
			return nil, fmt.Errorf("--authfile: %w", err)
		}
	}
	client := registry.New(opts)
	e.closing = append(e.closing, client)
	e.network.servers.Watch(client.Health)
	return client.Repository(ref), nil
}

// open resolves an image. What a registry's manifests say is kept in the cache.
func (e *env) open(ctx context.Context, src remote.Source, disk *cache.Cache) (*remote.Image, error) {
	if _, ok := src.(*registry.Repository); ok {
		src = disk.Source(src, &cache.SourceOptions{Offline: e.offline, Warnf: e.Warnf})
	}
	img, err := remote.Open(ctx, src, e.platform)
	if err != nil {
		return nil, e.advise(src, err)
	}
	return img, nil
}

// advise adds to an error what to type, if it depends on the registry.
func (e *env) advise(src remote.Source, err error) error {
	host, _, _ := strings.Cut(src.Repository(), "/")
	switch {
	case e.offline && errors.Is(err, remote.ErrUnavailable):
		return cli.WithHint(err, "imgfs index --fetch "+printable.Word(src.Name())+", without --offline, brings all of it into the cache")
	case errors.Is(err, registry.ErrPrivate):
		return cli.WithHint(err, "if you trust "+host+" with what this machine can reach: --allow-private")
	case errors.Is(err, registry.ErrTLS):
		return cli.WithHint(err, "put the certificate to trust into /etc/containers/certs.d/"+host+"/ca.crt, or do without: --tls-verify=false")
	case errors.Is(err, remote.ErrUnauthorized):
		return cli.WithHint(err, "podman login "+host+" (or docker login), or --authfile FILE; registries say so of images that do not exist, too")
	}
	return err
}

// image finds and resolves an image.
func (e *env) image(ctx context.Context, name string, disk *cache.Cache) (*remote.Image, error) {
	src, err := e.source(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	return e.open(ctx, src, disk)
}

// layers opens an image and all of its layers.
func (e *env) layers(ctx context.Context, name string, disk *cache.Cache) (*remote.Image, []*image.Layer, error) {
	img, err := e.image(ctx, name, disk)
	if err != nil {
		return nil, nil, err
	}
	p := e.newProgress(img)
	opts := &image.Options{Cache: disk, Progress: p.update, Warnf: e.Warnf}
	e.limits.configure(opts)
	layers, err := image.OpenLayers(ctx, img, opts)
	p.finish()
	if err != nil {
		return nil, nil, e.advise(img.Source, fmt.Errorf("%s: %w", img.Source.Name(), err))
	}
	return img, layers, nil
}

// usedUntilNow notes that an image, which is noted already, was used to the
// last.
func usedUntilNow(img *remote.Image, disk *cache.Cache) {
	images, err := disk.Images()
	if err != nil {
		return
	}
	for _, note := range images {
		if note.Manifest == img.Descriptor.Digest && note.Name == img.Source.Name() {
			note.Used = time.Now()
			disk.NoteImage(note)
		}
	}
}

// isLocal reports whether an image lies on this machine as a file or
// directory, so that there is nothing to fetch.
func isLocal(name string) bool {
	loc, err := remote.ParseLocation(name)
	return err == nil && loc.Transport != remote.TransportDocker
}

// tree opens an image as one tree.
func (e *env) tree(ctx context.Context, name string, disk *cache.Cache) (*remote.Image, *image.Image, error) {
	img, layers, err := e.layers(ctx, name, disk)
	if err != nil {
		return nil, nil, err
	}
	limitMemory(mergeMemory(layers, cmp.Or(e.limits.metadata.Option(), image.DefaultMaxMetadata)))
	t, err := image.MergeLayers(ctx, layers)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", img.Source.Name(), err)
	}
	return img, t, nil
}

// openTree opens an image as one tree with the user's cache. done closes both.
func (e *env) openTree(ctx context.Context, name string) (img *remote.Image, t *image.Image, done func(), err error) {
	disk, err := e.openCache()
	if err != nil {
		return nil, nil, nil, err
	}
	if img, t, err = e.tree(ctx, name, disk); err != nil {
		disk.Close()
		return nil, nil, nil, err
	}
	return img, t, func() { t.Close(); disk.Close() }, nil
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
