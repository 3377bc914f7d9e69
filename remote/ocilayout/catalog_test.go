package ocilayout_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

const containerdName = "io.containerd.image.name"

// A shelf makes entries of index.json, and keeps what they are called in tests.
type shelf struct {
	*sourcetest.Store
	names map[digest.Digest]string
}

func newShelf() *shelf { return &shelf{sourcetest.NewStore(), make(map[digest.Digest]string)} }

// image adds an image for a platform, which the entry states.
func (s *shelf) image(name, platform string) ocispec.Descriptor {
	desc := s.AddImage(sourcetest.Image{Platform: platform, Layers: []sourcetest.Layer{{Content: []byte(name)}}})
	s.names[desc.Digest] = name
	return desc
}

// silent is image for an entry that does not state the platform: the config does.
func (s *shelf) silent(name, platform string) ocispec.Descriptor {
	desc := s.image(name, platform)
	desc.Platform = nil
	return desc
}

// untold is image where nothing states the platform.
func (s *shelf) untold(name string) ocispec.Descriptor {
	desc := s.AddImage(sourcetest.Image{Config: map[string]any{"os": "", "architecture": ""}, Layers: []sourcetest.Layer{{Content: []byte(name)}}})
	s.names[desc.Digest] = name
	desc.Platform = nil
	return desc
}

// artifact adds a manifest with a config and one layer of these types.
func (s *shelf) artifact(name, config, layer string) ocispec.Descriptor {
	return s.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    s.PutJSON(config, map[string]any{"rootfs": map[string]any{"diff_ids": []string{digest.FromString(name).String()}}}),
		Layers:    []ocispec.Descriptor{s.Put(layer, []byte(name))},
	})
}

func (s *shelf) signature(name string) ocispec.Descriptor {
	return s.artifact(name, ocispec.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json")
}

// referrer adds an image that refers to another one.
func (s *shelf) referrer(name string, to ocispec.Descriptor) ocispec.Descriptor {
	content, _ := s.Get(s.silent(name, "linux/arm64").Digest)
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		panic(err)
	}
	m.Subject = &to
	return s.PutJSON(ocispec.MediaTypeImageManifest, m)
}

func (s *shelf) index(name string, entries ...ocispec.Descriptor) ocispec.Descriptor {
	desc := s.AddIndex(entries...)
	s.names[desc.Digest] = name
	return desc
}

// list makes entries those of the layout in dir, which it writes when it is empty.
func (s *shelf) list(t *testing.T, dir string, entries []ocispec.Descriptor) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		if err := s.WriteLayout(dir); err != nil {
			t.Fatal(err)
		}
	}
	index, err := json.Marshal(ocispec.Index{Manifests: entries})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		t.Fatal(err)
	}
}

// named adds annotations: a name of containerd's, if not empty, and a ref.name.
func named(desc ocispec.Descriptor, full, ref string) ocispec.Descriptor {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
	if full != "" {
		desc.Annotations[containerdName] = full
	}
	return desc
}

