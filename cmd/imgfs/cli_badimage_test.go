//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A badImage is an image in a registry that imgfs must refuse.
type badImage struct {
	name string
	// build makes the image, or one whose parts are then spoiled.
	build builder
	// fault is what the registry answers to the kind of request.
	kind  registrytest.Kind
	fault registrytest.Fault
	args  []string
	// says are words of the first line, hint one of the second.
	says []string
	hint string
	// keeps says that the layer is what the manifest says, and that it may
	// be kept although it cannot be shown.
	keeps bool
}

// A builder puts an image into a store.
type builder func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor

// oneLayer builds an image of a layer.
func oneLayer(content []byte, edit func(*sourcetest.Image)) builder {
	return func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
		img := sourcetest.Image{Layers: []sourcetest.Layer{{Content: content}}}
		if edit != nil {
			edit(&img)
		}
		return store.AddImage(img)
	}
}

// edited builds an image and then changes its manifest.
func edited(content []byte, old, replacement string) builder {
	return func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
		desc := oneLayer(content, nil)(t, store)
		text, _ := store.Get(desc.Digest)
		re := regexp.MustCompile(old)
		if !re.Match(text) {
			t.Fatalf("%s is not in %s", old, text)
		}
		return store.Put(desc.MediaType, re.ReplaceAll(text, []byte(replacement)))
	}
}

// manifestOf builds what is only a manifest.
func manifestOf(mediaType, content string) builder {
	return func(_ *testing.T, store *sourcetest.Store) ocispec.Descriptor {
		return store.Put(mediaType, []byte(content))
	}
}

// layerOf builds an image of one tar.
func layerOf(headers ...tar.Header) builder {
	return func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
		return oneLayer(tarOf(t, headers...), nil)(t, store)
	}
}

// badAnswers are good images that the registry does not have, or does not give.
func badAnswers(t *testing.T) []badImage {
	good := tarOf(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	plain := oneLayer(good, nil)
	return []badImage{
		{name: "unknown tag", build: plain, args: []string{"IMAGE-other"}, says: []string{"not found"}},
		{name: "unknown digest", build: plain, args: []string{"HOST/app@" + digest.FromString("x").String()}, says: []string{"not found"}},
		{name: "unknown repository", build: plain, args: []string{"HOST/no/such:latest"}, says: []string{"not found"}},
		{name: "no such platform", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			return store.AddIndex(store.AddImage(sourcetest.Image{Platform: "linux/arm/v7", Layers: []sourcetest.Layer{{Content: good}}}),
				store.AddImage(sourcetest.Image{Platform: "linux/s390x", Layers: []sourcetest.Layer{{Content: good}}}))
		}, args: []string{"--platform", "linux/mips64le", "IMAGE"}, says: []string{"linux/mips64le", "there is linux/arm/v7, linux/s390x"}, hint: "--platform"},
		{name: "another platform than the only one", build: oneLayer(good, func(i *sourcetest.Image) { i.Platform = "linux/s390x" }),
			args: []string{"--platform=linux/mips64le", "IMAGE"}, says: []string{"linux/mips64le", "there is linux/s390x"}, hint: "--platform"},
		{name: "not a platform", build: plain, args: []string{"--platform=a/b/c/d", "IMAGE"}, says: []string{`"a/b/c/d"`, "such as linux/arm64"}},
		{name: "manifest that is HTML", build: plain, kind: registrytest.Manifest, fault: registrytest.Page(), says: []string{"the answer is a web page"}},
		{name: "config that is HTML", build: plain, kind: registrytest.Blob, fault: registrytest.Page(), says: []string{"sha256:"}},
		{name: "registry out of order", build: plain, kind: registrytest.Manifest, fault: registrytest.Status(400), says: []string{"400 Bad Request"}},
		{name: "forbidden", build: plain, kind: registrytest.Manifest, fault: registrytest.Status(403), says: []string{"403 Forbidden"}, hint: "login"},
		{name: "forbidden layer", build: plain, kind: registrytest.Blob, fault: func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.HasSuffix(r.URL.Path, digest.FromBytes(good).String()) {
				serve = func(w http.ResponseWriter, r *http.Request) { registrytest.Status(403)(w, r, nil) }
			}
			serve(w, r)
		}, says: []string{"layer " + digest.FromBytes(good).String(), "403 Forbidden"}, hint: "login"},
	}
}

