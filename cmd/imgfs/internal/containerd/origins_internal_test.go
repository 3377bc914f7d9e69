package containerd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOrigins: an image is looked for by its name, and where the labels say that it is from.
func TestOrigins(t *testing.T) {
	d := digest.FromString("manifest")
	const label = "containerd.io/distribution.source."
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   []string
	}{
		{"docker.io/library/node:22", nil, []string{"docker.io/library/node:22"}},
		{"docker.io/library/node:22", map[string]string{label + "docker.io": "library/node"}, []string{"docker.io/library/node:22"}},
		{"docker.io/library/node:22", map[string]string{label + "docker.io": "library/base,library/node", label + "quay.io": "a/b"},
			[]string{"docker.io/library/node:22", "docker.io/library/base", "quay.io/a/b"}},
		{"127.0.0.1:5002/a:1", map[string]string{label + "127.0.0.1": "a,b"}, []string{"127.0.0.1:5002/a:1", "127.0.0.1:5002/b"}},
		{"[::1]:5002/a:1", map[string]string{label + "::1": "a,b"}, []string{"[::1]:5002/a:1", "[::1]:5002/b"}},
		{"localhost/made:1", map[string]string{label + "quay.io": "a/b"}, []string{"localhost/made:1", "quay.io/a/b"}},
		{"sha256:" + strings.Repeat("a", 64), map[string]string{label + "quay.io": "a/b", "other": "x"}, []string{"quay.io/a/b"}},
		{"moby-dangling@" + d.String(), nil, nil},
		{"node:22", nil, nil},
		{"a.example/UPPER", map[string]string{label + "b.example": "/../x,,UPPER"}, nil},
	} {
		var got []string
		for _, img := range originsOf(tt.name, &manifest{digest: d, labels: tt.labels}) {
			if img.Digest != d {
				t.Errorf("%s: %+v has another digest", tt.name, img)
			}
			got = append(got, img.Ref)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s with %q: got %q, want %q", tt.name, tt.labels, got, tt.want)
		}
	}
}

// TestOriginsOrder: an image that was made here is looked for by its name last, and nothing is
// asked of those that cannot have the blob.
func TestOriginsOrder(t *testing.T) {
	d := digest.FromString("layer")
	with := func(name string, labels map[string]string, parts ...digest.Digest) *manifest {
		m := &manifest{digest: digest.FromString(name), labels: labels}
		for _, p := range parts {
			m.parts = append(m.parts, ocispec.Descriptor{Digest: p})
		}
		return m
	}
	pulled := map[string]string{distributionSource + "docker.io": "library/base"}
	base, other, made := with("base", pulled, d), with("other", pulled), with("made", nil, d)
	known := snapshotter.Image{Ref: "quay.io/known:1", Digest: digest.FromString("known")}
	for _, tt := range []struct {
		name string
		in   *manifest
		want string
	}{
		{"docker.io/library/base:1", base, "docker.io/library/base:1 quay.io/known:1"},
		{"docker.io/me/made:1", made, "docker.io/library/base:1 quay.io/known:1 docker.io/me/made:1"},
		{"made", made, "docker.io/library/base:1 quay.io/known:1"},
	} {
		r := &fetching{Fetch: &Fetch{Known: []snapshotter.Image{known}}, img: &held{name: tt.name}, others: []*origin{
			{snapshotter.Image{Ref: "docker.io/library/other:1", Digest: other.digest}, other},
			{snapshotter.Image{Ref: "docker.io/me/made:1", Digest: made.digest}, made},
			{snapshotter.Image{Ref: "docker.io/library/base:1", Digest: base.digest}, base},
		}}
		var got []string
		for o, err := range r.origins(t.Context(), missing{ocispec.Descriptor{Digest: d}, tt.in}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, o.Ref)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestSourceLabel: blobs get the label that a pull gives them.
func TestSourceLabel(t *testing.T) {
	for _, tt := range []struct {
		ref  string
		want string
	}{
		{"docker.io/library/node:22", "map[containerd.io/distribution.source.docker.io:library/node]"},
		{"127.0.0.1:5002/a/b:1", "map[containerd.io/distribution.source.127.0.0.1:a/b]"},
		{"[::1]:5002/a:1", "map[containerd.io/distribution.source.::1:a]"},
		{"", "map[]"},
		{"quay.io/" + strings.Repeat("a", 5000), "map[]"},
	} {
		if got := fmt.Sprint(sourceLabel(snapshotter.Image{Ref: tt.ref})); got != tt.want {
			t.Errorf("%.100s: got %.100s, want %s", tt.ref, got, tt.want)
		}
	}
	if n := len(slices.Collect(maps.Keys(sourceLabel(snapshotter.Image{Ref: "quay.io/a:1"})))); n != 1 {
		t.Errorf("%d labels, want one", n)
	}
}
