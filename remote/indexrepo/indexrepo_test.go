package indexrepo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// TestPublish: what is published is found, of a whole image by one request, and is not
// sent twice.
func TestPublish(t *testing.T) {
	for _, beside := range []bool{false, true} {
		s := newServer(t)
		img, layers := testImage(beside, 0, 1, 2, 3)
		var last, all int64
		img.Progress = func(done, of int64) {
			if done < last || done > of {
				t.Errorf("progress goes from %d to %d of %d", last, done, of)
			}
			last, all = done, of
		}
		results, err := indexrepo.Publish(t.Context(), repository(t, s.Host(), "team/indexes"), img)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for i, r := range results {
			x := testIndex(i)
			if r.Layer != x.Layer || !r.Pushed || r.Bytes != x.Index.Size+x.Digests.Size {
				t.Errorf("layer %d: got %+v", i, r)
			}
			size += r.Bytes
		}
		if last != size || all != size {
			t.Errorf("progress ended with %d of %d, want %d", last, all, size)
		}

		s.Forget()
		f := newFinder(t)
		at := indexrepo.Place{Source: repository(t, s.Host(), "team/indexes"), Beside: beside}
		found := f.Find(t.Context(), at, img.Manifest.Digest, layers)
		if got := s.Requests(registrytest.Manifest); len(got) != 1 || got[0].Method != http.MethodGet {
			t.Errorf("beside %t: %d requests for manifests: %+v", beside, len(got), got)
		}
		checkFound(t, found, 0, 1, 2, 3)
		if !beside {
			checkFound(t, f.Find(t.Context(), at, "", layers[1:3]), 1, 2)
			checkFound(t, f.Find(t.Context(), at, digest.FromString("another image"), layers[:1]), 0)
		}

		s.Forget()
		again, _ := testImage(beside, 0, 1, 2, 3)
		results, err = indexrepo.Publish(t.Context(), repository(t, s.Host(), "team/indexes"), again)
		if err != nil || slices.ContainsFunc(results, func(r indexrepo.Result) bool { return r.Pushed }) {
			t.Errorf("beside %t, again: got %+v and error %v", beside, results, err)
		}
		for _, r := range s.Requests() {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				t.Errorf("beside %t, again: %s %s", beside, r.Method, r.Path)
			}
		}
	}
}

