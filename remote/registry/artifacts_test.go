package registry_test

import (
	"context"
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
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

const (
	oneType   = "application/vnd.example.one"
	otherType = "application/vnd.example.other"
)

// subjectOf puts an image, which artifacts refer to.
func subjectOf(s *registrytest.Server) ocispec.Descriptor {
	desc := s.PutManifest(manifestType, []byte(testManifest))
	s.Tag("app", "latest", desc.Digest)
	return desc
}

// artifact is the nth artifact of a type.
func artifact(artifactType string, n int, subject *ocispec.Descriptor) ocispec.Manifest {
	return ocispec.Manifest{ArtifactType: artifactType, Subject: subject, Annotations: map[string]string{"n": fmt.Sprint(n)}}
}

func digests(list []ocispec.Descriptor) []digest.Digest {
	var all []digest.Digest
	for _, desc := range list {
		all = append(all, desc.Digest)
	}
	slices.Sort(all)
	return all
}

func TestResolveTag(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t, nil)
	subjectOf(s)
	desc := s.PutArtifact("app", "imgfs1.sha256-00", artifact(oneType, 1, nil))
	r := open(t, s, fast())
	got, err := r.ResolveTag(t.Context(), "imgfs1.sha256-00")
	if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != manifestType {
		t.Fatalf("got %+v and error %v, want %+v", got, err, desc)
	}
	a, err := remote.OpenArtifact(t.Context(), r, got)
	if err != nil || a.Type != oneType || a.Annotations["n"] != "1" {
		t.Errorf("got %+v and error %v", a, err)
	}
	if n := s.Count(registrytest.Manifest, registrytest.Blob); n != 1 {
		t.Errorf("it took %d requests, want 1", n)
	}
	// What was taken once is fetched again.
	if _, err := remote.OpenArtifact(t.Context(), r, got); err != nil {
		t.Error(err)
	}
	for _, tag := range []string{"", "a b", "../latest", "a/b", "@" + sumOf("x"), sumOf("x"), strings.Repeat("x", 129)} {
		if _, err := r.ResolveTag(t.Context(), tag); !errors.Is(err, remote.ErrReference) {
			t.Errorf("%q: got error %v, want %v", tag, err, remote.ErrReference)
		}
	}
}

func sumOf(text string) string { return digest.FromString(text).String() }

