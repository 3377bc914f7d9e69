package image_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A layer whose digest or diff_id is not of sha256 is refused by the same words
// whatever the cache has, and what the image says of it can be printed.
func TestOtherAlgorithms(t *testing.T) {
	good := gzipLayer(t, "a", "1")
	for _, algorithm := range []string{"sha384", "sha512", "blake3"} {
		other := digest.Digest(algorithm + ":" + strings.Repeat("0", 64))
		if known := digest.Algorithm(algorithm); known.Available() {
			other = known.FromString("a")
		}
		t.Run("diff_id "+algorithm, func(t *testing.T) {
			wrong := good
			wrong.DiffID = other
			sameError(t, good, sourcetest.Image{Layers: []sourcetest.Layer{wrong}}, string(other))
		})
		t.Run("digest "+algorithm, func(t *testing.T) {
			sameError(t, good, sourcetest.Image{Layers: []sourcetest.Layer{good}}, "its digest is none of sha256", other)
		})
	}
}

// sameError opens img with an empty cache, and with one that has the layer good.
// digests, if there are any, take the place of that of the layer in the manifest.
func sameError(t *testing.T, good sourcetest.Layer, img sourcetest.Image, text string, digests ...digest.Digest) {
	o := newOpened(t, good)
	right := o.src
	top := o.store.AddImage(img)
	for _, d := range digests {
		manifest, _ := o.store.Get(top.Digest)
		was := digest.FromBytes(good.Content).String()
		top = o.store.Put(top.MediaType, []byte(strings.ReplaceAll(string(manifest), was, d.String())))
	}
	wrong := &countedSource{Source: o.store.Source("test", top)}
	var said []string
	for _, src := range []*countedSource{wrong, right, wrong} {
		o.src = src
		_, err := o.open(t.Context(), nil)
		if src == right {
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), text) {
			t.Fatalf("got error %v, want one with %q", err, text)
		}
		said = append(said, err.Error())
	}
	if said[0] != said[1] {
		t.Errorf("with an empty cache %q, later %q", said[0], said[1])
	}
	if n := wrong.read.Load(); n != 0 {
		t.Errorf("%d bytes of a layer that is refused were read", n)
	}
	if img, err := remote.Open(t.Context(), wrong, ""); err != nil || len(remote.Inspect(img).Layers) != 1 {
		t.Errorf("it cannot be inspected: %v", err)
	}
}