// TestManifest: the manifests are what docs/published-indexes.md says.
func TestManifest(t *testing.T) {
	s := newServer(t)
	repo := repository(t, s.Host(), "team/indexes")
	img, _ := testImage(true, 0, 7)
	if _, err := indexrepo.Publish(t.Context(), repo, img); err != nil {
		t.Fatal(err)
	}
	tag, _ := indexrepo.Tag(img.Manifest.Digest)
	if tag != "imgfs1.sha256-"+img.Manifest.Digest.Encoded() {
		t.Errorf("the tag is %s", tag)
	}
	desc, err := repo.ResolveTag(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	a, err := remote.OpenArtifact(t.Context(), repo, desc)
	if err != nil {
		t.Fatal(err)
	}
	x, y := testIndex(0), testIndex(7)
	if a.Type != "application/vnd.imgfs.index.v1" || a.Config.MediaType != "application/vnd.oci.empty.v1+json" || a.Config.Size != 2 ||
		a.Subject == nil || a.Subject.Digest != img.Manifest.Digest || a.Subject.Size != 1234 ||
		a.Annotations["io.github.imgfs.version"] != "imgfs of a test" || len(a.Layers) != 3 {
		t.Errorf("got %s", a.Manifest)
	}
	index, digests := a.Layers[1].Annotations, a.Layers[2].Annotations
	if a.Layers[0].Digest != x.Index.Digest || a.Layers[1].MediaType != "application/vnd.imgfs.index.layer.v1" || a.Layers[1].Digest != y.Index.Digest ||
		index["io.github.imgfs.layer"] != y.Layer.String() || index["io.github.imgfs.listing"] != "1007" || len(index["io.github.imgfs.header"]) != 64 || index["io.github.imgfs.codec"] != "gzip" ||
		a.Layers[2].MediaType != "application/vnd.imgfs.index.digests.v1" || digests["io.github.imgfs.layer"] != y.Layer.String() {
		t.Errorf("got %s", a.Manifest)
	}
	for _, d := range []digest.Digest{"", "sha256:12", digest.SHA512.FromString("x"), "sha256:../../x"} {
		if tag, ok := indexrepo.Tag(d); ok {
			t.Errorf("%q has the tag %s", d, tag)
		}
	}
}

// putArtifact puts a manifest under the tag of a digest.
func putArtifact(t *testing.T, s *registrytest.Server, named digest.Digest, content []byte) {
	t.Helper()
	tag, ok := indexrepo.Tag(named)
	if !ok {
		t.Fatal(named)
	}
	s.Tag("team/indexes", tag, s.PutManifest(ocispec.MediaTypeImageManifest, content).Digest)
}

// artifact returns the published manifest of some layers, changed by edit.
func artifact(t *testing.T, edit func(*ocispec.Manifest), layers ...int) []byte {
	t.Helper()
	s := newServer(t)
	repo := repository(t, s.Host(), "x")
	img, _ := testImage(true, layers...)
	if _, err := indexrepo.Publish(t.Context(), repo, img); err != nil {
		t.Fatal(err)
	}
	tag, _ := indexrepo.Tag(img.Manifest.Digest)
	desc, err := repo.ResolveTag(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	content, err := repo.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		t.Fatal(err)
	}
	edit(&m)
	content, err = json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestGarbage: whatever is under a tag, and is no manifest of indexes of the layer, is
// none, and what else the repository has is found.
func TestGarbage(t *testing.T) {
	annotate := func(key, value string) func(*ocispec.Manifest) {
		return func(m *ocispec.Manifest) { m.Layers[0].Annotations[key] = value }
	}
	for what, content := range map[string][]byte{
		"an image index":     []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`),
		"an image":           []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digest.FromString("x").String() + `","size":2},"layers":[]}`),
		"another artifact":   artifact(t, func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.example" }, 1),
		"a newer format":     artifact(t, func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.imgfs.index.v2" }, 1),
		"no layers":          artifact(t, func(m *ocispec.Manifest) { m.Layers = nil }, 1),
		"another layer":      artifact(t, func(m *ocispec.Manifest) {}, 5),
		"no annotations":     artifact(t, func(m *ocispec.Manifest) { m.Layers[0].Annotations = nil }, 1),
		"a short header":     artifact(t, annotate("io.github.imgfs.header", "1234"), 1),
		"a header in words":  artifact(t, annotate("io.github.imgfs.header", strings.Repeat("xy", 32)), 1),
		"no listing":         artifact(t, annotate("io.github.imgfs.listing", ""), 1),
		"a negative listing": artifact(t, annotate("io.github.imgfs.listing", "-5"), 1),
		"a huge listing":     artifact(t, annotate("io.github.imgfs.listing", "99999999999999999999999"), 1),
		"a listing past it":  artifact(t, annotate("io.github.imgfs.listing", "6000"), 1),
		"no layer's digest":  artifact(t, annotate("io.github.imgfs.layer", "sha256:1"), 1),
		"a huge index":       artifact(t, func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 50 }, 1),
		"an index of a kind": artifact(t, func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" }, 1),
	} {
		s := newServer(t)
		repo := repository(t, s.Host(), "team/indexes")
		img, _ := testImage(false, 2)
		if _, err := indexrepo.Publish(t.Context(), repo, img); err != nil {
			t.Fatal(err)
		}
		putArtifact(t, s, layerDigest(1), content)
		putArtifact(t, s, img.Manifest.Digest, content)
		told := 0
		f := newFinder(t)
		f.Debugf = func(string, ...any) { told++ }
		wanted := []digest.Digest{layerDigest(1), layerDigest(2)}
		found := f.Find(t.Context(), indexrepo.Place{Source: repo}, img.Manifest.Digest, wanted)
		if checkFound(t, found, 2); t.Failed() {
			t.Fatalf("with %s under the tag", what)
		}
		if told == 0 {
			t.Errorf("%s: nobody is told", what)
		}
		s.Forget()
		if f.Find(t.Context(), indexrepo.Place{Source: repo}, "", wanted[:1]); s.Count() > 0 && what != "another layer" {
			t.Errorf("%s: it is asked for again", what)
		}
	}
	// One that is too large is not even read.
	s := newServer(t)
	putArtifact(t, s, layerDigest(1), artifact(t, func(m *ocispec.Manifest) { m.Annotations["x"] = strings.Repeat("y", 5<<20) }, 1))
	f := newFinder(t)
	if found := f.Find(t.Context(), indexrepo.Place{Source: repository(t, s.Host(), "team/indexes")}, "", []digest.Digest{layerDigest(1)}); len(found) > 0 {
		t.Error("a manifest of more than 5 MiB is read")
	}
	// Digests alone may be missing, or of no use.
	s = newServer(t)
	putArtifact(t, s, layerDigest(1), artifact(t, func(m *ocispec.Manifest) { m.Layers[1].Annotations = nil }, 1))
	f = newFinder(t)
	found := f.Find(t.Context(), indexrepo.Place{Source: repository(t, s.Host(), "team/indexes")}, "", []digest.Digest{layerDigest(1)})
	if p := found[layerDigest(1)]; p == nil || p.DigestsBlob != nil || p.IndexBlob == nil {
		t.Errorf("without digests: got %+v", p)
	}
}

// TestBadRepository: whatever an index repository answers is no error, and costs no more
// than Patience once.
func TestBadRepository(t *testing.T) {
	t.Parallel()
	for what, fault := range map[string]func(s *registrytest.Server) registrytest.Fault{
		"401": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusUnauthorized) },
		"403": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusForbidden) },
		"404": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusNotFound) },
		"429": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusTooManyRequests) },
		"500": func(*registrytest.Server) registrytest.Fault {
			return registrytest.Status(http.StatusInternalServerError)
		},
		"page":      func(*registrytest.Server) registrytest.Fault { return registrytest.Page() },
		"cut":       func(*registrytest.Server) registrytest.Fault { return registrytest.Truncate(20) },
		"reset":     func(*registrytest.Server) registrytest.Fault { return registrytest.Reset(-1) },
		"hang":      func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
		"hang late": func(s *registrytest.Server) registrytest.Fault { return s.Stall(20) },
		"trickle":   func(s *registrytest.Server) registrytest.Fault { return s.Trickle(5, 1, 100*time.Millisecond) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			img, layers := testImage(false, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
			if _, err := indexrepo.Publish(t.Context(), repository(t, s.Host(), "team/indexes"), img); err != nil {
				t.Fatal(err)
			}
			s.Inject(registrytest.Manifest, registrytest.Always(fault(s)))
			f := newFinder(t)
			var warned []string
			f.Warnf = func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }
			at := indexrepo.Place{Source: repository(t, s.Host(), "team/indexes")}
			began := time.Now()
			if found := f.Find(t.Context(), at, img.Manifest.Digest, layers); len(found) > 0 {
				t.Errorf("%d layers are found", len(found))
			}
			if took := time.Since(began); took > indexrepo.Patience+time.Second {
				t.Errorf("it took %v", took)
			}
			s.Forget()
			began = time.Now()
			if f.Find(t.Context(), at, img.Manifest.Digest, layers); s.Count() > 0 || time.Since(began) > 100*time.Millisecond {
				t.Errorf("it was asked again: %d requests, in %v", s.Count(), time.Since(began))
			}
			if want := " from " + at.Source.Repository() + ": "; what == "404" && len(warned) > 0 || what != "404" && (len(warned) != 1 || !strings.Contains(warned[0], want)) {
				t.Errorf("the user is told %q", warned)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		s := newServer(t)
		host := s.Host()
		s.Close()
		f := newFinder(t)
		began := time.Now()
		if found := f.Find(t.Context(), indexrepo.Place{Source: repository(t, host, "x")}, layerDigest(1), []digest.Digest{layerDigest(1)}); len(found) > 0 {
			t.Errorf("found %v", found)
		}
		if took := time.Since(began); took > indexrepo.Patience+time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		s := newServer(t)
		s.Inject(registrytest.Manifest, registrytest.Always(s.Stall(-1)))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		f := newFinder(t)
		at := indexrepo.Place{Source: repository(t, s.Host(), "x")}
		began := time.Now()
		f.Find(ctx, at, layerDigest(1), []digest.Digest{layerDigest(1)})
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		s.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(http.StatusNotFound)))
		s.Forget()
		if f.Find(t.Context(), at, layerDigest(1), []digest.Digest{layerDigest(1)}); s.Count() == 0 {
			t.Error("an interrupted search counts against the repository")
		}
	})
}

