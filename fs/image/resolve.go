package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/anyarchive"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/containerdstore"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/dockerarchive"
	"github.com/imgfs/imgfs/remote/dockerdaemon"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// A Resolved image is one whose manifest and config are known, and nothing of
// what is in its layers. The zero Resolved is not valid.
type Resolved struct {
	*remote.Image

	opts    Options // with defaults
	disk    *cache.Cache
	found   remote.Source        // as it is without the cache
	client  *registry.Client     // nil if no registry has the image
	closing []io.Closer          // what Close closes, the last one first
	conf    *hosts.Configuration // the files of podman, docker and containerd, if they were read
	// indexRepos are the repositories that are asked for indexes.
	indexRepos []string
	whole      []remote.Layer // all layers, if Upto has left some out
	passing    bool           // it came on standard input: nobody can open it again by its name
	asked      string         // the name that Resolve was given
	held       *heldImage     // what was held of the image; nil: nothing
	reheld     notice

	mu     sync.Mutex       // held while talker or inner is made
	talker *registry.Client // client, or that of index repositories; nil before it is needed
	inner  *Resolved        // see again
}

// OpenCache opens the cache directory that opts say, for what needs it besides an
// image. It uses CacheDir, CacheSize and Warnf. nil opts are the defaults.
// Errors are of type *Error.
func OpenCache(opts *Options) (*cache.Cache, error) {
	if opts == nil {
		opts = &Options{}
	}
	dir, budget := opts.CacheDir, max(opts.CacheSize, 0)
	if dir == "" {
		var err error
		if dir, err = cache.DefaultDir(); err != nil {
			return nil, &Error{Err: err, Hint: HintDefaultCacheDir}
		}
	}
	if opts.CacheSize == 0 {
		budget = cache.DefaultBudget
	}
	disk, err := cache.Open(dir, &cache.Options{Budget: budget, Warnf: opts.Warnf, Any: opts.AnyCache})
	if err != nil {
		e := &Error{Err: err, Hint: HintCacheDir}
		if unfit := (*cache.DirError)(nil); errors.As(err, &unfit) {
			e.Advice = unfit.Hint
		}
		return nil, e
	}
	return disk, nil
}