// badLayers are images with a damaged layer.
func badLayers(t *testing.T) []badImage {
	good := tarOf(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	plain := oneLayer(good, nil)
	layer := "layer " + digest.FromBytes(good).String()
	packed := gzipOf(t, append(tarOf(t, tar.Header{Name: "a"}), bytes.Repeat([]byte("x\n"), 1<<16)...))
	badHeader := bytes.Clone(good)
	badHeader[512] ^= 1
	unpacked := func(mediaType string, diffID digest.Digest) func(*sourcetest.Image) {
		return func(i *sourcetest.Image) { i.Layers[0].MediaType, i.Layers[0].DiffID = mediaType, diffID }
	}
	return []badImage{
		{name: "blob digest", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			desc := plain(t, store)
			store.Replace(digest.FromBytes(good), bytes.ReplaceAll(good, []byte("ustar"), []byte("usTar")))
			return desc
		}, says: []string{layer, "not what the manifest says"}, hint: "nothing of it was kept"},
		{name: "blob missing", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			desc := plain(t, store)
			store.Delete(digest.FromBytes(good))
			return desc
		}, says: []string{layer, "not found"}},
		{name: "diff_id", build: oneLayer(good, func(i *sourcetest.Image) { i.Layers[0].DiffID = digest.FromString("x") }),
			says: []string{layer, "config", digest.FromString("x").String()}, hint: "nothing of it was kept"},
		{name: "truncated gzip", build: oneLayer(packed[:len(packed)-20], unpacked(ocispec.MediaTypeImageLayerGzip, digest.FromBytes(good))),
			says: []string{"layer " + digest.FromBytes(packed[:len(packed)-20]).String(), "ends too early"}},
		{name: "gzip that is none", build: oneLayer(append([]byte{0x1f, 0x8b}, good...), unpacked(ocispec.MediaTypeImageLayerGzip, digest.FromBytes(good))), says: []string{"layer sha256:", "gzip"}},
		{name: "bad tar header", build: oneLayer(badHeader, nil), says: []string{"layer " + digest.FromBytes(badHeader).String(), "512", "checksum"}},
		{name: "tar that ends in an entry", build: oneLayer(good[:700], nil), says: []string{"layer " + digest.FromBytes(good[:700]).String(), "tar"}},
		{name: "xz", build: oneLayer([]byte("\xfd7zXZ\x00garbage"), nil), says: []string{"layer sha256:", "xz"}},
		{name: "text as a layer", build: oneLayer([]byte(strings.Repeat("no tar\n", 200)), nil), says: []string{"layer sha256:", "tar"}},
		{name: "long name", build: layerOf(tar.Header{Name: strings.Repeat("n", 256)}), says: []string{"over 255 bytes"}},
	}
}

