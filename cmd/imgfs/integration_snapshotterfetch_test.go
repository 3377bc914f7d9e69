//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fetch runs imgfs snapshotter fetch, which must exit with a code, and returns what it says.
func (e *engine) fetch(code int, args ...string) string {
	e.t.Helper()
	all := append([]string{"snapshotter", "fetch", "--containerd", e.address(), "--root", e.root()}, args...)
	r := e.finish(e.command(all...))
	if r.code != code || r.stdout != "" {
		e.t.Fatalf("imgfs %q: exit code %d, want %d\n%s%s", all, r.code, code, r.stdout, r.stderr)
	}
	return r.stderr
}

// lacks has containerd hold an image without its layers: a lazy one, or, of a containerd that
// knows no such, one whose layers somebody has removed. It returns the layers.
func (e *engine) lacks(reg *registrytest.Server, name string) (image string, layers []digest.Digest) {
	e.t.Helper()
	image = pushed(e.t, reg, name)
	layers = layersIn(e.t, runnables(e.t)[name])
	e.pull(image)
	if e.version == "" {
		for _, l := range layers {
			e.does("content", "rm", l.String())
		}
		e.collect(image)
	}
	if n := e.blobs(); n != 2 {
		e.t.Fatalf("containerd's content store has %d blobs, want manifest and config", n)
	}
	return image, layers
}

var digestText = regexp.MustCompile(`"digest": ?"(sha256:[0-9a-f]{64})"`)

// layersIn returns the layers of the only image of a layout.
func layersIn(t testing.TB, dir string) (all []digest.Digest) {
	t.Helper()
	read := func(name string) (found []digest.Digest) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range digestText.FindAllStringSubmatch(string(text), -1) {
			found = append(found, digest.Digest(m[1]))
		}
		return found
	}
	for _, m := range read("index.json")[:1] {
		all = read(filepath.Join("blobs", "sha256", m.Encoded()))
	}
	if len(all) < 2 {
		t.Fatalf("%s has no manifest with layers", dir)
	}
	return all[1:] // behind the config
}

// export exports an image, and returns the exit code.
func (e *engine) export(image, file string) int {
	e.t.Helper()
	return e.finish(e.ctr(e.space(), "image", "export", filepath.Join(e.dir, file), image)).code
}

// hasLayers checks that the content store has blobs, byte for byte.
func (e *engine) hasLayers(layers []digest.Digest) {
	e.t.Helper()
	for _, l := range layers {
		got := digest.FromString(e.does("content", "get", l.String()))
		if got != l {
			e.t.Errorf("the content store has %s where %s should be", got, l)
		}
	}
}

// eachEngine runs a test with the containerd that was built, and with the one that is
// installed.
func eachEngine(t *testing.T, test func(t *testing.T, e *engine)) {
	t.Run("2.4", func(t *testing.T) { test(t, newEngine(t)) })
	t.Run("installed", func(t *testing.T) { test(t, newOldEngine(t)) })
}

// TestSnapshotterFetch: what needs the layers of an image that containerd has without them
// works after imgfs snapshotter fetch, and keeps working when containerd collects garbage.
// What is in the cache does not come again.
func TestSnapshotterFetch(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "debian")
		if code := e.export(image, "before.tar"); code == 0 {
			t.Error("an image is exported whose layers are not there")
		}
		other := registrytest.New(t, &registrytest.Options{Writable: true})
		elsewhere, converted := other.Host()+"/elsewhere:1", reg.Host()+"/converted:1"
		e.does("image", "tag", image, elsewhere)
		for _, args := range [][]string{{"push", "--plain-http", elsewhere}, {"convert", "--uncompress", image, converted}} {
			if r := e.finish(e.ctr(e.space(), append([]string{"image"}, args...)...)); r.code == 0 {
				t.Errorf("ctr image %q succeeds without layers", args)
			}
		}
		reg.Forget()
		said := e.fetch(0, "--namespace", e.space(), image)
		if want := fmt.Sprintf("%s in namespace %s: all %d blobs", image, e.space(), len(layers)+1); !strings.Contains(said, want) || !strings.Contains(said, fmt.Sprintf("; %d blobs (", len(layers))) {
			t.Errorf("it says %q, want %q", said, want)
		}
		if n := reg.Bytes(registrytest.Blob); e.version != "" && n > 0 {
			t.Errorf("the registry has sent %d bytes of layers that are in the cache", n)
		}
		e.hasLayers(layers)

		// Garbage is collected, and this is none.
		e.collect(image)
		e.hasLayers(layers)
		if leases := e.does("leases", "ls", "-q"); strings.TrimSpace(leases) != "" {
			t.Errorf("leases are left: %q", leases)
		}
		if code := e.export(image, "after.tar"); code != 0 {
			t.Errorf("export: exit code %d", code)
		}
		if got := e.ok("cat", "oci-archive:"+filepath.Join(e.dir, "after.tar")+":/etc/motd").stdout; got != "third layer\n" {
			t.Errorf("the archive has %q", got)
		}
		e.does("image", "push", "--plain-http", elsewhere)
		e.does("image", "convert", "--uncompress", image, converted)
		if got := e.does("image", "check", "name=="+image); !strings.Contains(got, fmt.Sprintf("complete (%d/%d)", len(layers)+1, len(layers)+1)) {
			t.Errorf("ctr image check prints\n%s", got)
		}

		reg.Forget()
		if said := e.fetch(0, "--namespace", e.space(), image); !strings.Contains(said, "they were there before") || reg.Count() > 0 {
			t.Errorf("the second time it says %q, and asks the registry %d times", said, reg.Count())
		}
		e.does("image", "rm", "--sync", image, elsewhere, converted)
		if n := e.blobs(); n > 0 {
			t.Errorf("without the images the content store has %d blobs", n)
		}
		e.leavesNoTree()
	})
}

