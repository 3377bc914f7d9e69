package image

import (
	"io"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
)

// What an image may take if Options say nothing else, in bytes.
const (
	DefaultMaxMetadata = 1 << 30
	DefaultMaxLayer    = 64 << 30
	DefaultMaxBlob     = 16 << 30
)

// An IndexTrust says which indexes that others made a layer may be read by.
type IndexTrust int

const (
	// TrustNamed: those that the image's manifest binds by their digests, and those of
	// the repositories in Options.IndexRepos.
	TrustNamed IndexTrust = iota
	// TrustLocal: none. Each layer is read once by this user.
	TrustLocal
	// TrustBound: those that the image's manifest binds.
	TrustBound
	// TrustRepositories: those of the repositories in Options.IndexRepos, and none that the
	// publisher of the image made: what others are shown who never chose this image.
	TrustRepositories
	// TrustPublished: also those that lie beside the image, and that nothing binds.
	TrustPublished
)

// Options are the choices of Resolve, Open and the steps between. nil and the
// zero value do what imgfs ls does without flags: fields that are zero mean
// their defaults.
type Options struct {
	// Cache keeps blobs and layer indexes. Default: the one in CacheDir, which
	// is opened, and closed with the image. One that is set must stay open as
	// long as the image, and keeps a descriptor of each blob that was read until
	// it is closed: a program that opens thousands of images closes it now and then.
	Cache *cache.Cache
	// CacheDir is the directory of the cache that is opened if Cache is nil.
	// Default: cache.DefaultDir.
	CacheDir string
	// AnyCache has a directory that cannot be used as a cache count as one that takes
	// nothing: see cache.Options. Default: that is an error.
	AnyCache bool
	// CacheSize is how many bytes that may take on disk. Default: what
	// cache.DefaultBudget means. Negative: no bound.
	CacheSize int64

	// Directories are paths of directories that the tree has besides what layers have, as
	// the mountpoints that a container needs: root's, with mode 0755. What layers have at
	// such a path they replace, unless it is a directory. Default: none.
	Directories []string

	// Layers is how many layers of the image are opened, the base and those above it: see
	// Resolved.Upto. Default: all.
	Layers int

	// Platform is that of the image, as os/arch[/variant], with the version of the
	// system and the features that the image demands of it behind os as in
	// windows(10.0.17763+win32k)/amd64. Default: this machine's.
	Platform string
	// Offline asks no registry: what is not in the cache cannot be had.
	Offline bool
	// AuthFile is the only file with credentials for registries. It must exist, and
	// be such a file.
	// Registry.Credential goes before it. Default: where podman and docker look.
	AuthFile string
	// Stdin returns what an archive named "-" is read from, and is called once for each
	// image of that name. What it returns is closed with the image. Default: such names
	// are refused.
	Stdin func() (io.ReadCloser, error)
	// DockerHost is the address of docker's daemon, as unix:///PATH. Default: that of
	// docker's client.
	DockerHost string
	// StreamNow has all of an image of docker's daemon streamed when it is opened. Else
	// one that was streamed before is streamed again when content of it is first read.
	StreamNow bool
	// Registry is how registries are talked to. If Sites is nil, the files of
	// podman, docker and containerd say what short names mean as well.
	Registry registry.Options

	// IndexTrust says which indexes of others may be used. What an index that nothing
	// binds says is shown before all of it can be proven: see docs/security.md.
	IndexTrust IndexTrust
	// IndexRepos are repositories that have indexes for the layers of any image, as
	// HOST/PATH, the first one asked first. Those that registries.conf and hosts.toml
	// name for the image's registry are asked behind them.
	IndexRepos []string

	// SpanMemory bounds the memory in bytes that decoded pieces of layers
	// take. Default: 32 MiB.
	SpanMemory int64
	// BuildMemory is about how many bytes the layers that are indexed side
	// by side may take: it decides how many at a time. Default: 64 MiB.
	BuildMemory int64
	// MaxMetadata bounds the bytes of memory that the names, link targets,
	// attributes, extents and entries of all layers of the image take
	// together. Default: 1 GiB. Negative: no bound.
	MaxMetadata int64
	// Metadata, if not nil, is told now and then how many bytes that is by now,
	// while layers are opened and while they are merged. Calls may come from
	// several goroutines.
	Metadata func(used int64)
	// MaxLayer bounds the bytes of a layer's tar, MaxBlob those of its blob.
	// Defaults: 64 GiB and 16 GiB. Negative: no bound.
	MaxLayer, MaxBlob int64
	// NoKeptFiles keeps no files of the image on disk, and uses none.
	NoKeptFiles bool
	// Room is where the arrays of the tree are put; see fs.Room. Then one layer after the
	// other is read while they are merged. Default: the heap.
	Room fs.Room
	// Held, if not nil, are files that Image.Held has returned, maybe in another process.
	// The image is the one that it was then, layer for layer: the name given to Open is
	// not looked at, nor Platform. Nothing is asked of a registry to open it, and what is
	// in the cache instead of a held file does not count. The other options should be what
	// they were. Resolve takes descriptors of its own; the caller closes these.
	Held []Held
	// Progress, if not nil, is called while layers are opened. Calls may
	// come from several goroutines, but one at a time for each layer.
	Progress func(Progress)
	// Unpacking, if not nil, is told while an archive is unpacked how much of its
	// file has been read by now, and how much it has; 0 if that is not known. It is
	// not called after Resolve.
	Unpacking func(read, size int64)
	// Debugf, if not nil, is told what the configuration files have that is not
	// used. Calls may come from several goroutines.
	Debugf func(format string, args ...any)
	// Warnf, if not nil, is told what was not as it should be and did no
	// harm: a damaged index file that is made again, a disk without room for
	// an index. Calls may come from several goroutines.
	Warnf func(format string, args ...any)
}

// withDefaults returns the options with their defaults, and 0 for no bound.
func (opts *Options) withDefaults() Options {
	if opts == nil {
		opts = &Options{}
	}
	o := *opts
	for _, f := range []struct {
		n    *int64
		zero int64
	}{
		{&o.SpanMemory, 32 << 20}, {&o.BuildMemory, 64 << 20}, {&o.MaxMetadata, DefaultMaxMetadata},
		{&o.MaxLayer, DefaultMaxLayer}, {&o.MaxBlob, DefaultMaxBlob},
	} {
		if *f.n == 0 {
			*f.n = f.zero
		}
		*f.n = max(*f.n, 0)
	}
	return o
}

// Progress tells how far a layer is.
type Progress struct {
	Layer int // position in the image, the base is 0
	Size  int64
	// Read is how many bytes of the blob have come by now; 0 when it begins to be
	// read, which may happen again, of another place.
	Read int64
	// Index says that an index that somebody else made is being read in place of the
	// blob; then Read counts bytes of that index, of which nobody knows how many there are.
	Index bool
	// Done says that the layer is ready. Built says that it was read and
	// indexed now, and not before.
	Done, Built bool
}