// TestPlatforms: index.json is an image index, in which platforms choose.
func TestPlatforms(t *testing.T) {
	s := newShelf()
	tagged := sourcetest.Tagged
	amd, arm, arm7 := s.image("amd", "linux/amd64"), s.image("arm", "linux/arm64"), s.image("arm7", "linux/arm/v7")
	amd2 := s.image("amd2", "linux/amd64")
	silentAMD, silentARM, untold := s.silent("silent amd", "linux/amd64"), s.silent("silent arm", "linux/arm64"), s.untold("untold")
	silentARM2 := s.silent("silent arm2", "linux/arm64")
	both := s.index("both", amd, arm)
	win1, win2 := s.image("win1", "windows(10.0.17763.1)/amd64"), s.image("win2", "windows(10.0.20348.1)/amd64")
	attestation := s.artifact("attestation", ocispec.MediaTypeImageConfig, "application/vnd.in-toto+json")
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	helm := s.artifact("helm", "application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
	bundle := s.artifact("bundle", "application/vnd.oci.empty.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json")
	notation := s.artifact("notation", "application/vnd.cncf.notary.signature", "application/jose+json")
	beside := []ocispec.Descriptor{attestation, helm, bundle, notation, s.signature("signature"), s.Put("application/vnd.example", []byte("{}"))}
	silent := func(desc ocispec.Descriptor) ocispec.Descriptor {
		desc.Platform = nil
		return desc
	}
	untyped := func(desc ocispec.Descriptor) ocispec.Descriptor {
		desc.MediaType = ""
		return desc
	}
	stating := func(desc ocispec.Descriptor, platform string) ocispec.Descriptor {
		p := platforms.MustParse(platform)
		desc.Platform = &p
		return desc
	}
	referrer := s.referrer("referrer", silentARM)
	gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 10}
	goneIndex := gone
	goneIndex.MediaType = ocispec.MediaTypeImageIndex
	dir := t.TempDir()
	for _, c := range []struct {
		name     string
		entries  []ocispec.Descriptor
		image    string
		platform string
		want     string // or "" for an error
		err      error
		says     string
	}{
		{"stated", []ocispec.Descriptor{amd, arm}, "", "linux/arm64", "arm", nil, ""},
		{"stated, the other", []ocispec.Descriptor{arm, amd}, "", "linux/amd64", "amd", nil, ""},
		{"what also runs", []ocispec.Descriptor{amd, arm7}, "", "linux/arm64", "arm7", nil, ""},
		{"none", []ocispec.Descriptor{amd, arm}, "", "linux/s390x", "", remote.ErrPlatform, "there is linux/amd64, linux/arm64"},
		{"none of a tag", []ocispec.Descriptor{tagged(amd, "v1"), tagged(arm, "v1")}, "v1", "linux/s390x", "", remote.ErrPlatform, "there is linux/amd64, linux/arm64"},
		{"none of all kinds", []ocispec.Descriptor{amd, silentARM, s.index("nested", arm7)}, "", "linux/s390x", "", remote.ErrPlatform, "there is linux/amd64, linux/arm/v7, linux/arm64"},
		{"a tag", []ocispec.Descriptor{tagged(amd, "v1"), tagged(arm, "v1"), tagged(amd2, "v2")}, "v1", "linux/arm64", "arm", nil, ""},
		{"the platform of another tag", []ocispec.Descriptor{tagged(amd, "v1"), tagged(arm, "v2")}, "v1", "linux/arm64", "", remote.ErrPlatform, "there is linux/amd64"},
		{"tags without a name", []ocispec.Descriptor{tagged(amd, "v1"), tagged(arm, "v2")}, "", "linux/arm64", "arm", nil, ""},
		{"in the config", []ocispec.Descriptor{silentAMD, silentARM}, "", "linux/arm64", "silent arm", nil, ""},
		{"in the config, of a tag", []ocispec.Descriptor{tagged(silentAMD, "v1"), tagged(silentARM, "v1")}, "v1", "linux/amd64", "silent amd", nil, ""},
		{"in the config of one", []ocispec.Descriptor{amd, silentARM}, "", "linux/arm64", "silent arm", nil, ""},
		{"the same twice", []ocispec.Descriptor{tagged(amd, "v1"), tagged(amd, "v2")}, "", "linux/amd64", "amd", nil, ""},
		{"the same without a media type", []ocispec.Descriptor{untyped(both), arm7}, "", "linux/amd64", "amd", nil, ""},
		{"two indexes without media types", []ocispec.Descriptor{tagged(untyped(both), "v1"), tagged(untyped(s.index("other", amd2)), "v2")}, "", "linux/amd64", "", remote.ErrReference, `"v1", "v2"`},
		{"the same twice, and another", []ocispec.Descriptor{tagged(amd, "v1"), tagged(arm, "v1"), tagged(amd, "v2")}, "", "linux/amd64", "amd", nil, ""},
		{"two for one platform", []ocispec.Descriptor{tagged(amd, "v1"), tagged(amd2, "v2"), tagged(arm, "v3")}, "", "linux/amd64", "", remote.ErrReference, `"v1", "v2"`},
		{"two for one platform, of a tag", []ocispec.Descriptor{tagged(amd, "v1"), tagged(amd2, "v1"), tagged(arm, "v1")}, "v1", "linux/amd64", "", remote.ErrReference, "@" + amd2.Digest.String()},
		{"two for another platform", []ocispec.Descriptor{tagged(amd, "v1"), tagged(amd2, "v1"), tagged(arm, "v1")}, "v1", "linux/arm64", "arm", nil, ""},
		{"two for one platform, one in its config", []ocispec.Descriptor{tagged(amd, "v1"), tagged(silentAMD, "v2")}, "", "linux/amd64", "", remote.ErrReference, `"v1", "v2"`},
		{"two versions", []ocispec.Descriptor{win1, win2}, "", "windows(10.0.20348)/amd64", "win2", nil, ""},
		{"the first of two versions", []ocispec.Descriptor{tagged(win1, "v1"), tagged(win2, "v1")}, "v1", "windows/amd64", "win1", nil, ""},
		{"nested", []ocispec.Descriptor{both}, "", "linux/arm64", "arm", nil, ""},
		{"nested beside another", []ocispec.Descriptor{both, arm7}, "", "linux/arm64", "arm", nil, ""},
		{"nested beside what it lists", []ocispec.Descriptor{both, amd, arm}, "", "linux/arm64", "arm", nil, ""},
		{"nested beside another for the platform", []ocispec.Descriptor{tagged(both, "v1"), tagged(amd2, "v2")}, "", "linux/amd64", "", remote.ErrReference, `"v1", "v2"`},
		{"nested indexes", []ocispec.Descriptor{s.index("1", amd), s.index("2", arm)}, "", "linux/arm64", "arm", nil, ""},
		{"artifacts beside", slices.Concat(beside, []ocispec.Descriptor{silentARM}), "", "", "silent arm", nil, ""},
		{"artifacts beside two", slices.Concat(beside, []ocispec.Descriptor{amd, arm}), "", "linux/arm64", "arm", nil, ""},
		{"artifacts of a tag", []ocispec.Descriptor{tagged(helm, "v1"), tagged(silentAMD, "v1"), tagged(silentARM, "v2")}, "v1", "", "silent amd", nil, ""},
		{"artifacts alone", []ocispec.Descriptor{tagged(helm, "chart"), tagged(bundle, "bundle")}, "", "", "", remote.ErrReference, `"chart", "bundle"`},
		{"one artifact", []ocispec.Descriptor{helm, attestation}, "", "", "", remote.ErrUnsupported, "a Helm chart"},
		{"one for another platform", []ocispec.Descriptor{arm}, "", "", "arm", nil, ""},
		{"one for another platform than asked", []ocispec.Descriptor{arm}, "", "linux/amd64", "", remote.ErrPlatform, "there is linux/arm64"},
		{"two for another platform", []ocispec.Descriptor{tagged(silentARM, "v1"), tagged(silentARM2, "v2")}, "", "", "", remote.ErrReference, `"v1", "v2"`},
		{"two for another platform than asked", []ocispec.Descriptor{tagged(silentARM, "v1"), tagged(silentARM2, "v2")}, "", "linux/s390x", "", remote.ErrPlatform, "there is linux/arm64"},
		{"untold", []ocispec.Descriptor{untold}, "", "linux/amd64", "untold", nil, ""},
		{"untold in an index", []ocispec.Descriptor{tagged(s.index("untold list", untold), "v1")}, "v1", "", "untold", nil, ""},
		{"untold in one of two indexes", []ocispec.Descriptor{tagged(s.index("untold list", untold), "v1"), tagged(s.index("arm list", arm), "v2")}, "", "", "", remote.ErrReference, `"v1", "v2"`},
		{"untold beside another", []ocispec.Descriptor{tagged(untold, "v1"), tagged(arm, "v2")}, "", "linux/amd64", "", remote.ErrReference, `"v1", "v2"`},
		{"untold beside the right one", []ocispec.Descriptor{tagged(untold, "v1"), tagged(amd, "v2")}, "", "linux/amd64", "amd", nil, ""},
		{"what an index lists", []ocispec.Descriptor{tagged(both, "v1"), silent(amd), silent(arm)}, "", "linux/arm64", "arm", nil, ""},
		{"what an index lists, before it", []ocispec.Descriptor{tagged(silent(amd), "amd"), tagged(silent(arm), "arm"), tagged(both, "v1")}, "", "linux/amd64", "amd", nil, ""},
		{"none of what an index lists", []ocispec.Descriptor{silent(amd), silent(arm), both}, "", "linux/s390x", "", remote.ErrPlatform, "there is linux/amd64, linux/arm64"},
		{"what refers to an image", []ocispec.Descriptor{referrer, silentARM}, "", "", "silent arm", nil, ""},
		{"one image for two platforms", []ocispec.Descriptor{stating(amd, "linux/amd64"), stating(amd, "linux/s390x")}, "", "linux/s390x", "amd", nil, ""},
		{"one image for two platforms, and another", []ocispec.Descriptor{stating(amd, "linux/amd64"), arm, stating(amd, "linux/s390x")}, "", "linux/s390x", "amd", nil, ""},
		{"one image for neither of two platforms", []ocispec.Descriptor{stating(arm, "linux/riscv64"), stating(arm, "linux/s390x")}, "", "linux/amd64", "", remote.ErrPlatform, "there is linux/arm64"},
		{"what is stated before the config", []ocispec.Descriptor{stating(amd, "linux/s390x")}, "", "linux/s390x", "amd", nil, ""},
		{"the config in place of what is stated", []ocispec.Descriptor{stating(amd, "linux/s390x")}, "", "linux/amd64", "amd", nil, ""},
		{"absent ones", []ocispec.Descriptor{gone, goneIndex, amd}, "", "linux/amd64", "amd", nil, ""},
		{"absent ones, all others are listed", []ocispec.Descriptor{stating(gone, "linux/arm64"), amd}, "", "linux/s390x", "", remote.ErrPlatform, "linux/s390x; there is linux/amd64"},
		{"absent config", []ocispec.Descriptor{s.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: gone.Digest, Size: 10}}), silentARM}, "", "linux/arm64", "silent arm", nil, ""},
		{"absent though stated", []ocispec.Descriptor{stating(gone, "linux/arm64"), amd}, "", "linux/arm64", "", remote.ErrPlatform, "linux/arm64; there is linux/amd64"},
		{"absent in an index", []ocispec.Descriptor{s.index("sparse", stating(gone, "linux/arm64"), amd, arm7)}, "", "linux/s390x", "", remote.ErrPlatform, "linux/s390x; there is linux/amd64, linux/arm/v7"},
		{"the next best of an index", []ocispec.Descriptor{s.index("sparse", stating(gone, "linux/arm64"), amd, arm7)}, "", "linux/arm64", "arm7", nil, ""},
		{"absent ones alone", []ocispec.Descriptor{gone, goneIndex}, "", "linux/amd64", "", remote.ErrNotFound, gone.Digest.String()},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.list(t, dir, c.entries)
			src, err := ocilayout.Open(dir, c.image)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			img, err := remote.Open(t.Context(), src, c.platform)
			if c.want == "" {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got error %v, want %v that says %q", err, c.err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.names[img.Descriptor.Digest]; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if digest.FromBytes(img.Raw) != img.Top.Digest {
				t.Error("Raw has not the digest of Top")
			}
		})
	}
}

