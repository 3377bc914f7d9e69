package ocilayout_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestNamesLikeSkopeo asks the skopeo that is installed for the same images
// by the same names.
func TestNamesLikeSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	store := sourcetest.NewStore()
	var entries []ocispec.Descriptor
	for _, tag := range []string{"v1", "docker.io/library/x:v2", "a:b", "latest"} {
		entries = append(entries, sourcetest.Tagged(store.AddImage(image(tag)), tag))
	}
	dir := layoutOf(t, store, entries...)
	archive := archiveOf(t, dir)
	for _, name := range []string{
		"oci:" + dir + ":v1", "oci:" + dir + ":docker.io/library/x:v2", "oci:" + dir + ":a:b", "oci:" + dir + "/:latest", "oci:" + dir + ":v3", "oci:" + dir,
		"oci-archive:" + archive + ":v1", "oci-archive:" + archive + ":a:b", "oci-archive:" + archive,
	} {
		var want string
		if out, err := exec.Command(skopeo, "inspect", name).Output(); err == nil {
			var in struct{ Digest string }
			if err := json.Unmarshal(out, &in); err != nil {
				t.Fatalf("skopeo inspect %s: %v", name, err)
			}
			want = in.Digest
		}
		var got string
		src, err := openLocation(t, name)
		if err == nil {
			var img *remote.Image
			if img, err = remote.Open(t.Context(), src, ""); err == nil {
				got = img.Top.Digest.String()
			}
		}
		if got != want {
			t.Errorf("%s: got %q (error %v), skopeo has %q", name, got, err, want)
		}
	}
}

func openLocation(t *testing.T, name string) (remote.Source, error) {
	t.Helper()
	l, err := remote.ParseLocation(name)
	if err != nil {
		return nil, err
	}
	var src *ocilayout.Source
	if l.Transport == remote.TransportOCIArchive {
		src, err = ocilayout.OpenArchive(t.Context(), l.Path, l.Image, nil)
	} else {
		src, err = ocilayout.Open(l.Path, l.Image)
	}
	return closing(t, src, err)
}

// TestCorpus opens layouts that others made, some of them bad on purpose.
func TestCorpus(t *testing.T) {
	for _, c := range []struct {
		dir, image, platform string
		want                 error
	}{
		{"grootfs/oci-test-image/alpine", "", "", nil},
		{"grootfs/oci-test-image/garden-rootfs", "", "", nil},
		{"grootfs/oci-test-image/garden-busybox", "latest", "", nil},
		{"grootfs/oci-test-image/empty", "v0.1.1", "", nil},
		{"grootfs/oci-test-image/empty", "latest", "", remote.ErrNotFound},
		{"grootfs/oci-test-image/zip-bomb", "", "", nil},
		// It has no oci-layout.
		{"grootfs/oci-test-image/tar-layer", "", "", nil},
		// A layer is absent, which only its reader sees.
		{"grootfs/oci-test-image/noparents", "", "", nil},
		{"grootfs/oci-test-image/invalid-config", "", "", remote.ErrNotFound},
		{"grootfs/oci-test-image/corrupted", "", "", remote.ErrDigest},
		{"grootfs/oci-test-image/also-corrupted", "", "", remote.ErrDigest},
		{"grootfs/oci-test-image/invalid-manifest-size-less-than-physical-size", "", "", remote.ErrDigest},
		{"grootfs/oci-test-image/invalid-manifest-size-more-than-physical-size", "", "", remote.ErrDigest},
		{"grootfs/oci-test-image/4mb-image", "", "", remote.ErrDigest},
		{"oci-tools/many-layers", "", "", nil},
		{"oci-tools/hello-world-docker-v2-manifest", "", "", nil},
		{"oci-tools/hello-world-docker-v2-manifest", "", "linux/arm64", nil},
		{"oci-tools/hello-world-docker-v2-manifest", "", "linux/s390x", remote.ErrPlatform},
		{"oci-tools/hello-world-docker-v2-manifest-list", "", "linux/amd64", nil},
		{"oci-tools/hello-world-docker-v2-manifest-list", "", "linux/sparc64", remote.ErrPlatform},
		{"oci-tools/hello-world-cosign-manifest", "", "", nil},
		{"oci-tools/hello-world-cosign-manifest", "@0", "", nil},
		{"oci-tools/hello-world-cosign-manifest", "@2", "", remote.ErrUnsupported},
		{"oci-tools/hello-world-cosign-manifest-list", "@sha256:00e1ee7c898a2c393ea2fe7680938f8dcbe55e51fbf08032cf37326a677f92ed", "linux/amd64", nil},
		// A squashfs layer.
		{"oci-tools/overlayfs-docker-v2-manifest", "", "", remote.ErrUnsupported},
		{"oci-tools/aufs-docker-v2-manifest", "", "", remote.ErrDigest},
		{"oci-tools/root-dir-entry", "", "", nil},
	} {
		t.Run(c.dir+":"+c.image, func(t *testing.T) {
			src, err := ocilayout.Open(testenv.Image(t, c.dir), c.image)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			img, err := remote.Open(t.Context(), src, c.platform)
			if !errors.Is(err, c.want) || c.want != nil && err == nil {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err == nil && len(img.Layers) == 0 {
				t.Error("got no layers")
			}
		})
	}
}

// TestArchiveOfOtherTypes: a blob that is in an archive, and is no file, is named as what
// it is.
func TestArchiveOfOtherTypes(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: []byte("layer")}}})
	dir := layoutOf(t, store, top)
	layer := filepath.Join(dir, "blobs", "sha256", digest.FromString("layer").Encoded())
	if err := errors.Join(os.Remove(layer), os.Mkdir(layer, 0o755)); err != nil {
		t.Fatal(err)
	}
	src, err := ocilayout.OpenArchive(t.Context(), archiveOf(t, dir), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	img, err := remote.Open(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.Layers[0].ReadAt(t.Context(), make([]byte, 5), 0); !errors.Is(err, remote.ErrNotFound) || !strings.Contains(err.Error(), "is a directory in the archive, not a file") {
		t.Errorf("got error %v", err)
	}
}
