package dockerarchive_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// compareWithSkopeo checks that name has for skopeo the manifest and the
// digest that img has.
func compareWithSkopeo(t *testing.T, name string, img *remote.Image) {
	t.Helper()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	raw, err := exec.Command(skopeo, "inspect", "--raw", name).Output()
	if err != nil {
		t.Fatalf("skopeo inspect --raw %s: %v", name, err)
	}
	if !bytes.Equal(raw, img.Raw) {
		t.Errorf("manifest of %s: got %s, skopeo has %s", name, img.Raw, raw)
	}
	out, err := exec.Command(skopeo, "--override-os", img.Platform.OS, "--override-arch", img.Platform.Architecture, "inspect", name).Output()
	if err != nil {
		t.Fatalf("skopeo inspect %s: %v", name, err)
	}
	var want, got struct {
		Name, Created string
		Digest        digest.Digest
		Env           []string
		Labels        map[string]string
	}
	mine, err := json.Marshal(remote.Inspect(img))
	if err == nil {
		err = errors.Join(json.Unmarshal(mine, &got), json.Unmarshal(out, &want))
	}
	if err != nil {
		t.Fatal(err)
	}
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !bytes.Equal(g, w) {
		t.Errorf("%s: got %s, skopeo has %s", name, g, w)
	}
}

func TestLikeSkopeo(t *testing.T) {
	one, two := layerTar(t, "one"), layerTar(t, "two")
	d1, d2 := digest.FromString(one), digest.FromString(two)
	file := archiveOf(t,
		entry{name: "1.tar", content: one}, entry{name: "2.tar.gz", content: zipped(t, two)}, entry{name: "3.tar", target: "1.tar"},
		entry{name: "a.json", content: configOf(d1, d2, d1)}, entry{name: "b.json", content: configOf(d2)},
		entry{name: "manifest.json", content: `[{"Config":"a.json","RepoTags":["x:1"],"Layers":["1.tar","2.tar.gz","3.tar"]},{"Config":"b.json","RepoTags":["quay.io/y/z:2"],"Layers":["2.tar.gz"]}]`})
	for _, ref := range []string{"x:1", "docker.io/library/x:1", "quay.io/y/z:2", "@1"} {
		src, err := open(t, file, ref)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Open(t.Context(), src, "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		compareWithSkopeo(t, "docker-archive:"+file+":"+ref, img)
	}
}

// TestSkopeoCopy opens an archive that skopeo makes.
func TestSkopeoCopy(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	store := sourcetest.NewStore()
	layer := layerTar(t, "x")
	top := store.AddImage(sourcetest.Image{Platform: "linux/amd64", Layers: []sourcetest.Layer{{Content: []byte(layer)}}})
	dir := t.TempDir()
	if err := store.WriteLayout(dir, top); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	name := "docker-archive:" + file + ":test:v1"
	if out, err := exec.Command(skopeo, "--override-os", "linux", "--override-arch", "amd64", "--insecure-policy", "copy", "oci:"+dir, name).CombinedOutput(); err != nil {
		t.Fatalf("skopeo copy: %v: %s", err, out)
	}
	src, err := open(t, file, "test:v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, img.Layers[0]); got != layer {
		t.Errorf("got a layer of %d bytes, want the %d that were copied", len(got), len(layer))
	}
	compareWithSkopeo(t, name, img)
}

// TestCorpus opens archives that others made.
func TestCorpus(t *testing.T) {
	for _, c := range []struct {
		file, ref string
		layers    int
		want      error
		// packed: the skopeo that was tried does not unpack the archive.
		packed bool
	}{
		{"jib/busybox-docker.tar", "", 1, nil, false},
		{"jib/busybox-docker.tar", "busybox", 1, nil, false},
		// Lower-case keys and gzip.
		{"jib/busybox-jib.tar", "", 2, nil, false},
		{"jib/busybox-jib.tar", "localhost:5000/jib-core:jib-base-image", 2, nil, false},
		{"jib/extraction/docker-save.tar", "", 2, nil, false},
		{"jib/extraction/jib-image.tar", "", 2, nil, false},
		{"jib/extraction/not-compressed.tar", "", 0, remote.ErrUnsupported, false},
		{"fanal/alpine-310.tar.gz", "alpine:3.10", 1, nil, true},
		{"fanal/image3_gz_layers.tar", "test", 4, nil, false},
		{"fanal/opq.tar", "", 0, remote.ErrUnsupported, false},
	} {
		t.Run(c.file+":"+c.ref, func(t *testing.T) {
			file := testenv.Image(t, c.file)
			src, err := open(t, file, c.ref)
			if !errors.Is(err, c.want) || c.want != nil && err == nil {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			img, err := remote.Open(t.Context(), src, "linux/amd64")
			if err != nil {
				t.Fatal(err)
			}
			if len(img.Layers) != c.layers {
				t.Errorf("got %d layers, want %d", len(img.Layers), c.layers)
			}
			for _, l := range img.Layers {
				if got := digest.FromString(content(t, l)); got != l.Digest() {
					t.Errorf("a blob of digest %s reads as one of %s", l.Digest(), got)
				}
			}
			if !c.packed {
				name := "docker-archive:" + file
				if c.ref != "" {
					name += ":" + c.ref
				}
				compareWithSkopeo(t, name, img)
			}
		})
	}
}

// TestLeavesNothing looks for temporary files after errors.
func TestLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, content := range []string{zipped(t, string(tarOf(t))), zipped(t, "garbage"), zstded(t, "garbage")} {
		if _, err := open(t, write(t, []byte(content)), ""); err == nil {
			t.Error("no error")
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left %v, error %v", left, err)
	}
}
