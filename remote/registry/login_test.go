package registry_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A doorkeeper lets in whoever shows one of taken, and answers others with a
// status and challenges, in which ADDR stands for the server.
type doorkeeper struct {
	status     int // default: 401
	challenges []string
	taken      []string // values of Authorization
}

func (d *doorkeeper) fault(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	if shown := r.Header.Get("Authorization"); shown != "" && slices.Contains(d.taken, shown) {
		serve(w, r)
		return
	}
	for _, c := range d.challenges {
		w.Header().Add("WWW-Authenticate", strings.ReplaceAll(c, "ADDR", r.Host))
	}
	w.WriteHeader(cmp.Or(d.status, http.StatusUnauthorized))
}

// guarded returns a server with the image app:latest before which doorkeepers
// stand: at where the API begins, and at all else. nil is none.
func guarded(t *testing.T, opts *registrytest.Options, root, rest *doorkeeper) *registrytest.Server {
	t.Helper()
	s := registrytest.New(t, opts)
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	if root != nil {
		s.Inject(registrytest.Ping, registrytest.Always(root.fault))
	}
	for _, kind := range []registrytest.Kind{registrytest.Manifest, registrytest.Blob, registrytest.Tags} {
		s.Inject(kind, registrytest.Always(rest.fault))
	}
	return s
}

// giveTokens has the server's tokens be given by f: a body, for what was shown.
func giveTokens(s *registrytest.Server, f func(r *http.Request) (status int, body string)) {
	s.Inject(registrytest.Token, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		status, body := f(r)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
}

func knows(cred hosts.Credential, err error) hosts.CredentialFunc {
	return func(context.Context, string, string) (hosts.Credential, error) { return cred, err }
}

const bearerHere = `Bearer realm="http://ADDR/token",service="s"`

// Several challenges, in one header or in several, of which some cannot be
// answered; a token is preferred, as strangers may get one.
func TestChallengesAnswered(t *testing.T) {
	const basic, token = "Basic dTpw", "Bearer T"
	user := hosts.Credential{User: "u", Password: "p"}
	for _, tc := range []struct {
		name       string
		challenges []string
		cred       hosts.Credential
		taken      string
		tokens     int // requests for one
		says       string
	}{
		{name: "Basic", challenges: []string{`Basic realm="x"`}, cred: user, taken: basic},
		{name: "Basic without realm", challenges: []string{"basic"}, cred: user, taken: basic},
		{name: "Basic without a password", challenges: []string{"Basic"}, cred: hosts.Credential{User: "u"}, taken: "Basic dTo="},
		{name: "Negotiate, Basic", challenges: []string{"Negotiate", `Basic realm="x"`}, cred: user, taken: basic},
		{name: "Digest, Basic", challenges: []string{`Digest realm="x", qop="auth", nonce="n"`, `Basic realm="x"`}, cred: user, taken: basic},
		{name: "in one header", challenges: []string{`Negotiate abc==, NTLM, Kerberos, Basic realm="x"`}, cred: user, taken: basic},
		{name: "malformed, Basic", challenges: []string{`"`, `Bearer realm="`, `Basic realm=x`}, cred: user, taken: basic},
		{name: "Basic, Bearer, a stranger", challenges: []string{`Basic realm="x"`, bearerHere}, taken: token, tokens: 1},
		{name: "Basic, Bearer in one header, a stranger", challenges: []string{`Basic realm="x", ` + bearerHere}, taken: token, tokens: 1},
		{name: "Basic, Bearer", challenges: []string{`Basic realm="x", ` + bearerHere}, cred: user, taken: token, tokens: 1},
		{name: "capitals", challenges: []string{`BEARER REALM="http://ADDR/token",SERVICE="s"`}, taken: token, tokens: 1},
		{name: "spaces", challenges: []string{"Bearer\trealm = \"http://ADDR/token\" ,, service\t=\ts"}, taken: token, tokens: 1},
		{name: "escapes", challenges: []string{`Bearer realm="http:\/\/ADDR/token", error_description="a \"b\", c", service="s"`}, taken: token, tokens: 1},
		{name: "unquoted", challenges: []string{`Bearer realm=http://ADDR/token, service=s`}, taken: token, tokens: 1},
		{name: "token is refused, Basic", challenges: []string{bearerHere, "Basic"}, cred: user, taken: basic, tokens: 1},
		{name: "realm missing, Basic", challenges: []string{"Bearer", "Basic"}, cred: user, taken: basic},
		{name: "realm missing, another", challenges: []string{`Bearer realm=""`, bearerHere}, taken: token, tokens: 1},
		{name: "identity token, Basic", challenges: []string{"Basic"}, cred: hosts.Credential{IdentityToken: "i", Origin: "/f"}, says: "wants user and password, and the credential of /f has none"},
		{name: "Basic, a stranger", challenges: []string{"Basic"}, says: "wants a login, and there is no credential for it"},
		{name: "Negotiate", challenges: []string{"Negotiate", "NTLM, Negotiate"}, cred: user, says: "wants a login by negotiate, ntlm, and imgfs has only Basic and Bearer"},
		{name: "nothing helps", challenges: []string{bearerHere, "Basic"}, cred: user, taken: "none", tokens: 1, says: "401 Unauthorized"},
		{name: "registry token", challenges: []string{bearerHere}, cred: hosts.Credential{RegistryToken: "T"}, taken: token},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := guarded(t, nil, nil, &doorkeeper{challenges: tc.challenges, taken: []string{tc.taken}})
			giveTokens(s, func(r *http.Request) (int, string) {
				if service := r.URL.Query().Get("service"); service != "s" {
					t.Errorf("asked for a token for the service %q, want s", service)
				}
				return 200, `{"token":"T"}`
			})
			opts := fast()
			opts.Credential, opts.MaxRequests = knows(tc.cred, nil), 1 // no answer holds up the next request
			r := open(t, s, opts)
			_, err := r.Resolve(t.Context())
			if tc.says == "" && err != nil {
				t.Error(err)
			}
			if tc.says != "" && (!errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got error %v, want %v with %q", err, remote.ErrUnauthorized, tc.says)
			}
			if n := s.Count(registrytest.Token); n != tc.tokens {
				t.Errorf("got %d requests for a token, want %d", n, tc.tokens)
			}
			if err != nil {
				return
			}
			// What was taken is shown from then on.
			s.Forget()
			if _, err := r.Resolve(t.Context()); err != nil || s.Count() != 1 {
				t.Errorf("the second time: got error %v and %d requests, want 1", err, s.Count())
			}
		})
	}
}

