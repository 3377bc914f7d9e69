package remote_test

import (
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// on is a platform, written os/arch[/variant] version +feature...
func on(text string) *ocispec.Platform {
	words := strings.Fields(text)
	parts := strings.Split(words[0]+"//", "/")
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	for _, w := range words[1:] {
		if f, ok := strings.CutPrefix(w, "+"); ok {
			p.OSFeatures = append(p.OSFeatures, f)
		} else {
			p.OSVersion = w
		}
	}
	return p
}

// TestOpenPlatformOptions has versions and features of systems, which --platform
// takes as containerd writes them: nothing of them is dropped.
func TestOpenPlatformOptions(t *testing.T) {
	const (
		old    = "windows/amd64 10.0.17763.7919"
		recent = "windows/amd64 10.0.20348.4405"
		server = "windows/amd64 10.0.17763.7919 +win32k"
		plain  = "linux/amd64"
		nydus  = "linux/amd64 +nydus.remoteimage.v1"
		erofs  = "linux/amd64 +erofs"
		both   = "linux/amd64 +erofs +nydus.remoteimage.v1"
	)
	for _, c := range []struct {
		name    string
		entries []string
		ask     string
		want    string // or "" for ErrPlatform
		says    string
	}{
		{"version", []string{old, recent}, "windows(10.0.20348)/amd64", recent, ""},
		{"whole version", []string{old, recent}, "windows(10.0.20348.4405)/amd64", recent, ""},
		{"first of the versions", []string{old, recent}, "windows/amd64", old, ""},
		{"first of the versions, turned round", []string{recent, old}, "windows/amd64", recent, ""},
		{"version alone", []string{old, recent}, "windows(10.0)/amd64", old, ""},
		{"no such version", []string{old, recent}, "windows(10.0.26100)/amd64", "", "windows(10.0.26100)/amd64; there is windows(10.0.17763.7919)/amd64, windows(10.0.20348.4405)/amd64"},
		{"half a component", []string{old, recent}, "windows(10.0.2034)/amd64", "", ""},
		{"no such revision", []string{old, recent}, "windows(10.0.20348.1)/amd64", "", ""},
		{"version of a system without", []string{plain}, "linux(5.10)/amd64", "", "linux(5.10)/amd64; there is linux/amd64"},
		{"an unknown feature", []string{nydus, plain}, "linux/amd64", plain, ""},
		{"an unknown feature behind", []string{plain, nydus}, "linux/amd64", plain, ""},
		{"an unknown feature alone", []string{nydus}, "linux/amd64", "", "there is linux(+nydus.remoteimage.v1)/amd64"},
		{"a 386 without features", []string{nydus, "linux/386"}, "linux/amd64", "linux/386", ""},
		{"a feature that is asked for", []string{plain, nydus}, "linux(+nydus.remoteimage.v1)/amd64", nydus, ""},
		{"one of several features", []string{plain, both, erofs}, "linux(+erofs)/amd64", erofs, ""},
		{"several features", []string{plain, erofs, nydus, both}, "linux(+nydus.remoteimage.v1+erofs)/amd64", both, ""},
		{"several features, one missing", []string{plain, erofs, nydus}, "linux(+nydus.remoteimage.v1+erofs)/amd64", "", "linux(+erofs+nydus.remoteimage.v1)/amd64; there"},
		{"a feature that nothing has", []string{plain}, "linux(+erofs)/amd64", "", "linux(+erofs)/amd64; there is linux/amd64"},
		{"features have case", []string{erofs}, "linux(+EROFS)/amd64", "", ""},
		{"win32k is known", []string{server, recent}, "windows/amd64", server, ""},
		{"win32k is known on windows alone", []string{"linux/amd64 +win32k", plain}, "linux/amd64", plain, ""},
		{"win32k", []string{recent, server}, "windows(+win32k)/amd64", server, ""},
		{"version and win32k", []string{recent, old, server}, "windows(10.0.17763+win32k)/amd64", server, ""},
		{"version and win32k, not of one", []string{recent, server}, "windows(10.0.20348+win32k)/amd64", "", ""},
		{"escaped", []string{"linux/amd64 +a+b(c)/d%", plain}, "linux(+a%2Bb%28c%29%2Fd%25)/amd64", "linux/amd64 +a+b(c)/d%", ""},
		{"escaped in the error", []string{"linux/amd64 +a+b(c)/d%"}, "linux/amd64", "", "there is linux(+a%2Bb%28c%29%2Fd%25)/amd64"},
		{"arm64/v9 runs arm64", []string{"linux/amd64", "linux/arm64"}, "linux/arm64/v9", "linux/arm64", ""},
		{"arm64/v9 before arm64", []string{"linux/arm64", "linux/arm64/v9"}, "linux/arm64/v9", "linux/arm64/v9", ""},
		{"arm64 does not run v9", []string{"linux/arm64/v9"}, "linux/arm64", "", "there is linux/arm64/v9"},
		{"capitals in the index", []string{"Linux/ARM/V6", "linux/arm/V7"}, "linux/arm/v7", "linux/arm/V7", ""},
		{"capitals asked for", []string{"linux/arm/v6", "linux/arm/v7"}, "Linux/ARM/V6", "linux/arm/v6", ""},
		{"x86_64 in the index", []string{"linux/aarch64", "linux/x86_64"}, "linux/amd64", "linux/x86_64", ""},
		{"armhf", []string{"linux/arm/v6", "linux/arm/v7"}, "linux/armhf", "linux/arm/v7", ""},
		{"armel", []string{"linux/arm/v7", "linux/arm/v6"}, "armel", "linux/arm/v6", ""},
		{"i386", []string{"linux/amd64", "linux/386"}, "linux/i386", "linux/386", ""},
		{"macos", []string{"linux/arm64", "darwin/arm64"}, "macos/arm64", "darwin/arm64", ""},
		{"unknown/unknown", []string{"unknown/unknown", plain}, "unknown/unknown", "", "there is linux/amd64"},
		{"Unknown/Unknown", []string{"Unknown/Unknown", plain}, "linux/amd64", plain, ""},
		{"nonsense", []string{plain}, "linux(+)/amd64", "", `"linux(+)/amd64" is not one such as`},
		{"bad escape", []string{plain}, "linux(+%zz)/amd64", "", `is not one such as`},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := sourcetest.NewStore()
			var entries []ocispec.Descriptor
			for _, text := range c.entries {
				desc := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: []byte(text)}}})
				desc.Platform = on(text)
				entries = append(entries, desc)
			}
			img, err := remote.Open(t.Context(), store.Source("test", store.AddIndex(entries...)), c.ask)
			if c.want == "" {
				if !errors.Is(err, remote.ErrPlatform) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got error %v, want %v that says %q", err, remote.ErrPlatform, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range entries {
				if e.Digest == img.Descriptor.Digest && c.entries[i] != c.want {
					t.Errorf("got %s, want %s", c.entries[i], c.want)
				}
			}
		})
	}
}