// TestNames has names as the tools write them into index.json, and what finds them.
func TestNames(t *testing.T) {
	s := newShelf()
	alpha, beta, gamma := s.silent("alpha", "linux/amd64"), s.silent("beta", "linux/amd64"), s.silent("gamma", "linux/amd64")
	betaARM := s.silent("beta arm", "linux/arm64")
	const one, two = "docker.io/library/alpha:latest", "docker.io/library/beta:latest"
	saved := []ocispec.Descriptor{named(alpha, one, "latest"), named(beta, two, "latest")} // docker, ctr
	pushed := []ocispec.Descriptor{named(alpha, "", one), named(beta, "", two)}            // podman, buildah, nerdctl
	dir := t.TempDir()
	for _, c := range []struct {
		name    string
		entries []ocispec.Descriptor
		image   string
		want    string // or "" for ErrReference or ErrNotFound
		named   []string
	}{
		{"containerd's name", saved, two, "beta", nil},
		{"tag", saved, "latest", "", []string{one, two}},
		{"none", saved, "", "", []string{one, two}},
		{"docker's short name", saved, "beta", "beta", nil},
		{"with the tag", saved, "beta:latest", "beta", nil},
		{"with the repository", saved, "library/beta", "beta", nil},
		{"with both", saved, "library/beta:latest", "beta", nil},
		{"with the registry", saved, "docker.io/beta", "beta", nil},
		{"with the registry's other name", saved, "index.docker.io/library/beta:latest", "beta", nil},
		{"another tag", saved, "beta:v1", "", nil},
		{"end of a word", saved, "eta:latest", "", nil},
		{"nothing", saved, "/", "", nil},
		{"full reference", pushed, two, "beta", nil},
		{"short for a reference", pushed, "beta", "beta", nil},
		{"tag of references", pushed, "latest", "", []string{one, two}},
		{"tag of one reference", []ocispec.Descriptor{named(alpha, "", "quay.io/a/alpha:v1"), named(beta, "", "quay.io/a/beta:v2")}, "v2", "beta", nil},
		{"end of a path", []ocispec.Descriptor{named(alpha, "", "quay.io/a/alpha:v1"), named(beta, "", "quay.io/a/beta:v2")}, "a/beta:v2", "beta", nil},
		{"end of a path, without the tag", []ocispec.Descriptor{named(alpha, "", "quay.io/a/alpha:v1"), named(beta, "", "quay.io/a/beta:latest")}, "beta", "beta", nil},
		{"ends of two paths", []ocispec.Descriptor{named(alpha, "", "quay.io/a/app:v1"), named(beta, "", "quay.io/b/app:v1")}, "app:v1", "", []string{"quay.io/a/app:v1", "quay.io/b/app:v1"}},
		{"a name before what is short for another", []ocispec.Descriptor{named(alpha, "", "quay.io/a/app:v1"), named(beta, "", "v1")}, "v1", "beta", nil},
		{"one image of two names", []ocispec.Descriptor{named(alpha, one, "latest"), named(alpha, two, "latest")}, "latest", "alpha", nil},
		{"a name without a full one", []ocispec.Descriptor{named(alpha, one, "latest"), named(beta, "", "latest")}, "latest", "", []string{one, "@" + beta.Digest.String()}},
		{"one full name of two", []ocispec.Descriptor{named(alpha, one, "latest"), named(beta, one, "latest")}, one, "", []string{"@" + alpha.Digest.String(), "@" + beta.Digest.String()}},
		{"two images for two platforms", []ocispec.Descriptor{named(alpha, one, "latest"), named(betaARM, two, "latest")}, "latest", "", []string{one, two}},
		{"two platforms of a full name", []ocispec.Descriptor{named(beta, two, "latest"), named(betaARM, two, "latest")}, "latest", "beta", nil},
		{"a name short and in full", []ocispec.Descriptor{named(beta, "", "beta:latest"), named(betaARM, "", two)}, "latest", "beta", nil},
		{"three, two of a name", []ocispec.Descriptor{named(alpha, one, "latest"), named(beta, two, "latest"), named(gamma, "", "v1")}, "latest", "", []string{one, two}},
		{"a name of an index and a name of what it lists", []ocispec.Descriptor{named(s.index("both", alpha, betaARM), one, "latest"), named(alpha, two, "latest")}, "latest", "", []string{one, two}},
		{"one name of an index and of what it lists", []ocispec.Descriptor{named(s.index("both", alpha, betaARM), one, "latest"), named(alpha, one, "latest")}, "latest", "alpha", nil},
		{"names that look like numbers", []ocispec.Descriptor{named(alpha, "", "@1"), named(beta, "", "v1")}, "@1", "alpha", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.list(t, dir, c.entries)
			img, err := openOne(t, "oci:"+dir+":"+c.image, c.image)
			switch {
			case c.want != "" && err != nil:
				t.Error(err)
			case c.want != "" && s.names[img.Descriptor.Digest] != c.want:
				t.Errorf("got %s, want %s", s.names[img.Descriptor.Digest], c.want)
			case c.want == "" && c.named == nil && !errors.Is(err, remote.ErrNotFound):
				t.Errorf("got error %v, want %v", err, remote.ErrNotFound)
			case c.named == nil:
				return
			}
			var ambiguous *remote.AmbiguousError
			if !errors.As(err, &ambiguous) || !slices.Equal(ambiguous.Named, c.named) || !errors.Is(err, remote.ErrReference) {
				t.Fatalf("got error %v, want one that names %q", err, c.named)
			}
			for i, l := range ambiguous.Locations {
				if !strings.Contains(err.Error(), c.named[i]) {
					t.Errorf("error %q does not name %s", err, c.named[i])
				}
				if _, err := openOne(t, l.String(), l.Image); err != nil && !errors.Is(err, remote.ErrPlatform) {
					t.Errorf("%s, which the error names: %v", l, err)
				}
			}
		})
	}
}

