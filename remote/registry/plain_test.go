package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A registry that is spoken to by https leads to plain http, in each way that it
// can: that is refused at once, with both URLs, unless the user lets the registry
// be insecure.
func TestHTTPSToHTTP(t *testing.T) {
	yes, no := true, false
	content := noise(1, 1000)
	ways := map[string]func(s, plain *registrytest.Server, path string){
		"blob": func(s, plain *registrytest.Server, path string) {
			s.Inject(registrytest.Blob, registrytest.Always(registrytest.Redirect(plain.URL()+path+"?sig=secret")))
		},
		"blob by way of storage": func(s, plain *registrytest.Server, path string) {
			s.Inject(registrytest.CDN, registrytest.Always(registrytest.Redirect(plain.URL()+path+"?sig=secret")))
		},
		"manifest": func(s, plain *registrytest.Server, _ string) {
			s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
				registrytest.Redirect(plain.URL()+r.URL.Path+"?sig=secret")(w, r, nil)
			}))
		},
		"realm": func(s, plain *registrytest.Server, _ string) {
			s.Inject(registrytest.Manifest, registrytest.Always((&doorkeeper{challenges: []string{fmt.Sprintf(`Bearer realm="%s/token?sig=secret"`, plain.URL())}, taken: []string{"Bearer T"}}).fault))
			giveTokens(plain, func(*http.Request) (int, string) { return 200, `{"token":"T"}` })
		},
		"token server": func(s, plain *registrytest.Server, _ string) {
			s.Inject(registrytest.Manifest, registrytest.Always((&doorkeeper{challenges: []string{`Bearer realm="https://ADDR/token"`}, taken: []string{"Bearer T"}}).fault))
			s.Inject(registrytest.Token, registrytest.Always(registrytest.Redirect(plain.URL()+"/token?sig=secret")))
			giveTokens(plain, func(*http.Request) (int, string) { return 200, `{"token":"T"}` })
		},
	}
	for _, tc := range []struct {
		name    string
		conf    func(host, plain string) hosts.SiteFunc
		verify  *bool
		allowed bool
	}{
		{name: "nothing"},
		{name: "--tls-verify=true", verify: &yes},
		{name: "--tls-verify=false", verify: &no, allowed: true},
		{name: "insecure", allowed: true, conf: func(host, _ string) hosts.SiteFunc {
			return registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true", host))
		}},
		{name: "insecure, --tls-verify=true", verify: &yes, conf: func(host, _ string) hosts.SiteFunc {
			return registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true", host))
		}},
		{name: "the other is insecure", allowed: true, conf: func(_, plain string) hosts.SiteFunc {
			return registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true", plain))
		}},
		{name: "the other is insecure, --tls-verify=true", verify: &yes, conf: func(_, plain string) hosts.SiteFunc {
			return registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true", plain))
		}},
		{name: "the other is in insecure-registries", allowed: true, conf: func(_, plain string) hosts.SiteFunc {
			return daemonJSON(t, fmt.Sprintf(`{"insecure-registries": [%q]}`, plain))
		}},
		{name: "the other is blocked", conf: func(_, plain string) hosts.SiteFunc {
			return registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\nblocked = true", plain))
		}},
		{name: "insecure is a third", conf: func(host, _ string) hosts.SiteFunc {
			return registriesConf(t, "[[registry]]\nlocation = \"r.example\"\ninsecure = true")
		}},
		{name: "skip_verify", allowed: true, conf: func(host, _ string) hosts.SiteFunc { return hostsToml(t, host, "skip_verify = true") }},
		{name: "insecure-registries", allowed: true, conf: func(host, _ string) hosts.SiteFunc {
			return daemonJSON(t, fmt.Sprintf(`{"insecure-registries": [%q]}`, host))
		}},
	} {
		for way, lead := range ways {
			t.Run(tc.name+"/"+way, func(t *testing.T) {
				s, plain := registrytest.New(t, &registrytest.Options{TLS: true, CDN: true}), registrytest.New(t, nil)
				opts := fast()
				trust(t, s, opts)
				if opts.TLSVerify = tc.verify; tc.conf != nil {
					opts.Sites = tc.conf(s.Host(), plain.Host())
				}
				opts.Credential = knows(hosts.Credential{User: "u", Password: "secret-p", Origin: "/f"}, nil)
				var layer ocispec.Descriptor
				for _, server := range []*registrytest.Server{s, plain} {
					server.Tag("app", "latest", server.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
					layer = server.PutBlob(ocispec.MediaTypeImageLayer, content)
				}
				lead(s, plain, "/v2/app/blobs/"+layer.Digest.String())
				r := open(t, s, opts)
				begun := time.Now()
				_, err := r.Resolve(t.Context())
				if err == nil {
					err = check(t.Context(), blobOf(t, r, layer), content, 0, 100)
				}
				if tc.allowed {
					if err != nil {
						t.Error(err)
					}
					for _, req := range plain.Requests(registrytest.Blob, registrytest.Manifest) {
						if req.Header.Get("Authorization") != "" {
							t.Errorf("%s was sent a credential", req.Path)
						}
					}
					return
				}
				if !errors.Is(err, registry.ErrPlainHTTP) || !errors.Is(err, remote.ErrUnavailable) || registry.NoAnswer(err) || registry.HostOf(err) != s.Host() {
					t.Fatalf("got error %v about %q, want %v about %s", err, registry.HostOf(err), registry.ErrPlainHTTP, s.Host())
				}
				if text := err.Error(); !strings.Contains(text, "https://127.0.0.1:") || !strings.Contains(text, " leads to "+plain.URL()+"/") || strings.Contains(text, "secret") {
					t.Errorf("got error %v, want one with both URLs and no query", err)
				}
				if n := s.Count(); n > 5 || time.Since(begun) > time.Second {
					t.Errorf("got %d requests in %s, want it at once", n, time.Since(begun))
				}
				if n := plain.Count(); n > 0 {
					t.Errorf("got %d requests by plain http, want none", n)
				}
			})
		}
	}
}