// TestReferrersAnswers has what registries answer where referrers are asked for:
// docker-registry 2.8 and distribution 3 (404, and a fallback tag), zot (the API, with
// the filter applied), others without the filter, and GitLab (404, and the subject
// under the fallback tag).
func TestReferrersAnswers(t *testing.T) {
	t.Parallel()
	type server = *registrytest.Server
	for name, tc := range map[string]struct {
		opts   registrytest.Options
		change func(s server, subject ocispec.Descriptor)
		want   []int // which of the artifacts 0 to 4, of which the even ones are of oneType
		asked  string
	}{
		"API, filter applied":  {opts: registrytest.Options{Referrers: true}, want: []int{0, 2, 4}, asked: "r"},
		"API, no filter":       {opts: registrytest.Options{Referrers: true, Unfiltered: true}, want: []int{0, 2, 4}, asked: "r"},
		"API, pages":           {opts: registrytest.Options{Referrers: true, ReferrersPage: 1}, want: []int{0, 2, 4}, asked: "rrr"},
		"API, pages, unfilter": {opts: registrytest.Options{Referrers: true, Unfiltered: true, ReferrersPage: 2}, want: []int{0, 2, 4}, asked: "rrr"},
		"fallback tag":         {want: []int{0, 2, 4}, asked: "rm"},
		"no fallback tag": {change: func(s server, subject ocispec.Descriptor) {
			s.Tag("app", fallback(subject.Digest), digest.FromString("gone"))
		}, asked: "rm"},
		"GitLab: the subject itself": {change: func(s server, subject ocispec.Descriptor) {
			s.Tag("app", fallback(subject.Digest), subject.Digest)
		}, asked: "rm"},
		"the subject among its referrers": {change: func(s server, subject ocispec.Descriptor) {
			s.PutFallback("app", subject.Digest, subject)
		}, asked: "rm"},
		"an empty list":            {change: func(s server, subject ocispec.Descriptor) { s.PutFallback("app", subject.Digest) }, asked: "rm"},
		"the API lists none":       {opts: registrytest.Options{Referrers: true}, change: answer(registrytest.Answer(200, indexType, []byte(`{"schemaVersion":2,"manifests":[]}`))), asked: "r"},
		"the API lists null":       {opts: registrytest.Options{Referrers: true}, change: answer(registrytest.Answer(200, indexType, []byte(`{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":null}`))), asked: "r"},
		"API 400":                  {change: answer(registrytest.Status(400)), want: []int{0, 2, 4}, asked: "rm"},
		"API 403":                  {change: answer(registrytest.Status(403)), want: []int{0, 2, 4}, asked: "rm"},
		"API 405":                  {change: answer(registrytest.Status(405)), want: []int{0, 2, 4}, asked: "rm"},
		"API 500":                  {change: answer(registrytest.Status(500)), want: []int{0, 2, 4}, asked: "rm"},
		"API 501":                  {change: answer(registrytest.Status(501)), want: []int{0, 2, 4}, asked: "rm"},
		"API is a web page":        {change: answer(registrytest.Page()), want: []int{0, 2, 4}, asked: "rm"},
		"API answers {}":           {change: answer(registrytest.Answer(200, "application/json", []byte("{}"))), want: []int{0, 2, 4}, asked: "rm"},
		"API answers an image":     {change: answer(registrytest.Answer(200, manifestType, []byte(testManifest))), want: []int{0, 2, 4}, asked: "rm"},
		"API lists no descriptors": {change: answer(registrytest.Answer(200, indexType, []byte(`{"schemaVersion":2,"manifests":[1,"x"]}`))), want: []int{0, 2, 4}, asked: "rm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, &tc.opts)
			subject := subjectOf(s)
			var all []ocispec.Descriptor
			for i := range 5 {
				all = append(all, s.PutArtifact("app", "", artifact([]string{oneType, otherType}[i%2], i, &subject)))
			}
			if tc.change != nil {
				tc.change(s, subject)
			}
			list, err := open(t, s, fast()).Referrers(t.Context(), subject.Digest, oneType)
			if err != nil {
				t.Fatal(err)
			}
			var want []digest.Digest
			for _, i := range tc.want {
				want = append(want, all[i].Digest)
			}
			slices.Sort(want)
			if got := digests(list); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			asked := ""
			for _, rec := range s.Requests(registrytest.Referrers, registrytest.Manifest) {
				asked += string(rec.Kind[:1])
			}
			if asked != tc.asked {
				t.Errorf("asked %q, want %q", asked, tc.asked)
			}
		})
	}
}

const indexType = ocispec.MediaTypeImageIndex

func fallback(subject digest.Digest) string { return strings.Replace(subject.String(), ":", "-", 1) }

// answer has the API answer with a fault.
func answer(f registrytest.Fault) func(*registrytest.Server, ocispec.Descriptor) {
	return func(s *registrytest.Server, _ ocispec.Descriptor) {
		s.Inject(registrytest.Referrers, registrytest.Always(f))
	}
}