// A proxy's challenge is not the registry's.
func TestProxyChallenge(t *testing.T) {
	s := registrytest.New(t, nil)
	s.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(407, "Proxy-Authenticate", "Basic realm=x")))
	opts := fast()
	opts.Credential = func(context.Context, string, string) (hosts.Credential, error) {
		t.Error("a credential is looked up for a proxy")
		return hosts.Credential{}, nil
	}
	if _, err := open(t, s, opts).Resolve(t.Context()); err == nil || errors.Is(err, remote.ErrUnauthorized) {
		t.Errorf("got error %v, want one that is not the registry's refusal", err)
	}
}

// Registries that hide what they have are offered the credential as they ask for
// it where their API begins, and are asked for that once.
func TestHidden(t *testing.T) {
	user := hosts.Credential{User: "u", Password: "p"}
	for _, status := range []int{404, 403, 400, 401} {
		for scheme, root := range map[string]*doorkeeper{
			"Basic":  {challenges: []string{"Negotiate", `Basic realm="x"`}, taken: []string{"Basic dTpw"}},
			"Bearer": {challenges: []string{bearerHere}, taken: []string{"Bearer T"}},
			"403":    {status: 403, challenges: []string{`Basic realm="x"`}, taken: []string{"Basic dTpw"}},
		} {
			t.Run(fmt.Sprint(status, scheme), func(t *testing.T) {
				t.Parallel()
				s := guarded(t, nil, root, &doorkeeper{status: status, taken: root.taken})
				giveTokens(s, func(r *http.Request) (int, string) { return 200, `{"access_token":"T","expires_in":60}` })
				content := noise(1, 1000)
				layer := s.PutBlob(ocispec.MediaTypeImageLayer, content)
				opts := fast()
				opts.Credential, opts.MaxRequests = knows(user, nil), 1
				client := registry.New(opts)
				defer client.Close()
				for _, tag := range []string{"latest", "latest"} {
					r := client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: tag})
					if _, err := r.Resolve(t.Context()); err != nil {
						t.Fatal(err)
					}
					b := blobOf(t, r, layer)
					readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*100, 100) })
				}
				// One finds out whether plain http is spoken.
				if n := s.Count(registrytest.Ping); n != 2 {
					t.Errorf("asked %d times for where the API begins, want twice", n)
				}
			})
		}
	}
}