// TestOpenVersionOfConfig: an entry that states no version has that of its config.
func TestOpenVersionOfConfig(t *testing.T) {
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for _, p := range []string{"windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", "windows/amd64", "windows(10.0.20348.1)/arm64"} {
		desc := store.AddImage(oneLayer(p))
		desc.Platform.OSVersion = ""
		entries = append(entries, desc)
	}
	for ask, want := range map[string]int{"windows(10.0.20348)/amd64": 1, "windows(10.0.17763.1)/amd64": 0, "windows/amd64": 0, "windows(10.0.26100)/amd64": -1, "windows(10.0.17763)/arm64": -1} {
		for _, top := range []ocispec.Descriptor{store.AddIndex(entries...), store.AddIndex(store.AddIndex(entries...))} {
			img, err := remote.Open(t.Context(), store.Source("test", top), ask)
			switch {
			case want < 0 && !errors.Is(err, remote.ErrPlatform):
				t.Errorf("%s: got error %v, want %v", ask, err, remote.ErrPlatform)
			case want >= 0 && err != nil:
				t.Errorf("%s: %v", ask, err)
			case want >= 0 && img.Descriptor.Digest != entries[want].Digest:
				t.Errorf("%s: got %s, want entry %d", ask, img.Descriptor.Digest, want)
			}
		}
	}
	single := store.Source("test", entries[1])
	if _, err := remote.Open(t.Context(), single, "windows(10.0.20348)/amd64"); err != nil {
		t.Error(err)
	}
	if _, err := remote.Open(t.Context(), single, "windows(10.0.17763)/amd64"); !errors.Is(err, remote.ErrPlatform) || !strings.Contains(err.Error(), "there is windows(10.0.20348.1)/amd64") {
		t.Errorf("got error %v, want %v", err, remote.ErrPlatform)
	}
}

// TestOpenOddEntries has entries of image indexes that say too little.
func TestOpenOddEntries(t *testing.T) {
	store := sourcetest.NewStore()
	wanted := store.AddImage(oneLayer("linux/arm64"))
	other := store.AddImage(oneLayer("linux/s390x"))
	stating := func(desc ocispec.Descriptor, p ocispec.Platform) ocispec.Descriptor {
		desc.Platform = &p
		return desc
	}
	typed := func(desc ocispec.Descriptor, mediaType string) ocispec.Descriptor {
		desc.MediaType = mediaType
		return desc
	}
	artifact := stating(store.AddImage(oneLayer("linux/riscv64")), *wanted.Platform)
	artifact.ArtifactType = "application/vnd.amazon.soci.index.v2+json"
	for _, c := range []struct {
		name string
		top  ocispec.Descriptor
	}{
		{"an empty platform", store.AddIndex(other, stating(wanted, ocispec.Platform{}))},
		{"no system", store.AddIndex(other, stating(wanted, ocispec.Platform{Architecture: "arm64"}))},
		{"no architecture", store.AddIndex(other, stating(wanted, ocispec.Platform{OS: "linux"}))},
		{"no media type", store.AddIndex(other, typed(wanted, ""))},
		{"an index without a media type", store.AddIndex(other, typed(without(store.AddIndex(wanted)), ""))},
		{"an index without a media type, for the platform", store.AddIndex(other, stating(typed(store.AddIndex(wanted), "application/json"), *wanted.Platform))},
		{"parameters", store.AddIndex(other, typed(store.AddIndex(wanted), ocispec.MediaTypeImageIndex+"; charset=utf-8"))},
		{"an artifact for the same platform", store.AddIndex(artifact, wanted)},
	} {
		img, err := remote.Open(t.Context(), store.Source("test", c.top), "linux/arm64")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if img.Descriptor.Digest != wanted.Digest {
			t.Errorf("%s: got manifest %s, want %s", c.name, img.Descriptor.Digest, wanted.Digest)
		}
	}
}

