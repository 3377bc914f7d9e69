package dockerarchive_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
)

// TestSeveralImages has archives in which a name, or none, means several images.
func TestSeveralImages(t *testing.T) {
	// image is the platform that the config states, the tags, and whose content it has.
	type image struct{ platform, tags, content string }
	amd := func(tags, content string) image {
		return image{`"os":"linux","architecture":"amd64"`, tags, content}
	}
	arm := func(tags, content string) image {
		return image{`"os":"linux","architecture":"arm64"`, tags, content}
	}
	untold := func(tags, content string) image { return image{`"x":1`, tags, content} }
	for _, c := range []struct {
		name     string
		images   []image
		ref      string
		platform string
		want     string // content, or "" for an error
		err      error
		named    []string
	}{
		{"two platforms of a tag", []image{amd(`["a:1"]`, "amd"), arm(`["a:1"]`, "arm")}, "a:1", "linux/arm64", "arm", nil, nil},
		{"two platforms without a name", []image{amd(`["a:1"]`, "amd"), arm(`["a:1"]`, "arm")}, "", "linux/arm64", "arm", nil, nil},
		{"none of two platforms", []image{amd(`["a:1"]`, "amd"), arm(`["a:1"]`, "arm")}, "a:1", "linux/s390x", "", remote.ErrPlatform, nil},
		{"two images of a tag", []image{amd(`["a:1"]`, "one"), amd(`["a:1"]`, "two")}, "a:1", "linux/amd64", "", remote.ErrReference, []string{"@0", "@1"}},
		{"two images of a tag, written in two ways", []image{amd(`["a:1"]`, "one"), amd(`["docker.io/library/a:1","b:1"]`, "two")}, "a:1", "linux/amd64", "", remote.ErrReference, []string{"@0", "b:1"}},
		{"one image twice", []image{amd(`["a:1"]`, "one"), amd(`["a:1"]`, "one")}, "a:1", "", "one", nil, nil},
		{"one image of two names", []image{amd(`["a:1"]`, "one"), amd(`["b:1"]`, "one")}, "", "", "one", nil, nil},
		{"two names", []image{amd(`["a:1"]`, "one"), amd(`["b:1"]`, "two")}, "", "linux/amd64", "", remote.ErrReference, []string{"a:1", "b:1"}},
		{"no names", []image{amd(`null`, "one"), amd(`[]`, "two"), arm(`null`, "three")}, "", "linux/amd64", "", remote.ErrReference, []string{"@0", "@1"}},
		{"no platforms", []image{untold(`["a:1"]`, "one"), untold(`["b:1"]`, "two")}, "", "", "", remote.ErrReference, []string{"a:1", "b:1"}},
		{"two for another platform", []image{arm(`["a:1"]`, "one"), arm(`["b:1"]`, "two")}, "", "", "", remote.ErrReference, []string{"a:1", "b:1"}},
		{"one for another platform", []image{arm(`["a:1"]`, "one")}, "", "", "one", nil, nil},
		{"a tag alone", []image{amd(`["a:1"]`, "one"), amd(`["b:2"]`, "two")}, "2", "", "two", nil, nil},
		{"a tag alone of two", []image{amd(`["a:1"]`, "one"), amd(`["b:1"]`, "two")}, "1", "linux/amd64", "", remote.ErrReference, []string{"a:1", "b:1"}},
		{"a tag alone of two for two platforms", []image{amd(`["a:1"]`, "one"), arm(`["b:1"]`, "two")}, "1", "linux/amd64", "", remote.ErrReference, []string{"a:1", "b:1"}},
		{"a tag alone of one for two platforms", []image{amd(`["a:1"]`, "one"), arm(`["docker.io/library/a:1"]`, "two")}, "1", "linux/arm64", "two", nil, nil},
		{"a tag alone of two names of one", []image{amd(`["a:1","b:1"]`, "one"), amd(`["b:2"]`, "two")}, "1", "", "one", nil, nil},
		{"the end of a path", []image{amd(`["quay.io/x/a:1"]`, "one"), amd(`["quay.io/x/b:1"]`, "two")}, "b:1", "", "two", nil, nil},
		{"the platform of a name", []image{amd(`["a:1"]`, "one"), amd(`["b:1"]`, "two")}, "b:1", "linux/s390x", "", remote.ErrPlatform, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var entries []entry
			var list []string
			for _, img := range c.images {
				l := layerTar(t, img.content)
				d := digest.FromString(l)
				config := digest.FromString(img.platform+img.content).Encoded() + ".json"
				entries = append(entries, entry{name: img.content + ".tar", content: l},
					entry{name: config, content: fmt.Sprintf(`{%s,"rootfs":{"type":"layers","diff_ids":[%q]}}`, img.platform, d)})
				list = append(list, fmt.Sprintf(`{"Config":%q,"RepoTags":%s,"Layers":[%q]}`, config, img.tags, img.content+".tar"))
			}
			file := archiveOf(t, append(entries, entry{name: "manifest.json", content: "[" + strings.Join(list, ",") + "]"})...)
			open := func(ref string) (*remote.Image, error) {
				src, err := dockerarchive.Open(t.Context(), file, ref, &remote.ArchiveOptions{Platform: c.platform})
				if err != nil {
					return nil, err
				}
				t.Cleanup(func() { src.Close() })
				return remote.Open(t.Context(), src, c.platform)
			}
			img, err := open(c.ref)
			if c.want != "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := content(t, img.Layers[0]); got != layerTar(t, c.want) {
					t.Errorf("got another image than %q", c.want)
				}
				return
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if c.named == nil {
				return
			}
			var ambiguous *remote.AmbiguousError
			if !errors.As(err, &ambiguous) || !slices.Equal(ambiguous.Named, c.named) {
				t.Fatalf("got error %v, want one that names %q", err, c.named)
			}
			for _, name := range c.named {
				if _, err := open(name); err != nil && !errors.Is(err, remote.ErrPlatform) {
					t.Errorf("%s, which the error names: %v", name, err)
				}
			}
		})
	}
}

// TestNoLayers has images of nothing, which are empty directories.
func TestNoLayers(t *testing.T) {
	for _, layers := range []string{`,"Layers":[]`, `,"Layers":null`, ``} {
		for _, rootfs := range []string{`,"rootfs":{"type":"layers","diff_ids":[]}`, `,"rootfs":{"type":"layers","diff_ids":null}`, `,"rootfs":{"type":"layers"}`, `,"rootfs":{}`, `,"rootfs":null`, ``} {
			file := archiveOf(t, entry{name: "c.json", content: `{"os":"linux"` + rootfs + `}`},
				entry{name: "manifest.json", content: `[{"Config":"c.json","RepoTags":["a:1"]` + layers + `}]`})
			src, err := open(t, file, "a:1")
			if err != nil {
				t.Errorf("%s %s: %v", layers, rootfs, err)
				continue
			}
			img, err := remote.Open(t.Context(), src, "")
			if err != nil || len(img.Layers) != 0 {
				t.Errorf("%s %s: got %v and error %v, want no layers", layers, rootfs, img, err)
			}
		}
	}
}