// TestSnapshotterFetchRegistry: without a cache the layers come from the registry, each once.
// References that somebody pruned are there again.
func TestSnapshotterFetchRegistry(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "debian")
		manifest := strings.Fields(e.does("image", "ls", "name=="+image))
		top := manifest[slices.IndexFunc(manifest, func(w string) bool { return strings.HasPrefix(w, "sha256:") })]
		for i := range layers {
			e.does("content", "label", top, fmt.Sprintf("containerd.io/gc.ref.content.l.%d=", i))
		}
		reg.Forget()
		e.fetch(0, "--namespace", e.space(), "--cache-dir", filepath.Join(e.dir, "another"), image)
		if n, size := reg.Bytes(registrytest.Blob), sizeBelow(t, runnables(t)["debian"]); n < size/2 || n > size {
			t.Errorf("%d bytes came of layers of %d", n, size)
		}
		e.collect(image)
		e.hasLayers(layers)
	})
}

// collect has containerd collect garbage.
func (e *engine) collect(image string) {
	e.t.Helper()
	e.does("image", "tag", image, "docker.io/library/other:1")
	e.does("image", "rm", "--sync", "docker.io/library/other:1")
}

// TestSnapshotterFetchNamespaces: each namespace has its own images, and says so.
func TestSnapshotterFetchNamespaces(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "busybox")
		said := e.fetch(1, image)
		if !strings.Contains(said, "containerd has no image "+image+" in its namespace default") || !strings.Contains(said, "hint: it is in another one: --namespace "+e.space()) {
			t.Errorf("in the wrong namespace it says %q", said)
		}
		if said := e.fetch(1, "--all-namespaces", "localhost/none:1"); !strings.Contains(said, "in any of its namespaces") {
			t.Errorf("of no image it says %q", said)
		}
		if said := e.fetch(0, "--all-namespaces", image); !strings.Contains(said, "in namespace "+e.space()+": all ") {
			t.Errorf("it says %q", said)
		}
		e.hasLayers(layers)
		e.does("image", "rm", "--sync", image)
	})
}

// TestSnapshotterFetchOrigins: an image whose name is in no registry has the layers of the
// one that it was made of.
func TestSnapshotterFetchOrigins(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "busybox")
		const made = "localhost:1/made/here:1"
		e.does("image", "tag", image, made)
		e.fetch(0, "--namespace", e.space(), made)
		e.hasLayers(layers)
		if e.version == "" {
			return
		}
		// Without the image the snapshotter knows it still.
		for _, l := range layers {
			e.does("content", "rm", l.String())
		}
		e.does("image", "rm", "--sync", image)
		e.fetch(0, "--namespace", e.space(), made)
		e.hasLayers(layers)
	})
}

// TestSnapshotterFetchPlatforms: of an image for several platforms the layers of the one come
// that was pulled, or of the one that is named.
func TestSnapshotterFetchPlatforms(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		var index ocispec.Index
		index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
		for name, arch := range map[string]string{"debian": runtime.GOARCH, "static": "s390x"} {
			dir := runnables(t)[name]
			if err := reg.PushLayout(dir, "multi"); err != nil {
				t.Fatal(err)
			}
			var layout ocispec.Index
			text, err := os.ReadFile(filepath.Join(dir, "index.json"))
			if err == nil {
				err = json.Unmarshal(text, &layout)
			}
			if err != nil {
				t.Fatal(err)
			}
			d := layout.Manifests[0]
			index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: &ocispec.Platform{OS: "linux", Architecture: arch}})
		}
		text, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		reg.Tag("multi", "both", reg.PutManifest(index.MediaType, text).Digest)
		image, layers := reg.Host()+"/multi:both", layersIn(t, runnables(t)["debian"])
		e.pull(image)
		if e.version == "" {
			for _, l := range layers {
				e.does("content", "rm", l.String())
			}
			e.collect(image)
		}
		if said := e.fetch(0, "--namespace", e.space(), image); !strings.Contains(said, fmt.Sprintf("all %d blobs of 1 platform (", len(layers)+1)) {
			t.Errorf("it says %q", said)
		}
		e.collect(image)
		e.hasLayers(layers)
		other := layersIn(t, runnables(t)["static"])[0].String()
		if strings.Contains(e.does("content", "ls", "-q"), other) {
			t.Error("a layer of another platform was fetched")
		}
		if e.version == "" {
			e.fetch(1, "--namespace", e.space(), "--platform", "linux/s390x", image) // its manifest is not there
			return
		}
		e.fetch(0, "--namespace", e.space(), "--platform", "linux/s390x", image)
		if !strings.Contains(e.does("content", "ls", "-q"), other) {
			t.Error("the layer of the platform that was named is not there")
		}
	})
}

// TestSnapshotterFetchNobody: without containerd it says what helps.
func TestSnapshotterFetchNobody(t *testing.T) {
	s := newSandbox(t)
	s.fails(1, []string{"containerd does not answer", "no such file or directory", "--containerd SOCKET says where it is"},
		"snapshotter", "fetch", "--containerd", filepath.Join(s.dir, "none.sock"), "node:22")
	s.fails(2, []string{"one image is needed"}, "snapshotter", "fetch")
	s.fails(2, []string{"exclude each other"}, "snapshotter", "fetch", "--all-namespaces", "--namespace", "moby", "node:22")
}
