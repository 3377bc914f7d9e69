// Package dockerdaemon reads images of the daemon of docker on this machine, or of one
// that speaks like it (podman system service): docker-daemon:REF.
//
//	src, err := dockerdaemon.Open(ctx, "fedora:41", nil)
//	img, err := remote.Open(ctx, src, "")
//
// The daemon has no way to read a part of an image. So all of it is streamed, as docker
// save does, into a temporary file, and read there by package dockerarchive. The daemon
// is asked over its unix socket, by the Docker Engine API, in the version that it says
// it has: GET /_ping, /images/REF/json for the image's ID, and /images/ID/get.
//
// An image's ID is mostly the digest of its config, and that has the digests of the
// layers. So if a Memory has the documents of the image with an ID, it is streamed only
// when the first bytes of a layer are read.
package dockerdaemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
	"github.com/imgfs/imgfs/remote/internal/kindof"
)

// Options are the settings of Open. Nil and zero values mean the defaults.
type Options struct {
	// Host is the address of the daemon, as DOCKER_HOST has it. Only sockets of unix
	// are asked. Default: that of docker's client, which looks at DOCKER_HOST,
	// DOCKER_CONTEXT and the context in docker's config.json, or DefaultHost.
	Host string
	// Archive says what the stream of the image may take. Its From is not used. Progress
	// is called by Open alone.
	Archive remote.ArchiveOptions
	// Memory has the documents of images that were streamed before. Default: none.
	Memory Memory
	// Now has the image streamed by Open though the memory has its documents.
	Now bool
}

// A Source is an image of a daemon. It is safe for concurrent use.
type Source struct {
	location   remote.Location
	repository string
	id         string // what the daemon calls the image
	top        ocispec.Descriptor
	// whole is the image if it was streamed by Open. Else documents has manifest and
	// config, and stream the image when it is wanted.
	whole     *dockerarchive.Source
	documents map[digest.Digest][]byte
	stream    once
}

var _ remote.Source = (*Source)(nil)

// A SocketError says that the socket of a daemon cannot be used. It is
// remote.ErrUnavailable.
type SocketError struct {
	Path string
	Err  error
	// Others are sockets of other daemons that are there, if this one is not.
	Others []string
}

func (e *SocketError) Error() string {
	return fmt.Sprintf("%v: the daemon's socket %s: %v", remote.ErrUnavailable, e.Path, e.Err)
}

// Unwrap returns remote.ErrUnavailable and e.Err.
func (e *SocketError) Unwrap() []error { return []error{remote.ErrUnavailable, e.Err} }

// Open asks the daemon for an image: by a reference as docker has it, or the ID that
// docker inspect prints, with its sha256:. All of the image is streamed to a temporary
// file without a name; opts say where, how much that may be, and when. What is streamed
// has the ID, or that is an error.
//
// The errors are remote.ErrNotFound, ErrReference, ErrUnavailable, ErrUnsupported,
// ErrTooBig and ErrDigest, wrapped, or a *SocketError.
func Open(ctx context.Context, ref string, opts *Options) (*Source, error) {
	if opts == nil {
		opts = &Options{}
	}
	src, err := open(ctx, remote.Location{Transport: remote.TransportDockerDaemon, Path: ref}, opts)
	if ctx.Err() != nil && err != nil {
		return nil, ctx.Err()
	}
	return src, err
}

func open(ctx context.Context, loc remote.Location, opts *Options) (*Source, error) {
	s := &Source{location: loc}
	if !isID(loc.Path) {
		ref, err := remote.ParseReference(loc.Path)
		if err != nil {
			return nil, s.fail(err)
		}
		s.repository = ref.Name()
	}
	d, err := newDaemon(opts.Host)
	if err != nil {
		return nil, s.fail(err)
	}
	defer d.close()
	found, err := d.find(ctx, loc.Path)
	if err != nil {
		return nil, s.fail(err)
	}
	s.id = found.ID
	archive := opts.Archive
	s.stream.open = func(ctx context.Context) (*dockerarchive.Source, error) {
		defer d.close()
		return s.streamed(ctx, d, found, &archive)
	}
	if opts.Memory != nil && !opts.Now && s.remembered(opts.Memory) {
		archive.Progress = nil
		return s, nil
	}
	if s.whole, err = s.stream.get(ctx); err == nil {
		s.top, err = s.whole.Resolve(ctx)
	}
	if err != nil {
		s.Close() // which waits for the stream's end
		return nil, err
	}
	if opts.Memory != nil {
		s.remember(ctx, opts.Memory)
	}
	return s, nil
}

// streamed has all of the image streamed.
func (s *Source) streamed(ctx context.Context, d *daemon, found found, opts *remote.ArchiveOptions) (*dockerarchive.Source, error) {
	from, err := d.save(ctx, found.ID, opts.Platform)
	if err != nil {
		return nil, s.fail(err)
	}
	archive := *opts
	archive.From = from
	a, err := kindof.Open(ctx, s.location, &archive)
	if err != nil {
		return nil, s.fail(from.blame(err))
	}
	whole, err := dockerarchive.OpenTar(ctx, a, s.location, &archive)
	if err != nil {
		return nil, err
	}
	if err := s.check(ctx, whole, a, found); err != nil {
		whole.Close()
		return nil, s.fail(err)
	}
	return whole, nil
}

func (s *Source) fail(err error) error { return fmt.Errorf("%s: %w", s.location, err) }

// isID reports whether a text is the ID of an image.
func isID(ref string) bool { return digest.Digest(ref).Validate() == nil }

// others returns the sockets of daemons of this user and of podman that are there.
func others(but string) []string {
	var there []string
	paths := []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		paths = []string{paths[0], filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman/podman.sock"), paths[1]}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && path != but && info.Mode()&os.ModeSocket != 0 {
			there = append(there, path)
		}
	}
	return there
}

// errNoDaemon: what listens at the socket does not speak as a daemon does.
var errNoDaemon = errors.New("what listens there does not speak as docker's daemon")
