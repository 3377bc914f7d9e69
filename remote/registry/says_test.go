package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// says answers with a status and a text, and then all that it was sent, as if
// that were of use to anybody.
func says(status int, text string) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		_ = r.ParseForm() // a form that cannot be read is empty
		text := fmt.Sprintf("%s (%s, %s, %s)", text, r.Header.Get("Authorization"), r.URL.RawQuery, r.PostForm.Get("refresh_token"))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		// The client that goes away hears no error.
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": text}}})
	}
}

// 31: an error has what the server says, and which one that is, whatever was
// asked for; and nothing that was sent as a secret.
func TestFault31Words(t *testing.T) {
	t.Parallel()
	const said = "ask the help desk"
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("absent"), Size: 6}
	resolve := func(ctx context.Context, r *registry.Repository) error {
		_, err := r.Resolve(ctx)
		return err
	}
	read := func(ctx context.Context, r *registry.Repository) error {
		b, err := r.Blob(absent)
		if err == nil {
			_, err = b.ReadAt(ctx, make([]byte, 2), 1)
		}
		return err
	}
	for _, tc := range []struct {
		name   string
		server registrytest.Options
		kind   registrytest.Kind
		who    func(*registrytest.Server) string // default: nobody but the registry
		do     func(context.Context, *registry.Repository) error
	}{
		{name: "manifest", kind: registrytest.Manifest, do: resolve},
		{name: "config", kind: registrytest.Blob, do: func(ctx context.Context, r *registry.Repository) error {
			_, err := r.Fetch(ctx, absent)
			return err
		}},
		{name: "range", kind: registrytest.Blob, do: read},
		{name: "whole blob", kind: registrytest.Blob, do: func(ctx context.Context, r *registry.Repository) error {
			b, err := r.Blob(absent)
			if err == nil {
				err = b.(remote.WholeBlob).ReadWhole(ctx, new(bytes.Buffer), 0)
			}
			return err
		}},
		{name: "storage", server: registrytest.Options{CDN: true}, kind: registrytest.CDN, do: read,
			who: func(s *registrytest.Server) string { return "storage " + s.CDNHost() + ": " }},
		{name: "tags", kind: registrytest.Tags, do: func(ctx context.Context, r *registry.Repository) error {
			_, err := r.Tags(ctx)
			return err
		}},
		{name: "token", server: registrytest.Options{Login: registrytest.Bearer}, kind: registrytest.Token, do: resolve,
			who: func(s *registrytest.Server) string { return "the token server " + s.Host() + " " }},
		{name: "upload", server: registrytest.Options{Writable: true}, kind: registrytest.Upload, do: func(ctx context.Context, r *registry.Repository) error {
			return r.PutBlob(ctx, descriptorOf([]byte("new")), strings.NewReader("new"), nil)
		}},
		{name: "manifest put", server: registrytest.Options{Writable: true}, kind: registrytest.Manifest, do: func(ctx context.Context, r *registry.Repository) error {
			_, err := r.PutManifest(ctx, ocispec.MediaTypeImageManifest, []byte("{}"), "x")
			return err
		}},
	} {
		for _, status := range []int{400, 403, 404, 500, 503} {
			for _, cred := range []hosts.Credential{{}, {User: "u", Password: "secret-password"}, {IdentityToken: "secret-identity"}} {
				t.Run(fmt.Sprintf("%s/%d/%s%s", tc.name, status, cred.User, cred.IdentityToken), func(t *testing.T) {
					t.Parallel()
					server := tc.server
					if cred != (hosts.Credential{}) {
						server.Login = registrytest.Bearer
					}
					server.User, server.Password, server.IdentityToken = cred.User, cred.Password, cred.IdentityToken
					s, opts := registrytest.New(t, &server), fast()
					opts.Credential = func(context.Context, string, string) (hosts.Credential, error) { return cred, nil }
					var log lines
					opts.Logf, opts.Tracef = log.printf, log.printf
					opts.StateChanged = func(host string, up bool, reason string) { log.printf("%s is down: %s", host, reason) }
					s.PutBlob(absent.MediaType, []byte("absent"))
					s.Inject(tc.kind, registrytest.Always(says(status, said)))
					r := open(t, s, opts)
					err := tc.do(t.Context(), r)
					if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d %s: %s", status, http.StatusText(status), said)) {
						t.Fatalf("got error %v, want one that says %q", err, said)
					}
					if tc.who != nil && !strings.Contains(err.Error(), tc.who(s)) {
						t.Errorf("got error %v, want one that says %q", err, tc.who(s))
					}
					if text := err.Error() + log.all(); strings.Contains(text, "secret") || strings.Contains(text, "\n\n") {
						t.Errorf("a secret is told: error %v, log %s", err, log.all())
					}
					if down := strings.Contains(log.all(), "is down"); down && !strings.Contains(log.all(), "is down: it answers") && !strings.Contains(log.all(), said) {
						t.Errorf("the state does not say why: %s", log.all())
					}
				})
			}
		}
	}
}