// TestRemembered: what was found once is known to later processes, without a request, and
// offline.
func TestRemembered(t *testing.T) {
	s := newServer(t)
	img, layers := testImage(false, 1, 2, 3)
	if _, err := indexrepo.Publish(t.Context(), repository(t, s.Host(), "team/indexes"), img); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	find := func(offline bool, manifest digest.Digest, layers ...digest.Digest) (map[digest.Digest]*indexrepo.Published, *indexrepo.Finder) {
		f := &indexrepo.Finder{Meta: openCache(t, dir).Meta, Offline: offline}
		return f.Find(t.Context(), indexrepo.Place{Source: repository(t, s.Host(), "team/indexes")}, manifest, layers), f
	}
	s.Forget()
	if found, _ := find(true, img.Manifest.Digest, layers...); len(found) > 0 || s.Count() > 0 {
		t.Errorf("offline: %d are found before anything is known, with %d requests", len(found), s.Count())
	}
	found, _ := find(false, img.Manifest.Digest, layers...)
	checkFound(t, found, 1, 2, 3)
	s.Forget()
	found, f := find(false, img.Manifest.Digest, layers...)
	if n := s.Count(registrytest.Manifest); n > 0 {
		t.Errorf("%d requests for what is known", n)
	}
	checkFound(t, found, 1, 2, 3)
	s.Forget()
	found, _ = find(true, img.Manifest.Digest, layers...)
	if len(found) != 3 || s.Count() > 0 {
		t.Errorf("offline: %d are found, with %d requests", len(found), s.Count())
	}
	if _, err := found[layers[0]].IndexBlob.ReadAt(t.Context(), make([]byte, 5), 0); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("offline: reading gives %v", err)
	}
	f.Forget(found[layers[0]])
	find(false, img.Manifest.Digest, layers...)
	if n := s.Count(registrytest.Manifest); n == 0 {
		t.Error("what was forgotten is still known")
	}
}