// badManifests are images that cannot be mounted by what manifest and config say.
func badManifests(t *testing.T) []badImage {
	good := tarOf(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	plain := oneLayer(good, nil)
	layer := "layer " + digest.FromBytes(good).String()
	const layerType = `"application/vnd.oci.image.layer.v1.tar"`
	diffIDs := func(d ...digest.Digest) func(*sourcetest.Image) {
		return func(i *sourcetest.Image) {
			i.Config = map[string]any{"rootfs": map[string]any{"type": "layers", "diff_ids": d}}
		}
	}
	return []badImage{
		{name: "wrong media type of the manifest", build: manifestOf("application/vnd.example+json", `{"mediaType":"application/vnd.example+json"}`), says: []string{"application/vnd.example+json"}},
		{name: "wrong media type of a layer", build: edited(good, layerType, `"text/plain"`), says: []string{layer, "text/plain"}},
		{name: "artifact", build: edited(good, `"application/vnd.oci.image.config.v1\+json"`, `"application/vnd.cncf.helm.config.v1+json"`), says: []string{"Helm chart"}},
		{name: "artifact manifest", build: manifestOf("application/vnd.oci.artifact.manifest.v1+json", `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}`), says: []string{"application/vnd.oci.artifact.manifest.v1+json"}},
		{name: "schema 1", build: manifestOf("application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1,"name":"app","tag":"latest","fsLayers":[],"history":[]}`), says: []string{"schema 1"}},
		{name: "foreign layer", build: edited(good, layerType, `"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"`), says: []string{layer, "foreign layer"}},
		{name: "encrypted layer", build: edited(good, layerType, `"application/vnd.oci.image.layer.v1.tar+gzip+encrypted"`), says: []string{layer, "encrypted layer"}},
		{name: "no layers, yet diff_ids", build: func(_ *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			return store.AddImage(sourcetest.Image{Config: map[string]any{"rootfs": map[string]any{"diff_ids": []digest.Digest{digest.FromBytes(good)}}}})
		}, says: []string{"config sha256:", "1 diff_ids for 0 layers"}},
		{name: "more layers than diff_ids", build: oneLayer(good, diffIDs()), says: []string{"config sha256:", "0 diff_ids for 1 layers"}},
		{name: "more diff_ids than layers", build: oneLayer(good, diffIDs(digest.FromBytes(good), digest.FromBytes(good))), says: []string{"config sha256:", "2 diff_ids for 1 layers"}},
		{name: "config that is garbage", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			config := store.Put(ocispec.MediaTypeImageConfig, []byte("\x00garbage"))
			return edited(good, `"config":\{[^}]*\}`, fmt.Sprintf(`"config":{"mediaType":%q,"digest":%q,"size":%d}`, config.MediaType, config.Digest, config.Size))(t, store)
		}, says: []string{"config sha256:"}},
		{name: "config with another digest", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			desc := plain(t, store)
			m, _ := store.Get(desc.Digest)
			config := digest.Digest(regexp.MustCompile(`sha256:[0-9a-f]{64}`).Find(m))
			store.Replace(config, []byte("{}"))
			return desc
		}, says: []string{"digest mismatch"}, hint: "nothing of it was kept"},
		{name: "config of another form", build: oneLayer(good, func(i *sourcetest.Image) { i.Config = map[string]any{"architecture": 7} }), says: []string{"config sha256:", "architecture"}},
		{name: "manifest of another form", build: edited(good, `"layers":.*\]`, `"layers":7`), says: []string{"manifest sha256:", "layers"}},
		{name: "manifest too big", build: func(t *testing.T, store *sourcetest.Store) ocispec.Descriptor {
			desc := plain(t, store)
			m, _ := store.Get(desc.Digest)
			return store.Put(desc.MediaType, append(m, bytes.Repeat([]byte(" "), 9<<20)...))
		}, says: []string{"manifest sha256:", "9437", "8388608"}},
	}
}

// badEntries are images whose layer is a good tar of what cannot be shown.
func badEntries() []badImage {
	all := []badImage{
		{name: "name above the root", build: layerOf(tar.Header{Name: "../../etc/passwd"}), says: []string{`"../../etc/passwd"`, "above the root"}},
		{name: "hard link above the root", build: layerOf(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}), says: []string{`"a"`, "../../etc/shadow"}},
		{name: "hard link to nothing", build: layerOf(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), says: []string{`"a"`, `"b"`}},
		{name: "hard link to a directory", build: layerOf(tar.Header{Name: "b/", Typeflag: tar.TypeDir}, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), says: []string{`"a"`, "directory"}},
		{name: "whiteout of ..", build: layerOf(tar.Header{Name: "etc/.wh..."}), says: []string{`"etc/.wh..."`, "whiteout"}},
		{name: "whiteout of .", build: layerOf(tar.Header{Name: "etc/.wh.."}), says: []string{`"etc/.wh.."`, "whiteout"}},
		{name: "whiteout of nothing", build: layerOf(tar.Header{Name: "etc/.wh."}), says: []string{`"etc/.wh."`, "whiteout"}},
		{name: "entry below a file", build: layerOf(tar.Header{Name: "a"}, tar.Header{Name: "a/b"}), says: []string{`"a/b"`, "not a directory"}},
		{name: "root that is a file", build: layerOf(tar.Header{Name: "."}), says: []string{"root"}},
	}
	for i := range all {
		all[i].keeps = true
	}
	return all
}

