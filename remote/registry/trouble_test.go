package registry_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A credSwitch is a credential that a test changes.
type credSwitch struct {
	mu    sync.Mutex
	cred  hosts.Credential
	err   error
	asked int
}

func (c *credSwitch) set(cred hosts.Credential, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cred, c.err = cred, err
}

func (c *credSwitch) get(context.Context, string, string) (hosts.Credential, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return c.cred, c.err
}

// broken is what hosts says of files and helpers that are of no use.
func broken(loud bool, text string) error {
	return &hosts.BrokenError{Reasons: []error{errors.New(text)}, Loud: loud}
}

// A helper breaks and is mended while an image is read: whoever gives tokens to
// strangers goes on, and one warning says what is wrong, until that changes.
func TestBrokenCredentialWarning(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	content := noise(1, blobSize)
	layer := s.PutBlob(ocispec.MediaTypeImageLayer, content)
	opts := fast()
	var warned lines
	opts.Warnf = warned.printf
	var cred credSwitch
	opts.Credential = cred.get
	b := blobOf(t, open(t, s, opts), layer)
	for _, step := range []struct {
		err  error
		want string // all warnings so far
	}{
		{broken(true, "/f: helper h: cloud login"), "/f: helper h: cloud login; going on without it"},
		{broken(true, "/f: helper h: cloud login"), "/f: helper h: cloud login; going on without it"},
		{nil, "/f: helper h: cloud login; going on without it"},
		{broken(false, "not installed"), "/f: helper h: cloud login; going on without it"},
		{broken(true, "/f: helper h: cloud login"), strings.Repeat("/f: helper h: cloud login; going on without it\n", 2)},
		{errors.New("https://x.example/?secret=1 is broken"), strings.Repeat("/f: helper h: cloud login; going on without it\n", 2) + "https://x.example/ is broken; going on without it"},
	} {
		cred.set(hosts.Credential{}, step.err)
		for range 2 {
			s.RevokeTokens()
			readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
		}
		if got := warned.all(); got != strings.TrimSpace(step.want) {
			t.Errorf("with %v: warned of\n%s\nwant\n%s", step.err, got, step.want)
		}
	}
	// Another place has a credential, and the broken one is told nevertheless.
	cred.set(hosts.Credential{User: "u", Password: "p"}, broken(true, "second"))
	s.RevokeTokens()
	readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
	if got := warned.all(); strings.Count(got, "second; going on without it") != 1 {
		t.Errorf("warned of %s", got)
	}
}

// What a registry that wants a login says stands beside what was wrong with the
// credential for it.
func TestBrokenCredentialRefused(t *testing.T) {
	const words = "/f: helper h: cloud login"
	user := hosts.Credential{User: "u", Password: "secret-p", Origin: "/home/f"}
	for _, tc := range []struct {
		name   string
		server registrytest.Options
		keeper *doorkeeper
		cred   hosts.Credential
		err    error
		class  error
		says   []string
	}{
		{name: "Basic", server: registrytest.Options{Login: registrytest.Basic}, err: broken(true, words), class: registry.ErrBrokenCredential,
			says: []string{words + "; without it: ", "wants a login, and there is no credential for it"}},
		{name: "quiet", server: registrytest.Options{Login: registrytest.Basic}, err: broken(false, words), class: registry.ErrBrokenCredential, says: []string{words}},
		{name: "Bearer", server: registrytest.Options{Login: registrytest.Bearer, User: "x"}, err: broken(true, words), class: registry.ErrBrokenCredential,
			says: []string{words + "; without it: the token server ", "answers 401 Unauthorized"}},
		{name: "hidden with 403", keeper: &doorkeeper{status: 403}, err: broken(true, words), class: registry.ErrBrokenCredential, says: []string{words + "; without it: 403 Forbidden"}},
		{name: "hidden with 404", keeper: &doorkeeper{status: 404}, err: broken(true, words), class: remote.ErrNotFound, says: []string{words + "; without it: "}},
		{name: "a token that does not help", keeper: &doorkeeper{challenges: []string{bearerHere}}, err: broken(true, words), class: registry.ErrBrokenCredential,
			says: []string{words + "; without it: 401 Unauthorized"}},
		{name: "another is refused", server: registrytest.Options{Login: registrytest.Basic}, cred: user, err: broken(true, words), class: registry.ErrBrokenCredential,
			says: []string{words + "; without it: 401 Unauthorized", "the credential of /home/f is refused"}},
		{name: "another is refused for a token", server: registrytest.Options{Login: registrytest.Bearer, User: "x"}, cred: user, err: broken(true, words), class: registry.ErrRefusedCredential,
			says: []string{words + "; the token server ", " refuses the credential of /home/f: 401 Unauthorized"}},
		{name: "refused", server: registrytest.Options{Login: registrytest.Basic}, cred: user, class: registry.ErrRefusedCredential,
			says: []string{"401 Unauthorized", "; the credential of /home/f is refused"}},
		{name: "refused, of no known origin", server: registrytest.Options{Login: registrytest.Basic}, cred: hosts.Credential{User: "u"}, class: registry.ErrRefusedCredential,
			says: []string{"; the credential is refused"}},
		{name: "refused for a token", server: registrytest.Options{Login: registrytest.Bearer, User: "x"}, cred: user, class: registry.ErrRefusedCredential,
			says: []string{"the token server 127.0.0.1", " refuses the credential of /home/f: 401 Unauthorized"}},
		{name: "identity token refused", server: registrytest.Options{Login: registrytest.Bearer, User: "x"}, cred: hosts.Credential{IdentityToken: "secret-i", Origin: "h"}, class: registry.ErrRefusedCredential,
			says: []string{" refuses the credential of h: 401 Unauthorized"}},
		{name: "taken, and of no help", keeper: &doorkeeper{challenges: []string{bearerHere}}, cred: user, class: remote.ErrUnauthorized,
			says: []string{"401 Unauthorized; it was asked with the credential of /home/f"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, &tc.server)
			if tc.keeper != nil {
				s = guarded(t, nil, nil, tc.keeper)
			}
			opts := fast()
			opts.Credential = knows(tc.cred, tc.err)
			var warned lines
			opts.Warnf = warned.printf
			_, err := open(t, s, opts).Resolve(t.Context())
			if !errors.Is(err, tc.class) || errors.Is(tc.class, remote.ErrUnauthorized) && (!errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), ": unauthorized: ")) {
				t.Fatalf("got error %v, want %v", err, tc.class)
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("got error %v, want it to say %q", err, text)
				}
			}
			if strings.Contains(err.Error(), "secret") || strings.Count(err.Error(), words) > 1 {
				t.Errorf("got error %v, which tells a secret or says something twice", err)
			}
			if got := warned.all(); got != "" {
				t.Errorf("warned of %s, which the error says", got)
			}
		})
	}
}