// TestOpenUnsaid: of entries for which nothing states a platform the first is taken if
// no other fits, as skopeo does, and if a platform is asked for if there is no other.
func TestOpenUnsaid(t *testing.T) {
	store := sourcetest.NewStore()
	unsaid := func(content string, config map[string]any) ocispec.Descriptor {
		return without(store.AddImage(sourcetest.Image{Config: config, Layers: []sourcetest.Layer{{Content: []byte(content)}}}))
	}
	nothing := map[string]any{"os": "", "architecture": ""}
	one, two := unsaid("one", nothing), unsaid("two", nothing)
	half, unknown := unsaid("half", map[string]any{"os": "linux", "architecture": ""}), unsaid("unknown", map[string]any{"os": "unknown", "architecture": "unknown"})
	fits, other := store.AddImage(oneLayer("linux/amd64")), store.AddImage(oneLayer("linux/s390x"))
	host, err := remote.Open(t.Context(), store.Source("test", store.AddIndex(fits, other)), "")
	if err != nil {
		t.Skip("this machine is for neither")
	}
	artifact := store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: store.Put("application/vnd.example+json", []byte("{}"))})
	signature := without(store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Config: store.PutJSON(ocispec.MediaTypeImageConfig, nothing),
		Layers: []ocispec.Descriptor{store.Put("application/vnd.dev.cosign.simplesigning.v1+json", []byte("{}"))},
	}))
	for _, c := range []struct {
		name, ask string
		top       ocispec.Descriptor
		want      ocispec.Descriptor // none is ErrPlatform
	}{
		{"alone", "", store.AddIndex(one), one},
		{"alone, asked", "linux/arm64", store.AddIndex(one), one},
		{"the first", "", store.AddIndex(one, two), one},
		{"the first, asked", "linux/arm64", store.AddIndex(two, one), two},
		{"nested", "", store.AddIndex(store.AddIndex(one)), one},
		{"beside what fits", "", store.AddIndex(one, fits, other), host.Descriptor},
		{"beside what fits by its config", "", store.AddIndex(one, without(fits), without(other)), host.Descriptor},
		{"beside what does not fit", "", store.AddIndex(store.AddImage(oneLayer("plan9/mips")), one), one},
		{"beside what does not fit, asked", "linux/arm64", store.AddIndex(other, one), ocispec.Descriptor{}},
		{"beside what does not fit by its config, asked", "linux/arm64", store.AddIndex(one, without(other)), ocispec.Descriptor{}},
		{"a system alone", "linux/arm64", store.AddIndex(half), ocispec.Descriptor{}},
		{"an unknown one", "", store.AddIndex(unknown), ocispec.Descriptor{}},
		{"an artifact", "", store.AddIndex(without(artifact)), ocispec.Descriptor{}},
		{"a signature", "", store.AddIndex(signature), ocispec.Descriptor{}},
		{"behind a signature", "", store.AddIndex(signature, one), one},
	} {
		img, err := remote.Open(t.Context(), store.Source("test", c.top), c.ask)
		switch {
		case c.want.Digest == "" && !errors.Is(err, remote.ErrPlatform):
			t.Errorf("%s: got error %v, want %v", c.name, err, remote.ErrPlatform)
		case c.want.Digest != "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case err == nil && img.Descriptor.Digest != c.want.Digest:
			t.Errorf("%s: got manifest %s, want %s", c.name, img.Descriptor.Digest, c.want.Digest)
		}
	}
}

// TestPlatformErrorOfNothing says what there is in place of images.
func TestPlatformErrorOfNothing(t *testing.T) {
	store := sourcetest.NewStore()
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: sum, Size: 1}
	cache := ocispec.Descriptor{MediaType: "application/vnd.buildkit.cacheconfig.v0", Digest: sum, Size: 1}
	for says, top := range map[string]ocispec.Descriptor{
		"the image index is empty":                         store.AddIndex(),
		"the image index lists a build cache":              store.AddIndex(layer, cache),
		"the image index lists a " + `"` + layer.MediaType: store.AddIndex(layer),
		"the image index lists an attestation":             store.AddIndex(attestation(store)),
	} {
		_, err := remote.Open(t.Context(), store.Source("test", top), "linux/amd64")
		var refused *remote.PlatformError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), says) || len(refused.There) > 0 {
			t.Errorf("got error %v, want one that says %q", err, says)
		}
	}
}