// A realm, or a redirect, by plain http to the server itself is taken for one by
// https: it stands behind what ends TLS, and does not know.
func TestOwnHostByHTTP(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true})
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	keeper := &doorkeeper{challenges: []string{bearerHere}, taken: []string{"Bearer T"}}
	s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.URL.Query().Has("moved") {
			keeper.fault(w, r, serve)
			return
		}
		registrytest.Redirect("http://"+r.Host+r.URL.Path+"?moved=1")(w, r, serve)
	}))
	giveTokens(s, func(r *http.Request) (int, string) {
		if _, password, _ := r.BasicAuth(); password != "p" {
			return 401, "{}"
		}
		return 200, `{"token":"T"}`
	})
	opts := fast()
	trust(t, s, opts)
	opts.Credential = knows(hosts.Credential{User: "u", Password: "p"}, nil)
	if _, err := open(t, s, opts).Resolve(t.Context()); err != nil {
		t.Error(err)
	}
}

// A password goes by plain http only where somebody said so, or to this machine.
func TestPasswordByHTTP(t *testing.T) {
	no := false
	for _, cred := range []hosts.Credential{{User: "u", Password: "secret-p", Origin: "/f"}, {IdentityToken: "secret-i", Origin: "/f"}, {}} {
		for _, verify := range []*bool{nil, &no} {
			s := guarded(t, nil, nil, &doorkeeper{challenges: []string{`Bearer realm="http://token.example/token"`}, taken: []string{"Bearer T"}})
			giveTokens(s, func(*http.Request) (int, string) { return 200, `{"token":"T"}` })
			opts := fast()
			opts.TLSVerify = verify
			opts.Credential = knows(cred, nil)
			// The proxy stands for the network: whatever is asked for is at s.
			proxy, err := url.Parse(s.URL())
			if err != nil {
				t.Fatal(err)
			}
			opts.Proxy = func(r *http.Request) (*url.URL, error) {
				if r.URL.Host == s.Host() {
					return nil, nil
				}
				return proxy, nil
			}
			_, err = open(t, s, opts).Resolve(t.Context())
			refused := verify == nil && !cred.Empty()
			if (err != nil) != refused {
				t.Errorf("%v, TLSVerify %v: got error %v, want one: %t", cred, verify, err, refused)
			}
			if refused && (!errors.Is(err, registry.ErrPlainHTTP) || !strings.Contains(err.Error(), "the credential of /f is not sent to http://token.example/token") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got error %v, want %v", err, registry.ErrPlainHTTP)
			}
			if n := s.Count(registrytest.Token); refused && n > 0 {
				t.Errorf("got %d requests for a token, want none", n)
			}
		}
	}
}
