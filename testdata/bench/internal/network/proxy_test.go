package network

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// newTestProxy starts a proxy before a server with one blob.
func newTestProxy(t *testing.T, blob []byte) *proxy {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the proxy's token went on to the registry")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	}))
	t.Cleanup(upstream.Close)
	p, err := newProxy(strings.TrimPrefix(upstream.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.close() })
	return p
}

// ask sends a request and returns the answer; its body has yet to be read.
func ask(t *testing.T, p *proxy, path, token, byteRange string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if byteRange != "" {
		r.Header.Set("Range", "bytes="+byteRange)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func body(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProxy(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789"), 20_000)
	p := newTestProxy(t, blob)
	p.set(time.Millisecond, 100e6)
	for _, c := range []struct {
		path, token, byteRange string
		status                 int
		kind                   kind
		want                   []byte // nil: something
	}{
		{"/v2/", "", "", 401, tokens, nil},
		{"/v2/a/blobs/sha256:1", "other", "", 401, tokens, nil},
		{tokenPath, "", "", 200, tokens, nil},
		{"/v2/", theToken, "", 200, others, blob},
		{"/v2/a/manifests/latest", theToken, "", 200, manifests, blob},
		{"/v2/a/blobs/sha256:1", theToken, "", 200, blobs, blob},
		{"/v2/a/blobs/sha256:1", theToken, "70000-169999", 206, blobs, blob[70_000:170_000]},
	} {
		p.forget()
		resp := ask(t, p, c.path, c.token, c.byteRange)
		got := body(t, resp)
		if resp.StatusCode != c.status || c.want != nil && !bytes.Equal(got, c.want) {
			t.Errorf("%s with token %q: status %d and %d bytes, want %d and %d", c.path, c.token, resp.StatusCode, len(got), c.status, len(c.want))
		}
		seen, err := p.settled(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := (count{1, int64(len(got))}); seen.all() != want || seen[c.kind] != want {
			t.Errorf("%s with token %q: counted %v, want %v for %s", c.path, c.token, seen, want, c.kind)
		}
		if e := p.exchanges()[0]; e.Status != c.status || e.Bytes != int64(len(got)) || e.End < e.Begun+time.Millisecond {
			t.Errorf("%s: trace %+v", c.path, e)
		}
	}
}

// TestProxyToken: a client that follows the challenge gets a token that is
// taken.
func TestProxyToken(t *testing.T) {
	p := newTestProxy(t, []byte("x"))
	challenge := ask(t, p, "/v2/", "", "").Header.Get("WWW-Authenticate")
	if want := `Bearer realm="http://` + p.host + tokenPath + `"`; !strings.HasPrefix(challenge, want) {
		t.Fatalf("challenge %q, want %q", challenge, want)
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(body(t, ask(t, p, tokenPath, "", "")), &answer); err != nil {
		t.Fatal(err)
	}
	if resp := ask(t, p, "/v2/", answer.Token, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("with the token %q: %s", answer.Token, resp.Status)
	}
}

// TestProxyCountsWhatIsSent: bytes that a client did not get because it went away
// are not counted, but for those in the sockets.
func TestProxyCountsWhatIsSent(t *testing.T) {
	blob := make([]byte, 64<<20)
	p := newTestProxy(t, blob)
	resp := ask(t, p, "/v2/a/blobs/sha256:1", theToken, "")
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	seen, err := p.settled(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := seen.all(blobs).Bytes; n < 1<<20 || n > 32<<20 {
		t.Errorf("counted %d bytes for a client that took 1 MiB of %d", n, len(blob))
	}
}
