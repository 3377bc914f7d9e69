//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/sourcetest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestImageOfNothing: an image without layers is an empty directory for every
// command.
func TestImageOfNothing(t *testing.T) {
	alone(t)
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for name, rootfs := range map[string]any{"list": map[string]any{"type": "layers", "diff_ids": []string{}}, "null-list": map[string]any{"diff_ids": nil}, "object": map[string]any{}, "null": nil} {
		img := store.AddImage(sourcetest.Image{Config: map[string]any{"rootfs": rootfs}})
		manifest, _ := store.Get(img.Digest)
		for i, layers := range []string{`,"layers":[]`, `,"layers":null`, ``} {
			content := strings.Replace(string(manifest), `,"layers":[]`, layers, 1)
			entries = append(entries, sourcetest.Tagged(store.Put(img.MediaType, []byte(content)), name+"-"+string(rune('0'+i))))
		}
	}
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		layout := filepath.Join(s.dir, "layout")
		if err := store.WriteLayout(layout, entries...); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			image := "oci:" + layout + ":" + e.Annotations[ocispec.AnnotationRefName]
			if r := s.ok("ls", "-A", image); r.stdout != "" {
				t.Errorf("%s: ls has %q", image, r.stdout)
			}
			if r := s.ok("inspect", image); !strings.Contains(r.stdout, `"Layers": [],`) || !strings.Contains(r.stdout, `"LayersData": [],`) {
				t.Errorf("%s: inspect has %q", image, r.stdout)
			}
			s.ok("index", "--fetch", image)
			s.fails(1, []string{"x: no such file or directory"}, "cat", image, "x")
		}
		s.ok("cache", "ls")
		s.ok("cache", "verify")
		dir := s.mount("oci:"+layout+":list-0", "--prefetch")
		if r := s.finish(s.program("ls", "-A", dir)); r.code != 0 || r.stdout != "" {
			t.Errorf("ls: exit code %d, %q", r.code, r.stdout)
		}
		s.ok("stats", dir)
		s.umount(dir)
	})
}
