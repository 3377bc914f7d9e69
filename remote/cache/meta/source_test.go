package meta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const testManifest = `{"schemaVersion":2,"config":{},"layers":[]}`

func TestFetchKeeps(t *testing.T) {
	dir := t.TempDir()
	src := cachetest.NewFakeSource(t, "example.com/a:1", testManifest)
	path := filepath.Join(dir, directory.Meta, "sha256", src.Desc().Digest.Encoded())
	fetch := func(want int) {
		t.Helper()
		got, err := openCache(t, dir, nil).Source(src, nil).Fetch(t.Context(), src.Desc())
		if err != nil || string(got) != testManifest {
			t.Fatalf("Fetch() = %q, %v", got, err)
		}
		if src.Fetched != want {
			t.Errorf("source asked %d times, want %d", src.Fetched, want)
		}
	}
	fetch(1)
	fetch(1)
	for i, damage := range []string{testManifest[1:], "X" + testManifest[1:], testManifest + " ", ""} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		fetch(2 + i)
		fetch(2 + i)
	}
	cachetest.CheckTmp(t, dir)
}

func TestFetchRefuses(t *testing.T) {
	good := cachetest.NewFakeSource(t, "example.com/a:1", testManifest)
	tests := []struct {
		name  string
		desc  ocispec.Descriptor
		wrong string
		want  error
	}{
		{"wrong bytes", good.Desc(), "X" + testManifest[1:], remote.ErrDigest},
		{"wrong size", good.Desc(), testManifest + "\n", remote.ErrDigest},
		{"path as digest", ocispec.Descriptor{Digest: "sha256:../../x"}, "", digest.ErrDigestInvalidLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			src := cachetest.NewFakeSource(t, good.Ref, testManifest)
			src.Wrong = tt.wrong
			s := openCache(t, dir, nil).Source(src, nil)
			if _, err := s.Fetch(t.Context(), tt.desc); !errors.Is(err, tt.want) {
				t.Errorf("Fetch() = %v, want %v", err, tt.want)
			}
			kept, err := os.ReadDir(filepath.Join(dir, directory.Meta, "sha256"))
			if err != nil || len(kept) != 0 {
				t.Errorf("kept %v, %v", kept, err)
			}
		})
	}
}

// The digest decides, whatever size a descriptor says.
func TestFetchOtherSize(t *testing.T) {
	src := cachetest.NewFakeSource(t, "example.com/a:1", testManifest)
	s := openCache(t, t.TempDir(), nil).Source(src, nil)
	for _, by := range []int64{-1, 0, 1} {
		desc := src.Desc()
		desc.Size += by
		if got, err := s.Fetch(t.Context(), desc); err != nil || string(got) != testManifest {
			t.Errorf("Fetch(size %d) = %q, %v", desc.Size, got, err)
		}
	}
	if src.Fetched != 1 {
		t.Errorf("source asked %d times, want 1", src.Fetched)
	}
}