// A credential that the token server refuses does not stand before an image that
// is for everybody.
func TestRefusedCredentialOfPublicImage(t *testing.T) {
	for _, cred := range []hosts.Credential{{User: "u", Password: "secret-old", Origin: "/f"}, {IdentityToken: "secret-old", Origin: "/f"}} {
		for _, status := range []int{400, 401, 403} {
			s := guarded(t, nil, nil, &doorkeeper{challenges: []string{bearerHere}, taken: []string{"Bearer T"}})
			giveTokens(s, func(r *http.Request) (int, string) {
				if r.Header.Get("Authorization") != "" || r.Method == http.MethodPost {
					return status, `{"errors":[{"message":"no such user"}]}`
				}
				return 200, `{"token":"T"}`
			})
			opts := fast()
			var warned lines
			opts.Warnf = warned.printf
			opts.Credential = knows(cred, nil)
			if _, err := open(t, s, opts).Resolve(t.Context()); err != nil {
				t.Error(err)
			}
			if got := warned.all(); !strings.Contains(got, "the token server "+s.Host()+" refuses the credential of /f: ") || !strings.HasSuffix(got, "no such user; going on without it") || strings.Contains(got, "secret") {
				t.Errorf("%d: warned of %s", status, got)
			}
		}
	}
}

// A stranger's token, which was got for want of a credential, is given up when it
// is refused, in whatever way: the credential may be there again.
func TestCredentialComesBack(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		private := false
		s := guarded(t, nil, nil, &doorkeeper{})
		s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			keeper := &doorkeeper{challenges: []string{bearerHere}, taken: []string{"Bearer known"}}
			switch r.Header.Get("Authorization") {
			case "Bearer stranger":
				if private {
					keeper.status, keeper.challenges = status, nil
				} else {
					keeper.taken = append(keeper.taken, "Bearer stranger")
				}
			}
			keeper.fault(w, r, serve)
		}))
		giveTokens(s, func(r *http.Request) (int, string) {
			if r.Header.Get("Authorization") != "" {
				return 200, `{"token":"known"}`
			}
			return 200, `{"token":"stranger"}`
		})
		opts := fast()
		var cred credSwitch
		cred.set(hosts.Credential{}, broken(true, "broken"))
		opts.Credential = cred.get
		content := noise(1, blobSize)
		b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		if err := check(t.Context(), b, content, 0, 100); err != nil {
			t.Fatal(err)
		}
		private = true
		if err := check(t.Context(), b, content, 0, 100); err == nil || !strings.Contains(err.Error(), "broken; without it: ") {
			t.Errorf("%d: got error %v", status, err)
		}
		cred.set(hosts.Credential{User: "u", Password: "p"}, nil)
		if err := check(t.Context(), b, content, 0, 100); err != nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Where HEAD is answered by a demand to log in GET may be served, and if it is
// refused as well the registry may say why. A helper of no use is asked once for both.
func TestBrokenCredentialIsAskedForOnce(t *testing.T) {
	for _, open := range []bool{false, true} {
		s := registrytest.New(t, nil)
		want := putImage(s, nil)
		s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if open && r.Method == http.MethodGet {
				serve(w, r)
				return
			}
			w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			if r.Method == http.MethodGet {
				_, _ = w.Write([]byte(`{"errors":[{"message":"ask the help desk"}]}`))
			}
		}))
		opts := fast()
		cred := credSwitch{err: broken(true, "/f: helper h: cloud login")}
		opts.Credential = cred.get
		client := registry.New(opts)
		desc, err := client.Repository(reference(s)).Resolve(t.Context())
		client.Close()
		if open && (err != nil || desc.Digest != want.Digest) {
			t.Errorf("GET is served: got %v and error %v", desc, err)
		}
		if !open {
			for _, text := range []string{"/f: helper h: cloud login; without it: ", "wants a login", "ask the help desk"} {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("got error %v, want it to say %q", err, text)
				}
			}
		}
		if cred.asked != 1 {
			t.Errorf("the helper was asked %d times", cred.asked)
		}
	}
}
