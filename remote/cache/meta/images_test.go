package meta

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// TestImageNames has names that JSON has no text for.
func TestImageNames(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	want := []string{"oci:/gr\xfcn:v1", "oci:/gr\xfdn:v1", "oci:/gr\ufffdn:v1", "oci:/grün:v1"}
	for _, name := range want {
		c.NoteImage(Image{Name: name, Manifest: digest.FromString("m")})
	}
	images, err := c.Images()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, img := range images {
		got = append(got, img.Name)
	}
	if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("got the names %q, want %q", got, want)
	}
}

func TestImages(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	if images, err := c.Images(); err != nil || len(images) != 0 {
		t.Errorf("Images() = %v, %v of a new cache", images, err)
	}
	layer := ImageLayer{digest.FromString("layer"), 123, digest.FromString("tar")}
	for _, name := range []string{"a", "b", "a"} {
		c.NoteImage(Image{Name: name, Manifest: digest.FromString("m"), Platform: "linux/arm64", Layers: []ImageLayer{layer}})
	}
	c.NoteImage(Image{Name: "a", Manifest: digest.FromString("m"), Platform: "linux/amd64"})
	for name, text := range map[string]string{
		"torn":       `{"name":"x","manifest":`,
		"bad digest": `{"name":"x","manifest":"../../etc/passwd"}`,
		"bad layer":  `{"name":"x","manifest":"` + layer.Digest.String() + `","layers":[{"digest":"sha256:1"}]}`,
		"empty":      "",
	} {
		if err := os.WriteFile(filepath.Join(dir, directory.Images, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	images, err := c.Images()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, img := range images {
		got = append(got, img.Name+" "+img.Platform)
		if time.Since(img.Used) > time.Minute || img.Manifest != digest.FromString("m") {
			t.Errorf("%+v", img)
		}
		if img.Platform == "linux/arm64" && !slices.Equal(img.Layers, []ImageLayer{layer}) {
			t.Errorf("%+v", img)
		}
	}
	slices.Sort(got)
	if want := []string{"a linux/amd64", "a linux/arm64", "b linux/arm64"}; !slices.Equal(got, want) {
		t.Errorf("Images() = %q, want %q", got, want)
	}
	cachetest.CheckTmp(t, dir)
}