func TestResolve(t *testing.T) {
	const name = "registry.example/a/b:1"
	unavailable := fmt.Errorf("dial: %w", remote.ErrUnavailable)
	tests := []struct {
		name string
		err  error // of the second Resolve
		want error // nil: the kept descriptor, with a warning
	}{
		{"unavailable", unavailable, nil},
		{"not found", remote.ErrNotFound, remote.ErrNotFound},
		{"unauthorized", fmt.Errorf("401: %w", remote.ErrUnauthorized), remote.ErrUnauthorized},
		{"wrong answer", remote.ErrDigest, remote.ErrDigest},
		{"something else", os.ErrInvalid, os.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var w cachetest.Warnings
			src := cachetest.NewFakeSource(t, name, testManifest)
			s := openCache(t, dir, nil).Source(src, &SourceOptions{Warnf: w.Warnf})
			src.Err = tt.err
			if _, err := s.Resolve(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("Resolve() of what is not known = %v, want %v", err, tt.err)
			}
			src.Err = nil
			if got, err := s.Resolve(t.Context()); err != nil || got.Digest != src.Desc().Digest {
				t.Fatalf("Resolve() = %v, %v", got, err)
			}
			if len(w.All) != 0 {
				t.Errorf("warned of nothing: %q", w.All)
			}
			src.Err = tt.err
			if _, err := s.Resolve(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("Resolve() of what was never got = %v, want %v", err, tt.err)
			}
			src.Err = nil
			if _, err := s.Fetch(t.Context(), src.Desc()); err != nil {
				t.Fatal(err)
			}

			src.Err = tt.err
			s = openCache(t, dir, nil).Source(src, &SourceOptions{Warnf: w.Warnf})
			got, err := s.Resolve(t.Context())
			if !errors.Is(err, tt.want) {
				t.Fatalf("Resolve() = %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				if got.Digest != src.Desc().Digest || got.MediaType != src.Desc().MediaType || got.Size != src.Desc().Size {
					t.Errorf("Resolve() = %v, want %v", got, src.Desc())
				}
				w.Check(t, "the tag could not be checked, using the image as last seen on "+time.Now().Format("2006-01-02"))
			}
			if src.Resolved != 4 {
				t.Errorf("source asked %d times, want 4", src.Resolved)
			}
		})
	}
}

func TestResolveCancelled(t *testing.T) {
	src := cachetest.NewFakeSource(t, "a/b:1", testManifest)
	s := openCache(t, t.TempDir(), nil).Source(src, &SourceOptions{Warnf: t.Errorf})
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src.Err = fmt.Errorf("%w: %w", remote.ErrUnavailable, ctx.Err())
	if _, err := s.Resolve(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve() = %v, want context.Canceled", err)
	}
}

// A reference by digest needs no asking once it is known, by whatever name.
func TestResolvePinned(t *testing.T) {
	index := `{"schemaVersion":2,"manifests":[]}`
	docker := `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`
	other := digest.FromString("other").String()
	tests := []struct {
		name    string
		content string
		known   string // what was resolved before; "": nothing
		fetched bool   // and whether it was fetched
		ask     string
		opts    SourceOptions
		want    string // media type; "": the source is asked
	}{
		{"same name", testManifest, "r/a@DIGEST", false, "r/a@DIGEST", SourceOptions{}, ocispec.MediaTypeImageManifest},
		{"tag and digest", testManifest, "r/a:1@DIGEST", false, "r/a:1@DIGEST", SourceOptions{}, ocispec.MediaTypeImageManifest},
		{"known by tag", testManifest, "r/a:1", true, "r/a@DIGEST", SourceOptions{}, ocispec.MediaTypeImageManifest},
		{"index known by tag", index, "r/a:1", true, "r/a@DIGEST", SourceOptions{}, ocispec.MediaTypeImageIndex},
		{"docker known by tag", docker, "r/a:1", true, "r/a@DIGEST", SourceOptions{}, "application/vnd.docker.distribution.manifest.v2+json"},
		{"config", `{"rootfs":{}}`, "r/a:1", true, "r/a@DIGEST", SourceOptions{}, ""},
		{"resolved only", testManifest, "r/a:1", false, "r/a@DIGEST", SourceOptions{}, ""},
		{"another digest", testManifest, "r/a:1", true, "r/a@" + other, SourceOptions{}, ""},
		{"tag", testManifest, "r/a:1", true, "r/a:1", SourceOptions{}, ""},
		{"pinned by option", testManifest, "oci:/x", false, "oci:/x", SourceOptions{Pinned: true}, ocispec.MediaTypeImageManifest},
		{"pinned and unknown", testManifest, "", false, "oci:/x", SourceOptions{Pinned: true}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := openCache(t, t.TempDir(), nil)
			src := cachetest.NewFakeSource(t, "", tt.content)
			d := src.Desc().Digest.String()
			src.Ref = strings.ReplaceAll(tt.known, "DIGEST", d)
			s := c.Source(src, nil)
			if tt.known != "" {
				if _, err := s.Resolve(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if tt.fetched {
				if _, err := s.Fetch(t.Context(), src.Desc()); err != nil {
					t.Fatal(err)
				}
			}
			src.Ref = strings.ReplaceAll(tt.ask, "DIGEST", d)
			src.Resolved = 0
			got, err := c.Source(src, &tt.opts).Resolve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if asked := src.Resolved > 0; asked != (tt.want == "") {
				t.Errorf("source asked: %v", asked)
			}
			if tt.want != "" && (got.MediaType != tt.want || got.Digest != src.Desc().Digest || got.Size != src.Desc().Size) {
				t.Errorf("Resolve() = %+v, want media type %s of %+v", got, tt.want, src.Desc())
			}
		})
	}
}

func TestDamagedRef(t *testing.T) {
	src := cachetest.NewFakeSource(t, "r/a:1", testManifest)
	c := openCache(t, t.TempDir(), nil)
	s := c.Source(src, nil)
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(c.at(refPath("r/a:1")))
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string]string{
		"empty":        "",
		"cut":          string(good[:len(good)/2]),
		"other name":   strings.Replace(string(good), "r/a:1", "r/b:1", 1),
		"other digest": strings.Replace(string(good), "sha256:", "sha256:../", 1),
	}
	src.Err = remote.ErrUnavailable
	for name, text := range damaged {
		if err := os.WriteFile(c.at(refPath("r/a:1")), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(t.Context()); !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("%s: Resolve() = %v, %v", name, got, err)
		}
	}
}