// Resolve finds what an image's name means, and reads its manifest and config.
// Names are references as docker and podman have them, docker://REFERENCE,
// oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF], - for an
// archive of either kind on standard input, and docker-daemon:REF. What a registry's manifests say is kept in the cache. nil opts are the defaults.
//
// Errors that somebody can do something about wrap an *Error.
func Resolve(ctx context.Context, name string, opts *Options) (*Resolved, error) {
	r, err := newResolved(opts)
	if err != nil {
		return nil, err
	}
	r.asked = name
	resolve := func() error { return r.resolve(ctx, name) }
	if r.opts.Held != nil {
		resolve = func() error { return r.resolveHeld(ctx) }
	}
	err = resolve()
	if err == nil && r.opts.Layers != 0 {
		err = r.Upto(r.opts.Layers)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// NameOf returns the name that an image would have (see [Resolved.Name]), as far as the
// name itself and the configuration files tell. Nothing is asked or opened. nil opts are
// the defaults.
func NameOf(name string, opts *Options) (string, error) {
	loc, err := remote.ParseLocation(name)
	if err != nil {
		return "", err
	}
	if loc.Transport != remote.TransportDocker {
		return loc.String(), nil
	}
	r, full := &Resolved{opts: opts.withDefaults()}, loc.Path
	if r.opts.Registry.Sites == nil {
		if full, err = r.configure(name, full); err != nil {
			return "", err
		}
	}
	ref, err := remote.ParseReference(full)
	return ref.String(), err
}

// newResolved returns one whose cache is open, and that is nothing yet.
func newResolved(opts *Options) (*Resolved, error) {
	r := &Resolved{opts: opts.withDefaults()}
	r.indexRepos = slices.Clone(r.opts.IndexRepos)
	if r.disk = r.opts.Cache; r.disk == nil {
		var err error
		if r.disk, err = OpenCache(opts); err != nil {
			return nil, err
		}
		r.closing = append(r.closing, r.disk)
	}
	return r, nil
}

// Close closes what the image is read from, and the cache if it was opened for
// it. It is not to be called after OpenLayers.
func (r *Resolved) Close() error {
	errs := []error{r.closeInner()}
	for len(r.closing) > 0 {
		last := len(r.closing) - 1
		errs = append(errs, r.closing[last].Close())
		r.closing = r.closing[:last]
	}
	return errors.Join(errs...)
}

// Cache returns the cache that the image is read through.
func (r *Resolved) Cache() *cache.Cache { return r.disk }

// Name returns the image's name, as messages have it: that of its source.
func (r *Resolved) Name() string {
	if r.Source == nil {
		return ""
	}
	return r.Source.Name()
}

// Upto leaves out all layers above the first n: what is opened is the image as it was
// when n of its layers had been made. It is to be called before OpenLayers, with 1 or
// more and no more than the image has.
func (r *Resolved) Upto(n int) error {
	if n < 1 || n > len(r.Layers) {
		return fmt.Errorf("%s: there is no layer %d: it has %d, and the base is 1", r.Name(), n, len(r.Layers))
	}
	if n == len(r.Layers) {
		return nil
	}
	if r.whole == nil {
		r.whole = r.Layers
	}
	img := *r.Image // the caller of From has the other one
	img.Layers = r.Layers[:n:n]
	r.Image = &img
	return nil
}

// NumLayers returns how many layers the image has, also those that Upto has left out.
func (r *Resolved) NumLayers() int { return max(len(r.whole), len(r.Layers)) }

// wholeImage returns the image with all of its layers.
func (r *Resolved) wholeImage() *remote.Image {
	if r.whole == nil {
		return r.Image
	}
	img := *r.Image
	img.Layers = r.whole
	return &img
}

// Local reports whether the image lies on this machine as a file or directory,
// so that there is nothing to fetch.
func (r *Resolved) Local() bool {
	if r.client != nil {
		return false
	}
	// The caller of From may have found it anywhere.
	return r.Image == nil || !slices.ContainsFunc(r.Layers, func(l remote.Layer) bool { return !remote.IsLocal(l.Blob) })
}

// Servers returns what is known of the servers that were asked for the image.
func (r *Resolved) Servers() []registry.HostState {
	if r.client == nil {
		return nil
	}
	return r.client.Health()
}

// Tags lists the tags beside the image's own. There are none of an image that
// is in no repository, and offline.
func (r *Resolved) Tags(ctx context.Context) ([]string, error) {
	type tagger interface {
		Tags(ctx context.Context) ([]string, error)
	}
	t, ok := r.found.(tagger)
	if !ok || r.opts.Offline && !r.Local() {
		return nil, nil
	}
	return t.Tags(ctx)
}

// resolve finds the source, and what it says of the image.
func (r *Resolved) resolve(ctx context.Context, name string) error {
	src, err := r.source(ctx, name)
	if err != nil {
		return err
	}
	if r.Image, err = remote.Open(ctx, src, r.opts.Platform); err != nil {
		return r.adviseName(ctx, src, err)
	}
	r.warn(r.Image.Warnings)
	return nil
}

// source finds the source of a name, and puts the cache between.
func (r *Resolved) source(ctx context.Context, name string) (remote.Source, error) {
	var err error
	if r.found, err = r.find(ctx, name); err != nil {
		return nil, err
	}
	if r.client == nil {
		return r.found, nil
	}
	return r.wrapped(r.found), nil
}

// wrapped returns a source as seen through the cache.
func (r *Resolved) wrapped(src remote.Source) remote.Source {
	return r.disk.Meta.Source(src, &meta.SourceOptions{Offline: r.opts.Offline, Warnf: r.opts.Warnf})
}

// warn hands on what was not as described.
func (r *Resolved) warn(warnings []string) {
	if r.opts.Warnf == nil {
		return
	}
	for _, text := range warnings {
		r.opts.Warnf("%s", text)
	}
}

// find finds out what kind of place an image's name means. Nothing is asked of
// a registry yet.
func (r *Resolved) find(ctx context.Context, name string) (remote.Source, error) {
	loc, err := remote.ParseLocation(name)
	if err != nil {
		return nil, err
	}
	switch loc.Transport {
	case remote.TransportOCI:
		layout, err := ocilayout.Open(loc.Path, loc.Image)
		if err != nil {
			return nil, err
		}
		r.closing = append(r.closing, layout)
		return layout, nil
	case remote.TransportOCIArchive, remote.TransportDockerArchive, remote.TransportStdin:
		return r.archive(ctx, loc)
	case remote.TransportContainersStorage:
		store, err := containersstorage.Open(ctx, loc.Path, loc.Image)
		if err != nil {
			return nil, err
		}
		r.closing = append(r.closing, store)
		return store, nil
	case remote.TransportContainerd:
		store, err := containerdstore.Open(ctx, loc.Path, loc.Image)
		if err != nil {
			return nil, err
		}
		r.closing = append(r.closing, store)
		return store, nil
	case remote.TransportDockerDaemon:
		return r.daemon(ctx, loc)
	}
	full := loc.Path
	if r.opts.Registry.Sites == nil {
		if full, err = r.configure(name, full); err != nil {
			return nil, err
		}
	}
	ref, err := remote.ParseReference(full)
	if err != nil {
		return nil, err
	}
	if r.conf != nil {
		repos, err := r.conf.IndexRepos(ctx, ref)
		if err != nil {
			return nil, err
		}
		r.indexRepos = append(r.indexRepos, repos...)
	}
	return r.repository(ref)
}

// configure takes over what configuration files say of registries, and returns
// the name that they give to the image at a path.
func (r *Resolved) configure(name, path string) (string, error) {
	conf, err := (&hosts.ConfigFiles{Logf: r.opts.Debugf}).Load()
	if err != nil {
		return "", err
	}
	r.conf, r.opts.Registry.Sites = conf, conf.Sites
	if r.opts.Registry.Credential == nil {
		r.opts.Registry.Credential = conf.Credentials(r.opts.AuthFile)
	}
	if strings.HasPrefix(name, "docker://") {
		// As for podman and skopeo the transport says that it is no short name.
		return path, nil
	}
	return conf.ShortName(path)
}

// archive opens an image in a file. What has to be unpacked of it goes to the
// cache directory, and counts there.
func (r *Resolved) archive(ctx context.Context, loc remote.Location) (remote.Source, error) {
	var src interface {
		remote.Source
		io.Closer
	}
	var err error
	opts := r.archiveOptions()
	if loc.Stdin() {
		if r.opts.Stdin == nil {
			return nil, fmt.Errorf("%w: %s: standard input is not read here", remote.ErrUnsupported, loc)
		}
		r.passing = true
		if opts.From, err = r.opts.Stdin(); err != nil {
			return nil, fmt.Errorf("%s: %w", loc, err)
		}
	}
	switch loc.Transport {
	case remote.TransportOCIArchive:
		src, err = ocilayout.OpenArchive(ctx, loc.Path, loc.Image, opts)
	case remote.TransportDockerArchive:
		src, err = dockerarchive.Open(ctx, loc.Path, loc.Image, opts)
	default:
		src, err = anyarchive.Open(ctx, loc, opts)
	}
	if errors.Is(err, cache.ErrFull) {
		return nil, &Error{Err: err, Hint: HintUnpack}
	}
	if err != nil {
		return nil, err
	}
	r.closing = append(r.closing, src)
	return src, nil
}

// daemon opens an image of docker's daemon, all of which is streamed to the cache
// directory, as an archive is unpacked, unless what is known of it may be enough.
func (r *Resolved) daemon(ctx context.Context, loc remote.Location) (remote.Source, error) {
	if r.opts.Offline {
		return nil, fmt.Errorf("%w: %s: docker's daemon is asked over a socket, and offline none is opened", remote.ErrUnavailable, loc)
	}
	src, err := dockerdaemon.Open(ctx, loc.Path, &dockerdaemon.Options{Host: r.opts.DockerHost, Archive: *r.archiveOptions(), Memory: r.disk.Meta, Now: r.opts.StreamNow})
	if errors.Is(err, cache.ErrFull) {
		return nil, &Error{Err: err, Hint: HintUnpack}
	}
	if err != nil {
		return nil, err
	}
	r.closing = append(r.closing, src)
	return src, nil
}

func (r *Resolved) archiveOptions() *remote.ArchiveOptions {
	opts := &remote.ArchiveOptions{NewTemp: func() (remote.TempFile, error) { return r.tempFile() }, Platform: r.opts.Platform, Progress: r.opts.Unpacking}
	if opts.MaxSize = r.opts.MaxLayer; opts.MaxSize == 0 {
		opts.MaxSize = -1 // no bound
	}
	return opts
}

// tempFile makes a temporary file within the cache's budget.
func (r *Resolved) tempFile() (remote.TempFile, error) {
	f, err := r.disk.NewTempFile(nil)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// repository returns an image in a registry.
func (r *Resolved) repository(ref remote.Reference) (remote.Source, error) {
	client, err := r.registry()
	if err != nil {
		return nil, err
	}
	r.client = client
	return client.Repository(ref), nil
}

// registry returns the client that registries are talked to with. It is safe for
// concurrent use.
func (r *Resolved) registry() (*registry.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.talker != nil {
		return r.talker, nil
	}
	opts := r.opts.Registry
	if opts.Warnf == nil {
		opts.Warnf = r.opts.Warnf
	}
	if opts.Credential == nil {
		opts.Credential = (&hosts.AuthFiles{Path: r.opts.AuthFile}).Credential
	}
	if opts.Warnf == nil {
		opts.Warnf = r.opts.Warnf
	}
	if r.opts.AuthFile != "" {
		// What is wrong with a file would be noticed only by a registry that wants a
		// login, and would then be a warning: but this one is wanted.
		if err := hosts.CheckAuthFile(r.opts.AuthFile); err != nil {
			return nil, &Error{Err: err, Hint: HintAuthFile}
		}
	}
	r.talker = registry.New(&opts)
	// The cache, if it is the image's own, ends its fetches before the connections
	// are closed that they use.
	r.closing = slices.Insert(r.closing, 0, io.Closer(r.talker))
	return r.talker, nil
}