// openOne opens an image of a layout for linux/amd64.
func openOne(t *testing.T, location, image string) (*remote.Image, error) {
	t.Helper()
	l, err := remote.ParseLocation(strings.TrimSuffix(location, ":"))
	if err != nil {
		t.Fatal(err)
	}
	if l.Image != image {
		t.Fatalf("%s has image %q, want %q", location, l.Image, image)
	}
	src, err := ocilayout.Open(l.Path, l.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	return remote.Open(t.Context(), src, "linux/amd64")
}

// TestOpenDocument: what a name means is returned as it is, whatever it is.
func TestOpenDocument(t *testing.T) {
	s := newShelf()
	amd, arm := s.image("amd", "linux/amd64"), s.image("arm", "linux/arm64")
	amd2 := s.image("amd2", "linux/amd64")
	tagged := sourcetest.Tagged
	helm := s.artifact("helm", "application/vnd.cncf.helm.config.v1+json", "x")
	odd := s.Put("application/vnd.example", []byte(`["no manifest"`))
	schema1 := s.Put("application/vnd.docker.distribution.manifest.v1+json", []byte(`{"schemaVersion":1}`))
	plan9 := s.AddIndex(s.image("plan9", "plan9/mips"))
	dir := t.TempDir()
	if err := s.WriteLayout(dir, tagged(helm, "helm"), tagged(odd, "odd"), tagged(schema1, "schema1"), tagged(plan9, "plan9"), tagged(s.AddIndex(), "empty"),
		tagged(amd, "both"), tagged(arm, "both"), tagged(amd, "twice"), tagged(amd2, "twice"), tagged(s.silent("a", "linux/amd64"), "silent"), tagged(s.silent("b", "linux/s390x"), "silent"),
		tagged(s.silent("a", "linux/amd64"), "signed"), tagged(s.signature("s"), "signed")); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	twice := newShelf()
	dirTwice := t.TempDir()
	twice.list(t, dirTwice, []ocispec.Descriptor{tagged(twice.image("amd", "linux/amd64"), "v1"), tagged(twice.image("amd", "linux/amd64"), "v2"), tagged(twice.image("arm", "linux/arm64"), "v3")})
	src, err := ocilayout.Open(dirTwice, "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if doc, err := remote.OpenDocument(t.Context(), src); err != nil || !bytes.Contains(doc.Content, []byte(`"v3"`)) {
		t.Errorf("a platform that is listed twice: got %v and error %v, want index.json", doc, err)
	}
	for image, want := range map[string]any{
		"helm": helm, "odd": odd, "schema1": schema1, "plan9": plan9, "empty": s.AddIndex(), "signed": s.silent("a", "linux/amd64"), "@" + arm.Digest.String(): arm,
		"both": index, "silent": index, "twice": remote.ErrReference, "absent": remote.ErrNotFound,
	} {
		src, err := ocilayout.Open(dir, image)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		doc, err := remote.OpenDocument(t.Context(), src)
		switch want := want.(type) {
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%s: got error %v, want %v", image, err, want)
			}
		case ocispec.Descriptor:
			if content, _ := s.Get(want.Digest); err != nil || !bytes.Equal(doc.Content, content) {
				t.Errorf("%s: got %v and error %v, want %s", image, doc, err, content)
			}
		case []byte:
			if err != nil || !bytes.Equal(doc.Content, want) {
				t.Errorf("%s: got %v and error %v, want index.json", image, doc, err)
			}
			top, err := src.Resolve(t.Context())
			if err != nil || top.Digest != digest.FromBytes(want) {
				t.Errorf("%s: Resolve: got %s and error %v, want index.json", image, top.Digest, err)
			}
			if content, err := src.Fetch(t.Context(), top); err != nil || !bytes.Equal(content, want) {
				t.Errorf("%s: Fetch: got %q and error %v, want index.json", image, content, err)
			}
		}
	}
}