// Offline, the source is not touched.
func TestOffline(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	online := c.Source(cachetest.NewFakeSource(t, "r/a:1", testManifest), nil)
	desc, err := online.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := online.Fetch(t.Context(), desc); err != nil {
		t.Fatal(err)
	}
	src := cachetest.NewFakeSource(t, "r/a:1", testManifest)
	s := c.Source(src, &SourceOptions{Offline: true})
	if got, err := s.Resolve(t.Context()); err != nil || got.Digest != desc.Digest {
		t.Errorf("Resolve() = %v, %v", got, err)
	}
	if got, err := s.Fetch(t.Context(), desc); err != nil || string(got) != testManifest {
		t.Errorf("Fetch() = %q, %v", got, err)
	}
	if _, err := s.Fetch(t.Context(), ocispec.DescriptorEmptyJSON); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("Fetch() of what is not kept = %v, want ErrUnavailable", err)
	}
	src.Ref = "r/a:2"
	if _, err := s.Resolve(t.Context()); !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), "r/a:2") {
		t.Errorf("Resolve() of what is not kept = %v, want ErrUnavailable", err)
	}
	if src.Resolved+src.Fetched != 0 {
		t.Errorf("source asked %d times", src.Resolved+src.Fetched)
	}
}

// An artifactSource is a fake source with things beside its image.
type artifactSource struct {
	remote.Source
	tags  map[string]ocispec.Descriptor
	list  []ocispec.Descriptor
	err   error
	asked int
}

func (s *artifactSource) ResolveTag(_ context.Context, tag string) (ocispec.Descriptor, error) {
	s.asked++
	desc, ok := s.tags[tag]
	if s.err == nil && !ok {
		return desc, remote.ErrNotFound
	}
	return desc, s.err
}

func (s *artifactSource) Referrers(context.Context, digest.Digest, string) ([]ocispec.Descriptor, error) {
	s.asked++
	return s.list, s.err
}

