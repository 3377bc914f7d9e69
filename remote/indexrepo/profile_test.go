package indexrepo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

const (
	profileRepository = "docker.io/library/node"
	profilePlatform   = "linux/amd64"
)

// testProfile returns a profile, as far as this package looks at one.
func testProfile(seed uint64, size int) *indexrepo.Profile {
	return &indexrepo.Profile{Repository: profileRepository, Platform: profilePlatform, Content: noise(seed, size)}
}

// publishProfile publishes a profile, and checks that it was sent or not.
func publishProfile(t *testing.T, s *registrytest.Server, x *indexrepo.Profile, want bool) {
	t.Helper()
	pushed, err := indexrepo.PublishProfile(t.Context(), repository(t, s.Host(), "team/indexes"), x, "imgfs of a test")
	if err != nil || pushed != want {
		t.Fatalf("pushed %t with error %v, want %t", pushed, err, want)
	}
}

// findProfile returns the profile that a server has, nil if there is none.
func findProfile(t *testing.T, f *indexrepo.Finder, s *registrytest.Server) (found []byte) {
	t.Helper()
	ok := f.FindProfile(t.Context(), repository(t, s.Host(), "team/indexes"), profileRepository, profilePlatform, func(content []byte) error {
		found = content
		return nil
	})
	if ok != (found != nil) {
		t.Errorf("found %t with %d bytes", ok, len(found))
	}
	return found
}

// TestProfile: a profile that is published is found, of its repository and platform alone,
// is not sent twice, and is replaced by another one.
func TestProfile(t *testing.T) {
	s := newServer(t)
	first, second := testProfile(1, 3<<20), testProfile(2, 100)
	if got := findProfile(t, newFinder(t), s); got != nil {
		t.Errorf("%d bytes are found of nothing", len(got))
	}
	publishProfile(t, s, first, true)
	if got := findProfile(t, newFinder(t), s); !bytes.Equal(got, first.Content) {
		t.Errorf("got %d bytes, want %d", len(got), len(first.Content))
	}
	s.Forget()
	publishProfile(t, s, first, false)
	for _, r := range s.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("again: %s %s", r.Method, r.Path)
		}
	}
	publishProfile(t, s, second, true)
	if got := findProfile(t, newFinder(t), s); !bytes.Equal(got, second.Content) {
		t.Errorf("after the second one: got %d bytes", len(got))
	}
	other := *second
	other.Platform = "linux/arm64"
	publishProfile(t, s, &other, true)

	huge := testProfile(3, 8<<20+1)
	if _, err := indexrepo.PublishProfile(t.Context(), repository(t, s.Host(), "team/indexes"), huge, ""); err == nil {
		t.Error("one that nobody would read is published")
	}
}