// Without a credential a registry that hides is not asked further, unless it says
// with 401 that there is more to ask for.
func TestHiddenFromStrangers(t *testing.T) {
	for status, want := range map[int]int{404: 1, 403: 1, 400: 1, 401: 2} {
		s := guarded(t, nil, &doorkeeper{challenges: []string{"Basic"}}, &doorkeeper{status: status})
		s.Forget()
		if _, err := open(t, s, fast()).Tags(t.Context()); err == nil {
			t.Errorf("%d: got tags", status)
		}
		if n := s.Count(registrytest.Ping); n != want {
			t.Errorf("%d: asked %d times for where the API begins, want %d", status, n, want)
		}
	}
	// That there is no credential is found out once for all that is asked.
	hiding := guarded(t, nil, nil, &doorkeeper{status: 404})
	opts := fast()
	var cred credSwitch
	opts.Credential = cred.get
	r := open(t, hiding, opts)
	for range 3 {
		if _, err := r.Resolve(t.Context()); !errors.Is(err, remote.ErrNotFound) {
			t.Errorf("got error %v, want %v", err, remote.ErrNotFound)
		}
	}
	if cred.asked != 1 {
		t.Errorf("the credential was looked up %d times, want once", cred.asked)
	}
	// A stranger's token may be had there.
	s := guarded(t, nil, &doorkeeper{challenges: []string{bearerHere}}, &doorkeeper{taken: []string{"Bearer T"}})
	giveTokens(s, func(r *http.Request) (int, string) { return 200, `{"token":"T"}` })
	if _, err := open(t, s, fast()).Tags(t.Context()); err != nil {
		t.Error(err)
	}
}

// An API elsewhere than at /v2/ says there what it wants.
func TestHiddenElsewhere(t *testing.T) {
	taken := []string{"Basic dTpw"}
	s := guarded(t, nil, &doorkeeper{challenges: []string{"Basic"}, taken: taken}, &doorkeeper{status: 404, taken: taken})
	front, urls := startFront(t, s, "/cache/of/all")
	opts := fast()
	opts.Credential = knows(hosts.Credential{User: "u", Password: "p"}, nil)
	opts.Sites = hostsToml(t, s.Host(), fmt.Sprintf("server = \"http://%s/cache/of/all/\"\noverride_path = true\n", front))
	if _, err := open(t, s, opts).Resolve(t.Context()); err != nil {
		t.Error(err)
	}
	for _, u := range urls() {
		if !strings.HasPrefix(u.Path, "/cache/of/all/") || u.Query().Get("ns") != s.Host() {
			t.Errorf("asked for %s", u.String())
		}
	}
}

// A token for too little is replaced, once, by one for what the registry names.
func TestInsufficientScope(t *testing.T) {
	const more = "repository:app:pull repository:base:pull"
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := guarded(t, nil, nil, &doorkeeper{})
			wants := more
			s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
				case token == strings.ReplaceAll(wants, " ", "+"):
					serve(w, r)
				case token == "":
					w.Header().Set("WWW-Authenticate", strings.ReplaceAll(bearerHere, "ADDR", r.Host))
					w.WriteHeader(401)
				default:
					w.Header().Set("WWW-Authenticate", strings.ReplaceAll(bearerHere, "ADDR", r.Host)+fmt.Sprintf(`,scope=%q,error="insufficient_scope"`, more))
					w.WriteHeader(status)
				}
			}))
			giveTokens(s, func(r *http.Request) (int, string) {
				return 200, fmt.Sprintf(`{"token":%q}`, strings.Join(r.URL.Query()["scope"], "+"))
			})
			opts := fast()
			opts.MaxRequests = 1
			if _, err := open(t, s, opts).Resolve(t.Context()); err != nil {
				t.Error(err)
			}
			if n := s.Count(registrytest.Token); n != 2 {
				t.Errorf("got %d requests for a token, want 2", n)
			}
			wants = "no more"
			s.Forget()
			if _, err := open(t, s, fast()).Resolve(t.Context()); !errors.Is(err, remote.ErrUnauthorized) {
				t.Errorf("got error %v, want %v", err, remote.ErrUnauthorized)
			}
			if n := s.Count(registrytest.Token, registrytest.Manifest); n > 6 { // one by GET, after those by HEAD
				t.Errorf("a registry that is never content got %d requests", n)
			}
		})
	}
}