// What lies beside an image is asked for each time, and offline only what a tag named
// is known.
func TestArtifacts(t *testing.T) {
	dir := t.TempDir()
	fake := cachetest.NewFakeSource(t, "example.com/a:1", testManifest)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("artifact"), Size: 8}
	src := &artifactSource{Source: fake, tags: map[string]ocispec.Descriptor{"imgfs1.x": desc}, list: []ocispec.Descriptor{desc}}
	open := func(src remote.Source, offline bool) remote.ArtifactSource {
		return openCache(t, dir, nil).Source(src, &SourceOptions{Offline: offline}).(remote.ArtifactSource)
	}
	if _, err := open(src, true).ResolveTag(t.Context(), "imgfs1.x"); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("offline, unknown: got error %v, want %v", err, remote.ErrUnavailable)
	}
	for n := 1; n <= 2; n++ {
		if got, err := open(src, false).ResolveTag(t.Context(), "imgfs1.x"); err != nil || got.Digest != desc.Digest || src.asked != n {
			t.Errorf("got %+v and error %v, asked %d times, want %d", got, err, src.asked, n)
		}
	}
	if _, err := open(src, false).ResolveTag(t.Context(), "absent"); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("absent: got error %v, want %v", err, remote.ErrNotFound)
	}
	if list, err := open(src, false).Referrers(t.Context(), desc.Digest, ""); err != nil || len(list) != 1 {
		t.Errorf("got %v and error %v", list, err)
	}
	src.asked, src.err = 0, remote.ErrUnauthorized
	if _, err := open(src, false).ResolveTag(t.Context(), "imgfs1.x"); !errors.Is(err, remote.ErrUnauthorized) {
		t.Errorf("refused: got error %v, want %v", err, remote.ErrUnauthorized)
	}
	if _, err := open(src, false).Referrers(t.Context(), desc.Digest, ""); !errors.Is(err, remote.ErrUnauthorized) {
		t.Errorf("refused: got error %v, want %v", err, remote.ErrUnauthorized)
	}
	src.asked = 0
	if got, err := open(src, true).ResolveTag(t.Context(), "imgfs1.x"); err != nil || got.Digest != desc.Digest {
		t.Errorf("offline: got %+v and error %v", got, err)
	}
	for _, name := range []string{"absent", ""} {
		if _, err := open(src, true).ResolveTag(t.Context(), name); !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("offline, %q: got error %v, want %v", name, err, remote.ErrUnavailable)
		}
	}
	if _, err := open(src, true).Referrers(t.Context(), desc.Digest, ""); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("offline: got error %v, want %v", err, remote.ErrUnavailable)
	}
	if src.asked != 0 {
		t.Errorf("offline: asked %d times", src.asked)
	}
	// A source that knows of nothing else has nothing.
	if _, err := open(fake, false).ResolveTag(t.Context(), "imgfs1.x"); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("without artifacts: got error %v, want %v", err, remote.ErrNotFound)
	}
	if list, err := open(fake, false).Referrers(t.Context(), desc.Digest, ""); err != nil || list != nil {
		t.Errorf("without artifacts: got %v and error %v", list, err)
	}
}

func TestReferences(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := cachetest.NewFakeSource(t, "example.com/a:1", testManifest)
	const name = "example.com/indexes:imgfs1.sha256-12"
	if _, ok := c.Reference(name); ok {
		t.Error("known before it is kept")
	}
	c.KeepReference(name, src.Desc())
	if got, ok := openCache(t, dir, nil).Reference(name); !ok || got.Digest != src.Desc().Digest {
		t.Errorf("got %+v, %t", got, ok)
	}
	c.ForgetReference(name)
	c.ForgetReference(name)
	if _, ok := openCache(t, dir, nil).Reference(name); ok {
		t.Error("known though forgotten")
	}
	c.KeepMissing(name, time.Hour)
	c.KeepMissing("past", -time.Second)
	if !c.IsMissing(name) || c.IsMissing("past") || c.IsMissing("other") || openCache(t, dir, nil).IsMissing(name) {
		t.Error("another is missing than was said")
	}
}
