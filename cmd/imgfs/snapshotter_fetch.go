package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// Flags of imgfs snapshotter fetch.
const (
	containerdFlag = "containerd"
	namespaceFlag  = "namespace"
)

func snapshotterFetchCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "fetch",
		Usage: "[FLAGS] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "give containerd the layers"},
		About: `Puts the layers of an image that containerd has without them into its content
store: from the cache as far as they are there, and else from the registry.
Exporting, saving, pushing elsewhere and converting need them: docs/engines.md.
IMAGE is what containerd or docker calls it. What is fetched stays until the
image is removed. An interrupted fetch goes on the next time, within a day.`,
		Notes:      "The images of docker are in the namespace moby, those of Kubernetes in k8s.io.",
		Example:    "sudo imgfs snapshotter fetch --namespace moby node:22",
		OtherFlags: map[string]string{"-n": "--" + namespaceFlag, "-a": "--" + containerdFlag, "--address": "--" + containerdFlag},
		Setup: func(f *pflag.FlagSet) cli.Action {
			c := &contentFetch{env: e}
			f.StringVar(&c.address, containerdFlag, containerd.DefaultContainerd, "`SOCKET` of containerd (/run/containerd/containerd.sock)")
			f.StringVar(&c.namespace, namespaceFlag, containerd.DefaultNamespace, "`NS` of containerd that has the image (default)")
			f.BoolVar(&c.everywhere, "all-namespaces", false, "in all namespaces that have the image")
			f.StringVar(&c.root, rootFlag, containerd.DefaultRoot, "`DIR` of imgfs snapshotter (in /var/lib/containerd)")
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) != 1:
					return cli.Usagef("snapshotter fetch: one image is needed")
				case c.everywhere && f.Changed(namespaceFlag):
					return cli.Usagef("snapshotter fetch: --all-namespaces and --%s exclude each other", namespaceFlag)
				}
				return c.run(ctx, args[0])
			}
		},
	}
}

// A contentFetch is imgfs snapshotter fetch.
type contentFetch struct {
	*env
	address, namespace, root string
	everywhere               bool
	layersOf                 string // the platform that was asked for
	disk                     *cache.Cache
	opened                   map[snapshotter.Image]*origin
}

// An origin is an image that blobs come from, or why none do.
type origin struct {
	img *image.Resolved
	err error
}

func (c *contentFetch) run(ctx context.Context, name string) error {
	client, err := containerd.Dial(ctx, c.address)
	if err != nil {
		return c.adviseSocket(err)
	}
	defer client.Close()
	c.useCache()
	c.layersOf, c.platform = c.platform, "" // origins are named by the digests of manifests
	if c.disk, err = c.openCache(); err != nil {
		return err
	}
	defer c.disk.Close()
	defer c.reportTraffic(c.disk)
	defer c.close()
	if !c.everywhere {
		err := c.fetch(ctx, client, c.namespace, name)
		return c.adviseNamespace(ctx, client, err)
	}
	namespaces, err := client.Namespaces(ctx)
	if err != nil {
		return err
	}
	var none error = &containerd.NoImageError{Name: name}
	for _, ns := range namespaces {
		err := c.fetch(ctx, client, ns, name)
		if missing := (*containerd.NoImageError)(nil); errors.As(err, &missing) {
			continue
		}
		if none = nil; err != nil {
			return err
		}
	}
	return none
}

// cacheName is the file in the root of a snapshotter that names the directory of its cache.
// Other processes of root's, whose surroundings may name another one, look there.
const cacheName = "cache-directory"

