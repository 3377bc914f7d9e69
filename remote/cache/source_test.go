package cache

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
)

const testManifest = `{"schemaVersion":2,"config":{},"layers":[]}`

func TestFetchKeeps(t *testing.T) {
	dir := t.TempDir()
	src := newFakeSource(t, "example.com/a:1", testManifest)
	path := filepath.Join(dir, metaDir, "sha256", src.desc().Digest.Encoded())
	fetch := func(want int) {
		t.Helper()
		got, err := openCacheM(t, dir, nil).Source(src, nil).Fetch(t.Context(), src.desc())
		if err != nil || string(got) != testManifest {
			t.Fatalf("Fetch() = %q, %v", got, err)
		}
		if src.fetched != want {
			t.Errorf("source asked %d times, want %d", src.fetched, want)
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
	checkTmp(t, dir)
}

func TestFetchRefuses(t *testing.T) {
	good := newFakeSource(t, "example.com/a:1", testManifest)
	short := good.desc()
	short.Size--
	tests := []struct {
		name  string
		desc  ocispec.Descriptor
		wrong string
		want  error
	}{
		{"wrong bytes", good.desc(), "X" + testManifest[1:], remote.ErrDigest},
		{"wrong size", good.desc(), testManifest + "\n", remote.ErrDigest},
		{"wrong descriptor", short, "", remote.ErrDigest},
		{"path as digest", ocispec.Descriptor{Digest: "sha256:../../x"}, "", digest.ErrDigestInvalidLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			src := newFakeSource(t, good.name, testManifest)
			src.wrong = tt.wrong
			s := openCacheM(t, dir, nil).Source(src, nil)
			if _, err := s.Fetch(t.Context(), tt.desc); !errors.Is(err, tt.want) {
				t.Errorf("Fetch() = %v, want %v", err, tt.want)
			}
			kept, err := os.ReadDir(filepath.Join(dir, metaDir, "sha256"))
			if err != nil || len(kept) != 0 {
				t.Errorf("kept %v, %v", kept, err)
			}
		})
	}

	// A wrong descriptor does no harm to what is kept.
	c := openCacheM(t, t.TempDir(), nil)
	s := c.Source(good, nil)
	for _, desc := range []ocispec.Descriptor{good.desc(), short, good.desc()} {
		_, err := s.Fetch(t.Context(), desc)
		if (err != nil) != (desc.Size != good.desc().Size) {
			t.Errorf("Fetch(size %d) = %v", desc.Size, err)
		}
	}
	if good.fetched != 2 {
		t.Errorf("source asked %d times, want 2", good.fetched)
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
			var w warnings
			src := newFakeSource(t, name, testManifest)
			s := openCacheM(t, dir, nil).Source(src, &SourceOptions{Warnf: w.warnf})
			src.err = tt.err
			if _, err := s.Resolve(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("Resolve() of what is not known = %v, want %v", err, tt.err)
			}
			src.err = nil
			if got, err := s.Resolve(t.Context()); err != nil || got.Digest != src.desc().Digest {
				t.Fatalf("Resolve() = %v, %v", got, err)
			}
			if len(w.all) != 0 {
				t.Errorf("warned of nothing: %q", w.all)
			}

			src.err = tt.err
			s = openCacheM(t, dir, nil).Source(src, &SourceOptions{Warnf: w.warnf})
			got, err := s.Resolve(t.Context())
			if !errors.Is(err, tt.want) {
				t.Fatalf("Resolve() = %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				if got.Digest != src.desc().Digest || got.MediaType != src.desc().MediaType || got.Size != src.desc().Size {
					t.Errorf("Resolve() = %v, want %v", got, src.desc())
				}
				w.check(t, "the tag could not be checked, using the image as last seen on "+time.Now().Format("2006-01-02"))
			}
			if src.resolved != 3 {
				t.Errorf("source asked %d times, want 3", src.resolved)
			}
		})
	}
}

func TestResolveCancelled(t *testing.T) {
	src := newFakeSource(t, "a/b:1", testManifest)
	s := openCacheM(t, t.TempDir(), nil).Source(src, &SourceOptions{Warnf: t.Errorf})
	if _, err := s.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src.err = fmt.Errorf("%w: %w", remote.ErrUnavailable, ctx.Err())
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
			c := openCacheM(t, t.TempDir(), nil)
			src := newFakeSource(t, "", tt.content)
			d := src.desc().Digest.String()
			src.name = strings.ReplaceAll(tt.known, "DIGEST", d)
			s := c.Source(src, nil)
			if tt.known != "" {
				if _, err := s.Resolve(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if tt.fetched {
				if _, err := s.Fetch(t.Context(), src.desc()); err != nil {
					t.Fatal(err)
				}
			}
			src.name = strings.ReplaceAll(tt.ask, "DIGEST", d)
			src.resolved = 0
			got, err := c.Source(src, &tt.opts).Resolve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if asked := src.resolved > 0; asked != (tt.want == "") {
				t.Errorf("source asked: %v", asked)
			}
			if tt.want != "" && (got.MediaType != tt.want || got.Digest != src.desc().Digest || got.Size != src.desc().Size) {
				t.Errorf("Resolve() = %+v, want media type %s of %+v", got, tt.want, src.desc())
			}
		})
	}
}

func TestDamagedRef(t *testing.T) {
	src := newFakeSource(t, "r/a:1", testManifest)
	c := openCacheM(t, t.TempDir(), nil)
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
	src.err = remote.ErrUnavailable
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
	c := openCacheM(t, t.TempDir(), nil)
	online := c.Source(newFakeSource(t, "r/a:1", testManifest), nil)
	desc, err := online.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := online.Fetch(t.Context(), desc); err != nil {
		t.Fatal(err)
	}
	src := newFakeSource(t, "r/a:1", testManifest)
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
	src.name = "r/a:2"
	if _, err := s.Resolve(t.Context()); !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), "r/a:2") {
		t.Errorf("Resolve() of what is not kept = %v, want ErrUnavailable", err)
	}
	if src.resolved+src.fetched != 0 {
		t.Errorf("source asked %d times", src.resolved+src.fetched)
	}
}