// TestNamesInArchive: names and platforms choose in a tar file as in a directory.
func TestNamesInArchive(t *testing.T) {
	s := newShelf()
	amd, arm := s.image("amd", "linux/amd64"), s.image("arm", "linux/arm64")
	gone := amd
	gone.Digest, gone.Platform = digest.FromString("gone"), &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	dir := t.TempDir()
	const one, two = "docker.io/library/alpha:latest", "docker.io/library/beta:latest"
	if err := s.WriteLayout(dir, named(s.index("one", amd, arm, gone), one, "latest"), named(s.silent("two", "linux/amd64"), two, "latest")); err != nil {
		t.Fatal(err)
	}
	file := archiveOf(t, dir)
	for _, c := range []struct{ image, platform, want, says string }{
		{"alpha", "linux/arm64", "arm", ""},
		{one, "linux/amd64", "amd", ""},
		{two, "linux/amd64", "two", ""},
		{"latest", "linux/amd64", "", `"` + one + `", "` + two + `"`},
		{"", "linux/amd64", "", `"` + one + `", "` + two + `"`},
		{"", "linux/arm64", "arm", ""},
		{"alpha", "linux/s390x", "", "there is linux/amd64, linux/arm64"},
		{"@" + arm.Digest.String(), "", "arm", ""},
		{"@1", "", "two", ""},
	} {
		src, err := ocilayout.OpenArchive(t.Context(), file, c.image, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		img, err := remote.Open(t.Context(), src, c.platform)
		switch {
		case c.want == "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q for %q: got error %v, want one that says %q", c.image, c.platform, err, c.says)
		case c.want != "" && err != nil:
			t.Errorf("%q for %q: %v", c.image, c.platform, err)
		case c.want != "" && s.names[img.Descriptor.Digest] != c.want:
			t.Errorf("%q for %q: got %q, want %q", c.image, c.platform, s.names[img.Descriptor.Digest], c.want)
		}
	}
}
