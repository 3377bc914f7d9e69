package containerd

import (
	"context"
	"iter"
	"net/url"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote"
	"github.com/opencontainers/go-digest"
)

// distributionSource is the label of a blob that names the repositories of a host that have
// it; the host is without its port.
const distributionSource = "containerd.io/distribution.source."

// An origin is an image in a registry, and what it has.
type origin struct {
	snapshotter.Image
	*manifest
}

// origins yields the images that may have a blob: the image itself by its name, and in the
// repositories that containerd has it from; other images of the namespace that have the
// blob, as one that was built on them need not be in any registry; those of the snapshotter.
// An image that containerd has from no registry is looked for by its name last: it was made
// here, and how it is called is nobody else's business.
func (r *fetching) origins(ctx context.Context, b missing) iter.Seq2[snapshotter.Image, error] {
	return func(yield func(snapshotter.Image, error) bool) {
		asked := make(map[snapshotter.Image]bool)
		once := func(all []snapshotter.Image) (more bool) {
			for _, img := range all {
				if asked[img] {
					continue
				}
				asked[img] = true
				if !yield(img, nil) {
					return false
				}
			}
			return true
		}
		own := originsOf(r.img.name, b.in)
		if b.in.isPulled() && !once(own) {
			return
		}
		others, err := r.otherOrigins(ctx)
		if err != nil {
			yield(snapshotter.Image{}, err)
			return
		}
		for _, o := range others {
			if o.has(b.Digest) && o.isPulled() && !once([]snapshotter.Image{o.Image}) {
				return
			}
		}
		if once(r.Known) {
			once(own)
		}
	}
}

// isPulled reports whether containerd has a manifest from a registry.
func (m *manifest) isPulled() bool {
	for key := range m.labels {
		if strings.HasPrefix(key, distributionSource) {
			return true
		}
	}
	return false
}

// originsOf returns where a manifest may be that an image of this name has.
func originsOf(name string, m *manifest) []snapshotter.Image {
	var named, kept []snapshotter.Image
	if isReference(name) {
		named = append(named, snapshotter.Image{Ref: name, Digest: m.digest})
	}
	for key, repositories := range m.labels {
		host, ok := strings.CutPrefix(key, distributionSource)
		if !ok {
			continue
		}
		if registry, _, _ := strings.Cut(name, "/"); hostname(registry) == host {
			host = registry
		}
		for repository := range strings.SplitSeq(repositories, ",") {
			if named != nil && isOf(name, host+"/"+repository) {
				continue
			}
			if ref := host + "/" + repository; isReference(ref) {
				kept = append(kept, snapshotter.Image{Ref: ref, Digest: m.digest})
			}
		}
	}
	slices.SortFunc(kept, func(a, b snapshotter.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return append(named, kept...)
}

// isReference reports whether a name says in which registry an image is: names of
// containerd may be anything.
func isReference(name string) bool {
	host, _, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return false
	}
	_, err := remote.ParseReference(name)
	return err == nil
}

// hostname returns the host of a registry without its port, as labels have it.
func hostname(registry string) string {
	u := url.URL{Host: registry}
	return u.Hostname()
}

// isOf reports whether a reference is of an image of a repository.
func isOf(name, repository string) bool {
	ref, err := remote.ParseReference(name)
	return err == nil && ref.Name() == repository
}

// otherOrigins returns where the other images of the namespace may be.
func (r *fetching) otherOrigins(ctx context.Context) ([]*origin, error) {
	if r.others != nil {
		return r.others, nil
	}
	images, err := r.Client.list(ctx)
	if err != nil {
		return nil, err
	}
	all := []*origin{}
	known := make(map[digest.Digest][]*manifest)
	for _, img := range images {
		list, ok := known[img.target]
		if !ok {
			if list, err = r.Client.manifests(ctx, img); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				r.debugf("%v", err) // there are others
			}
			known[img.target] = list
		}
		for _, m := range list {
			for _, o := range originsOf(img.name, m) {
				all = append(all, &origin{o, m})
			}
		}
	}
	r.others = all
	return all, nil
}

// sourceLabel returns the label that says of a blob which repository it came from, as
// containerd gives it to what it fetches, so that a push to the same registry need not
// upload it. There is none where it would be too long.
func sourceLabel(img snapshotter.Image) map[string]string {
	ref, err := remote.ParseReference(img.Ref)
	if err != nil {
		return nil
	}
	const maxLabel = 4096 // for key and value
	key := distributionSource + hostname(ref.Registry)
	if len(key)+len(ref.Repository) > maxLabel {
		return nil
	}
	return map[string]string{key: ref.Repository}
}
