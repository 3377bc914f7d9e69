package ocilayout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// entry returns desc as an entry of index.json with names.
func entry(desc ocispec.Descriptor, ref, full string) ocispec.Descriptor {
	desc.Annotations = map[string]string{}
	if ref != "" {
		desc.Annotations[ocispec.AnnotationRefName] = ref
	}
	if full != "" {
		desc.Annotations["io.containerd.image.name"] = full
	}
	return desc
}

// artifactOf adds an artifact that refers to a subject; its entry does not say of what
// type it is.
func artifactOf(store *sourcetest.Store, artifactType string, n int, subject ocispec.Descriptor) ocispec.Descriptor {
	return store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{}, Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(n)},
	})
}

func TestResolveTag(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	img, toc, other, third := store.AddImage(image("a")), store.AddImage(image("b")), store.AddImage(image("c")), store.AddImage(image("d"))
	dir := layoutOf(t, store, entry(img, "latest", ""), entry(toc, "latest-esgztoc", ""), entry(toc, "latest-esgztoc", ""),
		entry(img, "v1", "docker.io/team/one:v1"), entry(other, "ext", "docker.io/team/one:ext"), entry(third, "ext", "docker.io/team/two:ext"),
		entry(other, "docker.io/team/three:podman", ""))
	for _, tc := range []struct {
		image, tag string
		want       digest.Digest
	}{
		{"latest", "latest", img.Digest},
		{"latest", "latest-esgztoc", toc.Digest},
		{"latest", "esgztoc", ""},
		{"latest", "ext", ""}, // of two repositories
		{"docker.io/team/one:v1", "ext", other.Digest},
		{"docker.io/team/two:ext", "ext", third.Digest},
		{"team/two:ext", "ext", third.Digest},
		{"latest", "podman", other.Digest},
		{"latest", "absent", ""},
		{"latest", "", ""},
		{"", "latest", img.Digest},
	} {
		for name, open := range map[string]func() (*ocilayout.Source, error){
			"directory": func() (*ocilayout.Source, error) { return ocilayout.Open(dir, tc.image) },
			"archive": func() (*ocilayout.Source, error) {
				return ocilayout.OpenArchive(t.Context(), archiveOf(t, dir), tc.image, nil)
			},
		} {
			src, err := open()
			if err != nil {
				t.Fatal(err)
			}
			got, err := src.ResolveTag(t.Context(), tc.tag)
			if got.Digest != tc.want || (tc.want == "") != errors.Is(err, remote.ErrNotFound) {
				t.Errorf("%s, %q: tag %q: got %q and error %v, want %q", name, tc.image, tc.tag, got.Digest, err, tc.want)
			}
			src.Close()
		}
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	const one, two = "application/x.one", "application/x.two"
	store := sourcetest.NewStore()
	img, other := store.AddImage(image("a")), store.AddImage(image("b"))
	var all []ocispec.Descriptor
	for i := range 6 {
		all = append(all, artifactOf(store, []string{one, two}[i%2], i, img))
	}
	stranger := artifactOf(store, one, 7, other)
	gone := artifactOf(store, one, 8, img)
	broken := artifactOf(store, one, 9, img)
	listed := all[4:6]
	for i := range listed {
		listed[i].ArtifactType = []string{one, two}[i]
	}
	fallback := store.AddIndex(listed...)
	garbage := store.Put(ocispec.MediaTypeImageManifest, []byte("garbage"))
	dir := layoutOf(t, store, entry(img, "latest", ""), all[0], all[1], all[0], all[2], all[3], stranger, gone, broken, garbage, other,
		entry(fallback, remote.FallbackTag(img.Digest), ""))
	for _, d := range []digest.Digest{gone.Digest, broken.Digest} {
		path := filepath.Join(dir, "blobs", "sha256", d.Encoded())
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if d == broken.Digest {
			if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	src, err := ocilayout.Open(dir, "latest")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, tc := range []struct {
		subject digest.Digest
		of      string
		want    []ocispec.Descriptor
	}{
		{img.Digest, one, []ocispec.Descriptor{all[0], all[2], all[4]}},
		{img.Digest, two, []ocispec.Descriptor{all[1], all[3], all[5]}},
		{img.Digest, "", all},
		{other.Digest, "", []ocispec.Descriptor{stranger}},
		{img.Digest, "application/x.three", nil},
		{digest.FromString("absent"), "", nil},
	} {
		list, err := src.Referrers(t.Context(), tc.subject, tc.of)
		if err != nil || !slices.Equal(sorted(list), sorted(tc.want)) {
			t.Errorf("%s, %q: got %q and error %v, want %q", tc.subject, tc.of, sorted(list), err, sorted(tc.want))
		}
	}
	if _, err := src.Referrers(t.Context(), "x", ""); !errors.Is(err, remote.ErrReference) {
		t.Errorf("of no digest: got error %v, want %v", err, remote.ErrReference)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Referrers(ended, img.Digest, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got error %v, want %v", err, context.Canceled)
	}
	if _, err := src.ResolveTag(ended, "latest"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got error %v, want %v", err, context.Canceled)
	}
}

func sorted(list []ocispec.Descriptor) []digest.Digest {
	var all []digest.Digest
	for _, desc := range list {
		all = append(all, desc.Digest)
	}
	slices.Sort(all)
	return all
}

// What lies under the fallback tag and is no list of others says nothing.
func TestReferrersFallback(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	img := store.AddImage(image("a"))
	index := store.AddIndex(img)
	for name, tc := range map[string]struct{ subject, tagged ocispec.Descriptor }{
		"the image itself":         {img, img},
		"the image index itself":   {index, index},
		"a list of the image":      {img, index},
		"garbage":                  {img, store.Put(ocispec.MediaTypeImageIndex, []byte("garbage"))},
		"an index of no manifests": {img, store.Put(ocispec.MediaTypeImageIndex, []byte(`{"manifests":[7]}`))},
	} {
		dir := layoutOf(t, store, entry(img, "latest", ""), index, entry(tc.tagged, remote.FallbackTag(tc.subject.Digest), ""))
		src, err := ocilayout.Open(dir, "latest")
		if err != nil {
			t.Fatal(err)
		}
		if list, err := src.Referrers(t.Context(), tc.subject.Digest, ""); err != nil || len(list) > 0 {
			t.Errorf("%s: got %v and error %v", name, list, err)
		}
		src.Close()
	}
}

// TestForeignReferrers finds SOCI's index of version 1 and the TOC of an external
// eStargz as the tools wrote them.
func TestForeignReferrers(t *testing.T) {
	t.Parallel()
	src, err := ocilayout.Open(testenv.Foreign(t, "sink-soci-v1"), "latest")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	list, err := src.Referrers(t.Context(), img.Descriptor.Digest, "application/vnd.amazon.soci.index.v1+json")
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v and error %v, want one", list, err)
	}
	a, err := remote.OpenArtifact(t.Context(), src, list[0])
	if err != nil || a.Type != "application/vnd.amazon.soci.index.v1+json" || a.Subject == nil || a.Subject.Digest != img.Descriptor.Digest {
		t.Errorf("got %+v and error %v", a, err)
	}
	external, err := ocilayout.Open(testenv.Foreign(t, "sink-estargz-ext"), "latest")
	if err != nil {
		t.Fatal(err)
	}
	defer external.Close()
	toc, err := external.ResolveTag(t.Context(), "latest-esgztoc")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := remote.OpenArtifact(t.Context(), external, toc); err != nil || len(a.Layers) != 1 || a.Layers[0].Annotations["containerd.io/snapshot/stargz/layer.digest"] == "" {
		t.Errorf("got %+v and error %v", a, err)
	}
}

// TestSkopeoArtifact: skopeo 1.9 copies an image with SOCI's index and leaves out what
// says that the index is none.
func TestSkopeoArtifact(t *testing.T) {
	testenv.Slow(t)
	from := testenv.Foreign(t, "sink-soci-v2")
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if out, err := exec.Command("skopeo", "copy", "--quiet", "--all", "oci:"+from, "oci:"+dir+":latest").CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	src, err := ocilayout.Open(dir, "latest")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	a, err := remote.OpenArtifact(t.Context(), src, ocispec.Descriptor{Digest: digest.Digest(img.Annotations["com.amazon.soci.index-digest"])})
	if err != nil || a.Type != "application/vnd.amazon.soci.index.v2+json" || len(img.Layers) != 2 {
		t.Errorf("got an image of %d layers, %+v and error %v", len(img.Layers), a, err)
	}
}