// TestProfileManifest: tag and manifest are what docs/published-indexes.md says.
func TestProfileManifest(t *testing.T) {
	s := newServer(t)
	x := testProfile(1, 1000)
	publishProfile(t, s, x, true)
	tag := indexrepo.ProfileTag(profileRepository, profilePlatform)
	if want := "imgfs1.profile-" + digest.FromString("docker.io/library/node\nlinux/amd64\n").Encoded(); tag != want {
		t.Errorf("the tag is %s, want %s", tag, want)
	}
	repo := repository(t, s.Host(), "team/indexes")
	desc, err := repo.ResolveTag(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	a, err := remote.OpenArtifact(t.Context(), repo, desc)
	if err != nil {
		t.Fatal(err)
	}
	if a.Type != "application/vnd.imgfs.profile.v1" || a.Config.MediaType != "application/vnd.oci.empty.v1+json" || a.Subject != nil ||
		a.Annotations["io.github.imgfs.version"] != "imgfs of a test" || len(a.Layers) != 1 ||
		a.Layers[0].MediaType != "application/vnd.imgfs.profile.v1+json" || a.Layers[0].Digest != digest.FromBytes(x.Content) || a.Layers[0].Size != 1000 {
		t.Errorf("got %s", a.Manifest)
	}
}

// TestProfileAsked: what a place does not have, or what is of no use, is not asked for again
// soon; offline nothing is.
func TestProfileAsked(t *testing.T) {
	s := newServer(t)
	f := newFinder(t)
	f.Offline = true
	if findProfile(t, f, s); s.Count() > 0 {
		t.Errorf("offline: %+v", s.Requests())
	}
	f.Offline = false
	findProfile(t, f, s)
	publishProfile(t, s, testProfile(1, 100), true)
	s.Forget()
	if got := findProfile(t, f, s); got != nil || s.Count() > 0 {
		t.Errorf("asked again: %d bytes, %+v", len(got), s.Requests())
	}
	f = newFinder(t)
	var told []string
	f.Debugf = func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
	refuse := func([]byte) error { return errors.New("it is odd") }
	for range 2 {
		if f.FindProfile(t.Context(), repository(t, s.Host(), "team/indexes"), profileRepository, profilePlatform, refuse) {
			t.Error("one that is of no use is found")
		}
	}
	if n := s.Count(registrytest.Blob); n != 1 || len(told) != 1 || !strings.Contains(told[0], "it is odd") {
		t.Errorf("%d requests for it, told %q", n, told)
	}
	// A place that has no answers is not asked for this either.
	f = newFinder(t)
	f.Meta.KeepMissing(s.Host()+"/team/indexes", time.Minute)
	s.Forget()
	if findProfile(t, f, s); s.Count() > 0 {
		t.Errorf("a place that is left alone is asked: %+v", s.Requests())
	}
}

// TestProfileGarbage: what is no profile's manifest is none, and is replaced.
func TestProfileGarbage(t *testing.T) {
	x := testProfile(1, 1000)
	manifest := func(edit func(*ocispec.Manifest)) []byte {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: indexrepo.ProfileType,
			Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{
				{MediaType: "application/vnd.example", Digest: digest.FromString("x"), Size: 5},
				{MediaType: "application/vnd.imgfs.profile.v1+json", Digest: digest.FromBytes(x.Content), Size: 1000}}}
		m.SchemaVersion = 2
		edit(&m)
		content, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	put := func(content []byte) *registrytest.Server {
		s := newServer(t)
		s.PutBlob("application/vnd.imgfs.profile.v1+json", x.Content)
		s.Tag("team/indexes", indexrepo.ProfileTag(profileRepository, profilePlatform), s.PutManifest(ocispec.MediaTypeImageManifest, content).Digest)
		return s
	}
	if got := findProfile(t, newFinder(t), put(manifest(func(*ocispec.Manifest) {}))); !bytes.Equal(got, x.Content) {
		t.Errorf("beside what nobody knows: %d bytes", len(got))
	}
	for what, content := range map[string][]byte{
		"indexes":        manifest(func(m *ocispec.Manifest) { m.ArtifactType = indexrepo.ArtifactType }),
		"a newer format": manifest(func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.imgfs.profile.v2" }),
		"no blob":        manifest(func(m *ocispec.Manifest) { m.Layers = m.Layers[:1] }),
		"a huge blob":    manifest(func(m *ocispec.Manifest) { m.Layers[1].Size = 8<<20 + 1 }),
		"a blob past it": manifest(func(m *ocispec.Manifest) { m.Layers[1].Size = 1001 }),
		"a shorter blob": manifest(func(m *ocispec.Manifest) { m.Layers[1].Size = 999 }),
		"nothing":        manifest(func(m *ocispec.Manifest) { m.Layers[1].Size = 0 }),
		"none there":     manifest(func(m *ocispec.Manifest) { m.Layers[1].Digest = digest.FromString("y") }),
		"no manifest":    []byte("<html>"),
		"a huge one":     manifest(func(m *ocispec.Manifest) { m.Annotations = map[string]string{"x": strings.Repeat("y", 5<<20)} }),
	} {
		s := put(content)
		told := 0
		f := newFinder(t)
		f.Debugf = func(string, ...any) { told++ }
		if got := findProfile(t, f, s); got != nil || told != 1 {
			t.Errorf("%s: %d bytes, told %d times", what, len(got), told)
		}
		if what == "a huge blob" && s.Count(registrytest.Blob) > 0 {
			t.Errorf("%s: it is asked for", what)
		}
		if what != "a blob past it" && what != "a shorter blob" && what != "nothing" { // these have its digest
			publishProfile(t, s, x, true)
		}
	}
}

// TestProfileBadPlace: whatever a place answers is no error, and costs no more than Patience
// where it is silent.
func TestProfileBadPlace(t *testing.T) {
	t.Parallel()
	for _, kind := range []registrytest.Kind{registrytest.Manifest, registrytest.Blob} {
		for what, fault := range map[string]func(s *registrytest.Server) registrytest.Fault{
			"403": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusForbidden) },
			"500": func(*registrytest.Server) registrytest.Fault {
				return registrytest.Status(http.StatusInternalServerError)
			},
			"page":      func(*registrytest.Server) registrytest.Fault { return registrytest.Page() },
			"flipped":   func(*registrytest.Server) registrytest.Fault { return registrytest.FlipBit() },
			"reset":     func(*registrytest.Server) registrytest.Fault { return registrytest.Reset(-1) },
			"hang":      func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
			"hang late": func(s *registrytest.Server) registrytest.Fault { return s.Stall(20) },
			"endless":   func(s *registrytest.Server) registrytest.Fault { return s.Endless("application/json", []byte("{")) },
		} {
			if kind == registrytest.Manifest && what == "flipped" {
				continue // of a tag nobody knows the digest
			}
			t.Run(fmt.Sprint(kind, " ", what), func(t *testing.T) {
				t.Parallel()
				s := newServer(t)
				publishProfile(t, s, testProfile(1, 100_000), true)
				s.Inject(kind, registrytest.Always(fault(s)))
				f := newFinder(t)
				began := time.Now()
				if got := findProfile(t, f, s); got != nil {
					t.Errorf("got %d bytes", len(got))
				}
				if took := time.Since(began); took > indexrepo.Patience+time.Second {
					t.Errorf("it took %v", took)
				}
				s.Forget()
				if findProfile(t, f, s); s.Count() > 0 {
					t.Errorf("it was asked again: %+v", s.Requests())
				}
			})
		}
	}
	t.Run("trickle", func(t *testing.T) { // which is an answer, but no end of it
		t.Parallel()
		s := newServer(t)
		publishProfile(t, s, testProfile(1, 100_000), true)
		s.Inject(registrytest.Blob, registrytest.Always(s.Trickle(5, 1, 100*time.Millisecond)))
		began := time.Now()
		if got := findProfile(t, newFinder(t), s); got != nil {
			t.Errorf("got %d bytes", len(got))
		}
		if took := time.Since(began); took > 3*indexrepo.Patience+time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		s := newServer(t)
		publishProfile(t, s, testProfile(1, 100), true)
		asked := make(chan struct{}, 10)
		hang := s.Stall(-1)
		s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			asked <- struct{}{}
			hang(w, r, serve)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		f, done := newFinder(t), make(chan struct{})
		repo := repository(t, s.Host(), "team/indexes")
		go func() {
			defer close(done)
			f.FindProfile(ctx, repo, profileRepository, profilePlatform, func([]byte) error { return nil })
		}()
		<-asked
		cancel()
		began := time.Now()
		if <-done; time.Since(began) > time.Second {
			t.Errorf("it ended after %v", time.Since(began))
		}
		s.Inject(registrytest.Blob, nil)
		if got := findProfile(t, f, s); got == nil {
			t.Error("an interrupted search counts against the place")
		}
	})
}