// Those whose type is not said are listed, and those of all types if none is asked for.
func TestReferrersOfUnknownType(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t, nil)
	subject := subjectOf(s)
	one := s.PutArtifact("app", "", artifact(oneType, 1, &subject))
	silent := one
	silent.Digest, silent.ArtifactType = digest.FromString("silent"), ""
	other := s.PutArtifact("app", "", artifact(otherType, 1, &subject))
	other.ArtifactType, one.ArtifactType = otherType, oneType
	index := one
	index.Digest, index.MediaType = digest.FromString("an image index"), indexType
	broken := one
	broken.Digest = "sha256:../../x"
	s.PutFallback("app", subject.Digest, one, silent, other, index, one, broken)
	r := open(t, s, fast())
	for asked, want := range map[string][]ocispec.Descriptor{oneType: {one, silent}, otherType: {silent, other}, "": {one, silent, other}, "a/b": {silent}} {
		list, err := r.Referrers(t.Context(), subject.Digest, asked)
		if err != nil || !slices.Equal(digests(list), digests(want)) {
			t.Errorf("%q: got %v and error %v, want %v", asked, digests(list), err, digests(want))
		}
	}
	if _, err := r.Referrers(t.Context(), "latest", ""); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("of no digest: got error %v, want %v", err, remote.ErrDigest)
	}
}

// Lists without an end, and those that are longer than any should be, are cut off.
func TestReferrersBounds(t *testing.T) {
	t.Parallel()
	subject := digest.FromString(testManifest)
	entry := func(i int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1,"artifactType":%q}`, manifestType, sumOf(fmt.Sprint(i)), oneType)
	}
	var entries []string
	for i := range 20_000 {
		entries = append(entries, entry(i))
	}
	list := `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
	for name, tc := range map[string]struct {
		fault func(s *registrytest.Server) registrytest.Fault
		want  int
		asked int
	}{
		"many entries": {func(*registrytest.Server) registrytest.Fault {
			return registrytest.Answer(200, indexType, []byte(list))
		}, remote.MaxReferrers, 1},
		"an empty page and another and another": {func(*registrytest.Server) registrytest.Fault {
			return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
				w.Header().Set("Link", `</v2/app/referrers/`+subject.String()+`?page=1`+r.URL.Query().Get("page")+`>; rel="next"`)
				registrytest.Answer(200, indexType, []byte(`{"schemaVersion":2,"manifests":[]}`))(w, r, nil)
			}
		}, 0, 16},
		"a page that leads elsewhere": {func(*registrytest.Server) registrytest.Fault {
			return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
				if !r.URL.Query().Has("x") {
					w.Header().Set("Link", `<http://169.254.169.254/v2/other/referrers/x?x=1>; rel="next"`)
				}
				registrytest.Answer(200, indexType, []byte(`{"schemaVersion":2,"manifests":[`+entry(len(r.URL.Query()["x"]))+`]}`))(w, r, nil)
			}
		}, 2, 2},
		"an endless page": {func(s *registrytest.Server) registrytest.Fault {
			return s.Endless(indexType, []byte(`{"schemaVersion":2,"manifests":[`+entry(1)+","))
		}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, &registrytest.Options{Referrers: true})
			s.Inject(registrytest.Referrers, registrytest.Always(tc.fault(s)))
			found, err := open(t, s, fast()).Referrers(t.Context(), subject, oneType)
			if err != nil || len(found) != tc.want {
				t.Errorf("got %d and error %v, want %d", len(found), err, tc.want)
			}
			if n := s.Count(registrytest.Referrers); n != tc.asked {
				t.Errorf("asked %d times, want %d", n, tc.asked)
			}
			if n := s.Bytes(); n > 64<<20 {
				t.Errorf("%d bytes came", n)
			}
		})
	}
}