// TestReplaced: what is under a tag and leads to another index, or is no index, is
// replaced; blobs that went missing are put again.
func TestReplaced(t *testing.T) {
	s := newServer(t)
	repo := repository(t, s.Host(), "team/indexes")
	for what, content := range map[string][]byte{
		"garbage":       []byte(`{"schemaVersion":2,"config":{},"layers":[]}`),
		"another layer": artifact(t, func(m *ocispec.Manifest) {}, 5),
		"another header": artifact(t, func(m *ocispec.Manifest) {
			m.Layers[0].Annotations["io.github.imgfs.header"] = strings.Repeat("00", 32)
		}, 1),
		"another blob": artifact(t, func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.FromString("x") }, 1),
	} {
		putArtifact(t, s, layerDigest(1), content)
		img, layers := testImage(false, 1)
		results, err := indexrepo.Publish(t.Context(), repo, img)
		if err != nil || !results[0].Pushed {
			t.Errorf("%s: got %+v and error %v", what, results, err)
		}
		f := newFinder(t)
		checkFound(t, f.Find(t.Context(), indexrepo.Place{Source: repo}, "", layers), 1)
	}
}

// TestPublishKnown: an index that was found in the place need not be there to be published
// with others.
func TestPublishKnown(t *testing.T) {
	s := newServer(t)
	repo := repository(t, s.Host(), "team/indexes")
	known, _ := testImage(false, 1)
	if _, err := indexrepo.Publish(t.Context(), repo, known); err != nil {
		t.Fatal(err)
	}
	img, layers := testImage(false, 1, 2)
	img.Layers[0].IndexContent, img.Layers[0].DigestsContent = nil, nil
	results, err := indexrepo.Publish(t.Context(), repo, img)
	if err != nil || results[0].Pushed || !results[1].Pushed {
		t.Fatalf("got %+v and error %v", results, err)
	}
	f := newFinder(t)
	s.Forget()
	checkFound(t, f.Find(t.Context(), indexrepo.Place{Source: repo}, img.Manifest.Digest, layers), 1, 2)
	if n := s.Count(registrytest.Manifest); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestPublishUnlooked: indexes are put where it cannot be seen what is there, as while
// somebody else writes the same tag in docker-registry 2.8.
func TestPublishUnlooked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	repo := repository(t, s.Host(), "team/indexes")
	img, layers := testImage(false, 1, 2)
	s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method == http.MethodPut {
			serve(w, r)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	for range 2 {
		results, err := indexrepo.Publish(t.Context(), repo, img)
		if err != nil || len(results) != 2 || !results[0].Pushed || !results[1].Pushed {
			t.Fatalf("got %+v and error %v", results, err)
		}
	}
	s.Inject(registrytest.Manifest, nil)
	checkFound(t, newFinder(t).Find(t.Context(), indexrepo.Place{Source: repo}, img.Manifest.Digest, layers), 1, 2)
}

// TestRefused: a registry that wants a login, or lets nobody write, says so.
func TestRefused(t *testing.T) {
	for want, opts := range map[error]*registrytest.Options{
		remote.ErrUnauthorized: {Writable: true, Login: registrytest.Basic, User: "u", Password: "p"},
		remote.ErrUnavailable:  {},
	} {
		s := registrytest.New(t, opts)
		img, _ := testImage(false, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := indexrepo.Publish(ctx, repository(t, s.Host(), "x"), img); !errors.Is(err, want) {
			t.Errorf("got error %v, want %v", err, want)
		}
		cancel()
	}
}