// Each place that was asked is named, with what it says.
func TestWordsOfMirrors(t *testing.T) {
	m := newMirrored(t, 2, "")
	for i, s := range append(m.mirrors, m.upstream) {
		s.Inject(registrytest.Manifest, registrytest.Always(says(403, fmt.Sprintf("reason %d", i))))
	}
	_, err := open(t, m.upstream, m.opts).Resolve(t.Context())
	for i, want := range []string{"mirror " + m.mirrors[0].Host() + ": unauthorized: 403 Forbidden: reason 0", "mirror " + m.mirrors[1].Host() + ": unauthorized: 403 Forbidden: reason 1",
		"unauthorized: " + m.upstream.Host() + ": 403 Forbidden: reason 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("place %d: got error %v, want one that says %q", i, err, want)
		}
	}
}

// A location of registries.conf is named where the registry's own name would
// mislead.
func TestWordsOfAnotherLocation(t *testing.T) {
	s := registrytest.New(t, nil)
	s.Inject(registrytest.Manifest, registrytest.Always(says(404, "moved")))
	opts := fast()
	opts.Sites = registriesConf(t, fmt.Sprintf("[[registry]]\nprefix = \"registry.example\"\nlocation = %q\ninsecure = true\n", s.Host()))
	client := registry.New(opts)
	defer client.Close()
	_, err := client.Repository(remote.Reference{Registry: "registry.example", Repository: "app", Tag: "x"}).Resolve(t.Context())
	if want := s.Host() + ": 404 Not Found: moved"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one that says %q", err, want)
	}
}

// A registry that wants a login which nobody has may say why.
func TestWordsOfChallenge(t *testing.T) {
	s := registrytest.New(t, nil)
	s.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		says(401, "employees only")(w, r, serve)
	}))
	if _, err := open(t, s, fast()).Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), "employees only") {
		t.Errorf("got error %v, want one with what the registry says", err)
	}
}

// A proxy that does not lead on is named, with what it says, and without its
// password.
func TestWordsOfProxy(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusProxyAuthRequired)
		fmt.Fprint(w, "who are you, ", r.Header.Get("Proxy-Authorization"), " secret-password?")
	}))
	t.Cleanup(refusing.Close)
	// A proxy that never ends what it says.
	endless, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endless.Close() })
	go func() {
		for {
			conn, err := endless.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := bufio.NewReader(conn)
				if req, err := http.ReadRequest(b); err == nil {
					fmt.Fprint(conn, "HTTP/1.1 403 No\r\nContent-Length: 10000\r\n\r\n")
					if req.Method != http.MethodHead {
						fmt.Fprint(conn, "\x00no")
					}
					_, _ = b.ReadByte() // until the client goes away
				}
			}()
		}
	}()
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away.Close()
	for _, tc := range []struct {
		name, proxy string
		plain       bool // http to the registry, by way of the proxy
		want        string
	}{
		{name: "CONNECT refused", proxy: refusing.Listener.Addr().String(), want: "407 Proxy Authentication Required: who are you"},
		{name: "request refused", proxy: refusing.Listener.Addr().String(), plain: true, want: "407 Proxy Authentication Required: who are you"},
		{name: "request refused by whoever it is", proxy: endless.Addr().String(), plain: true, want: "403 Forbidden, by way of "},
		{name: "CONNECT refused without an end", proxy: endless.Addr().String(), want: "403 Forbidden"},
		{name: "away", proxy: away.Addr().String(), want: "connection refused"},
		{name: "away, for plain http", proxy: away.Addr().String(), plain: true, want: "connection refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			opts := fast()
			opts.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: tc.proxy, User: url.UserPassword("u", "secret-password")})
			scheme := "https"
			if tc.plain {
				scheme = "http"
			}
			opts.Sites = func(_ context.Context, ref remote.Reference) ([]*hosts.Site, error) {
				s := hosts.Canonical(ref)
				s.Scheme = scheme
				return []*hosts.Site{s}, nil
			}
			client := registry.New(opts)
			defer client.Close()
			_, err := client.Repository(remote.Reference{Registry: "registry.example", Repository: "app", Tag: "x"}).Resolve(t.Context())
			if want := "the proxy http://" + tc.proxy; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got error %v, want one that says %q and %q", err, want, tc.want)
			}
		})
	}
}