// TestArtifactFaults has what goes wrong where something beside an image is asked for:
// each is one of remote's errors, soon.
func TestArtifactFaults(t *testing.T) {
	t.Parallel()
	type server = *registrytest.Server
	garbage := noise(3, 100_000)
	for name, tc := range map[string]struct {
		fault           func(s server) registrytest.Fault
		tag, list, open error // of ResolveTag, Referrers, and OpenArtifact by digest
	}{
		"401":          {func(server) registrytest.Fault { return registrytest.Status(401) }, remote.ErrUnauthorized, remote.ErrUnauthorized, remote.ErrUnauthorized},
		"403":          {func(server) registrytest.Fault { return registrytest.Status(403) }, remote.ErrUnauthorized, remote.ErrUnauthorized, remote.ErrUnauthorized},
		"404":          {func(server) registrytest.Fault { return registrytest.Status(404) }, remote.ErrNotFound, nil, remote.ErrNotFound},
		"429":          {func(server) registrytest.Fault { return registrytest.Status(429, "Retry-After", "3600") }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"500":          {func(server) registrytest.Fault { return registrytest.Status(500) }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"hangs":        {func(s server) registrytest.Fault { return s.Stall(-1) }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"hangs within": {func(s server) registrytest.Fault { return s.Stall(10) }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"breaks off":   {func(server) registrytest.Fault { return registrytest.Truncate(10) }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"resets":       {func(server) registrytest.Fault { return registrytest.Reset(-1) }, remote.ErrUnavailable, remote.ErrUnavailable, remote.ErrUnavailable},
		"a web page":   {func(server) registrytest.Fault { return registrytest.Page() }, remote.ErrUnavailable, nil, remote.ErrDigest},
		"garbage":      {func(server) registrytest.Fault { return registrytest.Answer(200, manifestType, garbage) }, remote.ErrUnavailable, nil, remote.ErrDigest},
		"nothing":      {func(server) registrytest.Fault { return registrytest.Answer(200, manifestType, nil) }, remote.ErrUnavailable, nil, remote.ErrDigest},
		"endless":      {func(s server) registrytest.Fault { return s.Endless(manifestType, []byte(`{"x":"`)) }, remote.ErrDigest, nil, remote.ErrDigest},
		"another digest": {func(server) registrytest.Fault {
			return registrytest.Answer(200, manifestType, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
		}, nil, nil, remote.ErrDigest},
		"a redirect to nowhere": {func(server) registrytest.Fault { return registrytest.Redirect("") }, remote.ErrUnavailable, nil, remote.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			subject := subjectOf(s)
			desc := s.PutArtifact("app", "tag", artifact(oneType, 1, &subject))
			fault := tc.fault(s)
			for _, kind := range []registrytest.Kind{registrytest.Manifest, registrytest.Referrers} {
				s.Inject(kind, registrytest.Always(fault))
			}
			opts := fast()
			opts.MirrorTimeout = time.Second
			for _, ask := range []struct {
				name string
				ask  func(r *registry.Repository) error
				want error
			}{
				{"tag", func(r *registry.Repository) error { _, err := r.ResolveTag(t.Context(), "tag"); return err }, tc.tag},
				{"referrers", func(r *registry.Repository) error {
					list, err := r.Referrers(t.Context(), subject.Digest, oneType)
					if len(list) > 0 {
						t.Errorf("got %v", list)
					}
					return err
				}, tc.list},
				{"artifact", func(r *registry.Repository) error {
					s.Inject(registrytest.Manifest, nil)
					if _, err := r.ResolveTag(t.Context(), "tag"); err != nil {
						t.Fatal(err)
					}
					if _, err := remote.OpenArtifact(t.Context(), r, desc); err != nil {
						t.Fatal(err)
					}
					s.Inject(registrytest.Manifest, registrytest.Always(fault))
					_, err := remote.OpenArtifact(t.Context(), r, desc)
					return err
				}, tc.open},
			} {
				begun := time.Now()
				err := ask.ask(open(t, s, opts))
				if !errors.Is(err, ask.want) || (err == nil) != (ask.want == nil) {
					t.Errorf("%s: got error %v, want %v", ask.name, err, ask.want)
				}
				if err != nil && !strings.Contains(err.Error(), s.Host()+"/app") {
					t.Errorf("%s: error %v does not name the repository", ask.name, err)
				}
				if took := time.Since(begun); took > 6*time.Second {
					t.Errorf("%s: it took %s", ask.name, took)
				}
			}
		})
	}
}

// Whoever gives up waiting is not kept.
func TestArtifactsCancelled(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t, nil)
	s.Inject(registrytest.Manifest, registrytest.Always(s.Stall(-1)))
	s.Inject(registrytest.Referrers, registrytest.Always(s.Stall(-1)))
	r := open(t, s, fast())
	for name, ask := range map[string]func(context.Context) error{
		"tag":       func(ctx context.Context) error { _, err := r.ResolveTag(ctx, "tag"); return err },
		"referrers": func(ctx context.Context) error { _, err := r.Referrers(ctx, digest.FromString("x"), ""); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begun := time.Now()
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got error %v, want %v", name, err, context.DeadlineExceeded)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		cancel()
	}
}

// A mirror that has the image and nothing beside it is asked for the image afterwards,
// and one that has more decides first.
func TestArtifactsAndMirrors(t *testing.T) {
	t.Parallel()
	for _, mirrorHas := range []bool{false, true} {
		mirror, upstream := registrytest.New(t, nil), registrytest.New(t, nil)
		content := noise(7, 100_000)
		layer := noise(8, 50_000)
		var image, beside ocispec.Descriptor
		var found [2]ocispec.Descriptor
		for i, s := range []*registrytest.Server{mirror, upstream} {
			subject := subjectOf(s)
			image = s.PutBlob("a/b", content)
			if i == 1 || mirrorHas {
				m := artifact(oneType, i, &subject)
				beside = s.PutBlob("a/c", layer)
				m.Layers = []ocispec.Descriptor{beside}
				found[i] = s.PutArtifact("app", "tag", m)
			}
		}
		opts := fast()
		opts.Sites = registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", upstream.Host(), mirror.Host()))
		r := open(t, upstream, opts)
		want := found[1].Digest
		if mirrorHas {
			want = found[0].Digest
		}
		desc, err := r.ResolveTag(t.Context(), "tag")
		if err != nil || desc.Digest != want {
			t.Fatalf("mirror %t: got %s and error %v, want %s", mirrorHas, desc.Digest, err, want)
		}
		if list, err := r.Referrers(t.Context(), digest.FromString(testManifest), ""); err != nil || len(list) != 1 || list[0].Digest != want {
			t.Errorf("mirror %t: got %v and error %v, want %s", mirrorHas, list, err, want)
		}
		if _, err := remote.OpenArtifact(t.Context(), r, desc); err != nil {
			t.Errorf("mirror %t: %v", mirrorHas, err)
		}
		if _, err := remote.OpenArtifact(t.Context(), r, desc); err != nil {
			t.Errorf("mirror %t: %v", mirrorHas, err)
		}
		if err := check(t.Context(), blobOf(t, r, beside), layer, 0, len(layer)); err != nil {
			t.Errorf("mirror %t: %v", mirrorHas, err)
		}
		upstream.Forget()
		if err := check(t.Context(), blobOf(t, r, image), content, 0, len(content)); err != nil {
			t.Errorf("mirror %t: %v", mirrorHas, err)
		}
		if n := upstream.Count(); n > 0 {
			t.Errorf("mirror %t: upstream got %d requests for the image", mirrorHas, n)
		}
	}
}

// One login does for all that is asked for in a repository.
func TestArtifactsLogin(t *testing.T) {
	t.Parallel()
	s, opts := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, User: "u", Password: "p", Referrers: true}), fast()
	opts.Credential = func(context.Context, string, string) (hosts.Credential, error) {
		return hosts.Credential{User: "u", Password: "p"}, nil
	}
	subject := subjectOf(s)
	s.PutArtifact("app", "tag", artifact(oneType, 1, &subject))
	r := open(t, s, opts)
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ResolveTag(t.Context(), "tag"); err != nil {
		t.Error(err)
	}
	if list, err := r.Referrers(t.Context(), subject.Digest, oneType); err != nil || len(list) != 1 {
		t.Errorf("got %v and error %v", list, err)
	}
	if n := s.Count(registrytest.Token); n != 1 {
		t.Errorf("%d tokens were asked for, want 1", n)
	}
	var refused int
	for _, rec := range s.Requests(registrytest.Manifest, registrytest.Referrers) {
		if rec.Status == http.StatusUnauthorized {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d requests were refused, want 1", refused)
	}
}