// The forms that an answer with a token has, and those without one.
func TestTokenForms(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"token":"T"}`:        true,
		`{"access_token":"T"}`: true,
		`{"token":"T","access_token":"T","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}`: true,
		`{"token":"","access_token":"T"}`:                   true,
		`{"token":"T","expires_in":"300"}`:                  true,
		`{"token":"T","expires_in":1e999}`:                  true,
		`{"token":"T","expires_in":null,"refresh_token":7}`: true,
		`{}`: false, `{"token":""}`: false, `{"token":7}`: false, `[]`: false, `null`: false, ``: false,
		`<html>log in</html>`:         false,
		`{"token":"T\r\nX-Other: 1"}`: false,
		`{"token":"T`:                 false,
	} {
		s := guarded(t, nil, nil, &doorkeeper{challenges: []string{bearerHere}, taken: []string{"Bearer T"}})
		giveTokens(s, func(*http.Request) (int, string) { return 200 + len(body)%4, body })
		_, err := open(t, s, fast()).Resolve(t.Context())
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "the token server "+s.Host()+" answers without a token") {
			t.Errorf("%s: got error %v, want success: %t", body, err, ok)
		}
	}
}

// A token server that answers without a token may say why. What may be a token
// itself is not told.
func TestTokenServerSaysWhy(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"invalid_scope","error_description":"no such project"}`: " answers without a token: no such project",
		"<html><title>Log in</title></html>":                              ` answers without a token: a web page, "Log in"`,
		`"secret"`:                                                        " answers without a token",
		"secret":                                                          " answers without a token",
	} {
		s := guarded(t, nil, nil, &doorkeeper{challenges: []string{bearerHere}})
		giveTokens(s, func(*http.Request) (int, string) { return 200, body })
		if _, err := open(t, s, fast()).Resolve(t.Context()); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got error %v, want %s", body, err, want)
		}
	}
}

// A realm that names no server is told at once.
func TestRealm(t *testing.T) {
	for challenge, says := range map[string]string{
		`Bearer service="s"`:                    "does not say from where",
		`Bearer realm="",service="s"`:           "does not say from where",
		`Bearer realm="/token"`:                 `wants a token from "/token", which is not the URL of a server`,
		`Bearer realm="token.example"`:          `"token.example"`,
		`Bearer realm="//token.example/t"`:      `"//token.example/t"`,
		`Bearer realm="http://"`:                `"http://"`,
		`Bearer realm="http://:80/t"`:           `"http://:80/t"`,
		`Bearer realm="http://[::1/t?secret=x"`: `"http://[::1/t"`,
		`Bearer realm="ftp://token.example/t"`:  `"ftp://token.example/t"`,
		`Bearer realm="file:///etc/passwd"`:     `"file:///etc/passwd"`,
	} {
		s := guarded(t, nil, nil, &doorkeeper{challenges: []string{challenge}})
		begun := time.Now()
		_, err := open(t, s, fast()).Resolve(t.Context())
		if !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), s.Host()) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got error %v, want one with %s", challenge, err, says)
		}
		if n := s.Count(registrytest.Manifest); n > 2 || time.Since(begun) > time.Second {
			t.Errorf("%s: got %d requests in %s", challenge, n, time.Since(begun))
		}
	}
}

// A token server that says nothing, or breaks off, is named.
func TestTokenServerIsNamed(t *testing.T) {
	for name, says := range map[string]string{"silent": "timeout awaiting response headers", "breaks off": "unexpected EOF", "stalls in the body": "nothing came for"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := guarded(t, nil, nil, &doorkeeper{challenges: []string{bearerHere}})
			s.Inject(registrytest.Token, registrytest.Always(map[string]registrytest.Fault{
				"silent": s.Stall(-1), "breaks off": registrytest.Truncate(5), "stalls in the body": s.Stall(5)}[name]))
			opts := fast()
			opts.HeaderTimeout, opts.StallTimeout, opts.Tries = 50*time.Millisecond, 50*time.Millisecond, 2
			_, err := open(t, s, opts).Resolve(t.Context())
			if !registry.NoAnswer(err) || !strings.Contains(err.Error(), "the token server "+s.Host()) || !strings.Contains(err.Error(), says) {
				t.Errorf("got error %v, want one that names the token server and says %q", err, says)
			}
		})
	}
}