// noteCache writes it.
func noteCache(root, dir string) error {
	name := filepath.Join(root, cacheName)
	if was, err := os.ReadFile(name); err == nil && string(was) == dir {
		return nil
	}
	if err := os.WriteFile(name+".new", []byte(dir), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// useCache has the cache be that of the snapshotter, unless another one is named.
func (c *contentFetch) useCache() {
	if c.cacheDir.String() != "" {
		return
	}
	dir, err := os.ReadFile(filepath.Join(c.root, cacheName))
	if err == nil && filepath.IsAbs(string(dir)) {
		err = c.cacheDir.Set(string(dir))
	}
	if err != nil {
		c.Debugf("which cache the snapshotter has is not known: %v", err)
	}
}

// fetch fetches what one namespace lacks of an image.
func (c *contentFetch) fetch(ctx context.Context, client *containerd.Client, ns, name string) error {
	begun := time.Now()
	known, err := snapshotter.Known(c.root)
	if err != nil {
		c.Debugf("what a snapshotter keeps in %s is not known: %v", printable.Name(c.root), err)
	}
	bar := show.NewBar(c.env, "fetching")
	f := &containerd.Fetch{Client: client, Namespace: ns, Open: c.open, Known: known, Platform: c.layersOf, Progress: bar.Update, Debugf: c.Debugf}
	got, err := f.Run(ctx, name)
	bar.Finish()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s in namespace %s: all %s of %s (%s) are in containerd's content store", printable.Name(got.Name), printable.Name(ns),
		show.Count(got.Blobs, "blob"), show.Count(got.Platforms, "platform"), show.Bytes(got.Bytes))
	if got.NewBlobs == 0 {
		c.Warnf("%s; they were there before", text)
		return nil
	}
	c.Warnf("%s; %s (%s) came now, in %.1f s", text, show.Count(got.NewBlobs, "blob"), show.Bytes(got.NewBytes), time.Since(begun).Seconds())
	return nil
}

// open reads a blob of an image in a registry from byte off on.
func (c *contentFetch) open(ctx context.Context, img snapshotter.Image, d ocispec.Descriptor, off int64, again bool) (io.ReadCloser, error) {
	o := c.opened[img]
	if o == nil {
		o = &origin{}
		o.img, o.err = c.resolve(ctx, containerd.NameOf(img), c.disk)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c.opened == nil {
			c.opened = make(map[snapshotter.Image]*origin)
		}
		c.opened[img] = o
	}
	if o.err != nil {
		return nil, o.err
	}
	if d.Digest == o.img.ConfigDescriptor.Digest {
		return io.NopCloser(bytes.NewReader(o.img.Config[min(off, int64(len(o.img.Config))):])), nil
	}
	b, release, err := o.img.Whole(ctx, d.Digest, again)
	if err != nil {
		return nil, err
	}
	return &releasing{remote.NewStream(ctx, b, &remote.StreamOptions{From: off}), release}, nil
}

// releasing is a stream that lets go of its blob when it is closed.
type releasing struct {
	io.ReadCloser
	release func()
}

// Close implements io.Closer.
func (r *releasing) Close() error {
	err := r.ReadCloser.Close()
	r.release()
	return err
}

// close closes the images that blobs came from.
func (c *contentFetch) close() {
	for _, o := range c.opened {
		if o.img != nil {
			o.img.Close() //nolint:errcheck // it was only read
		}
	}
}

// adviseSocket says what helps if containerd cannot be asked.
func (c *contentFetch) adviseSocket(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return cli.WithHint(err, "only root may ask it: sudo imgfs snapshotter fetch")
	case errors.Is(err, containerd.ErrNoContainerd):
		const docker = "/run/docker/containerd/containerd.sock"
		if _, there := os.Stat(docker); there == nil && c.address != docker {
			return cli.WithHint(err, "docker has one of its own: --"+containerdFlag+" "+docker)
		}
		return cli.WithHint(err, "--"+containerdFlag+" SOCKET says where it is")
	}
	return err
}

// adviseNamespace says which namespaces have an image, if that was looked for in another one.
func (c *contentFetch) adviseNamespace(ctx context.Context, client *containerd.Client, err error) error {
	var missing *containerd.NoImageError
	if !errors.As(err, &missing) {
		return err
	}
	others, again := client.NamespacesOf(ctx, missing.Name)
	if again != nil || len(others) == 0 {
		at := ""
		if c.address != containerd.DefaultContainerd {
			at = "-a " + printable.Word(c.address) + " "
		}
		return cli.WithHint(err, "ctr "+at+"-n "+printable.Word(missing.Namespace)+" image ls names those that it has")
	}
	for i, ns := range others {
		others[i] = printable.Word(ns)
	}
	slices.Sort(others)
	return cli.WithHint(err, "it is in another one: --"+namespaceFlag+" "+strings.Join(others, ", or --"+namespaceFlag+" "))
}