// TestBadImages holds what becomes of an image that imgfs must not show: a
// message that names it, no mount, and nothing of it in the cache.
func TestBadImages(t *testing.T) {
	alone(t)
	for _, c := range slices.Concat(badAnswers(t), badLayers(t), badManifests(t), badEntries()) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New(t, nil)
			store := sourcetest.NewStore()
			image := publishStore(reg, store, c.build(t, store))
			if c.fault != nil {
				reg.Inject(c.kind, registrytest.Always(c.fault))
			}
			args := []string{image}
			if c.args != nil {
				args = nil
			}
			for _, a := range c.args {
				args = append(args, strings.NewReplacer("IMAGE", image, "HOST", reg.Host()).Replace(a))
			}
			says := append(c.says, reg.Host()+"/")
			cache := t.TempDir()
			checkRefusal(t, invoke(t, append([]string{"--cache-dir", cache, "ls"}, args...)...), cli.ExitFailure, says, c.hint)
			var allowed []digest.Digest
			if c.keeps {
				allowed = store.Digests()
			}
			checkCache(t, cache, allowed...)
			if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
				return
			}
			dir := t.TempDir()
			checkRefusal(t, invoke(t, append([]string{"--cache-dir", cache, "mount", "-f"}, append(args, dir)...)...), cli.ExitFailure, says, c.hint)
			if mounted(dir) {
				t.Errorf("%s is mounted", dir)
			}
			checkCache(t, cache, allowed...)
		})
	}
}

// TestOneBadLayer has a good layer beside a bad one: the good one may stay.
func TestOneBadLayer(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	store := sourcetest.NewStore()
	good, bad := tarOf(t, tar.Header{Name: "a"}), tarOf(t, tar.Header{Name: "b"})
	image := publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}, {Content: bad}}}))
	reg.ReplaceBlob(digest.FromBytes(bad), bytes.ToUpper(bad))
	cache := t.TempDir()
	for range 2 {
		checkRefusal(t, invoke(t, "index", "--cache-dir", cache, image), cli.ExitFailure, []string{image + ": layer " + digest.FromBytes(bad).String()}, "nothing of it was kept")
		checkCache(t, cache, digest.FromBytes(good))
	}
	reg.ReplaceBlob(digest.FromBytes(bad), bad)
	if got, want := succeed(t, "ls", "--cache-dir", cache, image), "a\nb\n"; got != want {
		t.Errorf("after the registry was mended: got %q, want %q", got, want)
	}
}

// TestNamesStayInside has names that are absolute or full of dots, and that
// are no reason to refuse an image: they are below the image's root.
func TestNamesStayInside(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	store := sourcetest.NewStore()
	layer := tarOf(t, tar.Header{Name: "/abs"}, tar.Header{Name: "a/../dots"}, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../../abs"},
		tar.Header{Name: "passwd", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "/abs"})
	image := publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}}))
	cache := "--cache-dir=" + t.TempDir()
	if got, want := succeed(t, "ls", cache, image), "abs\ndots\nhard\nlink\npasswd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	checkRefusal(t, invoke(t, "cat", cache, image, "/passwd"), cli.ExitFailure, []string{image + ": /passwd: no such file or directory"}, "")
	checkRefusal(t, invoke(t, "cat", cache, image, "../../../../etc/passwd"), cli.ExitFailure, []string{"no such file or directory"}, "")
	succeed(t, "cat", cache, image, "/link", "../../hard")
}
