//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// secretsSent collects what a client shows to a server, and is shown by it, to
// prove itself.
type secretsSent struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (s *secretsSent) add(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	for _, secret := range secrets {
		if len(secret) > 5 {
			s.seen[secret] = true
		}
	}
}

// addFrom takes the secrets of the requests that a registry got.
func (s *secretsSent) addFrom(reg *registrytest.Server) {
	for _, r := range reg.Requests() {
		scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		s.add(value)
		if user, password, ok := (&http.Request{Header: r.Header}).BasicAuth(); ok && scheme == "Basic" {
			s.add(password, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
		}
	}
}

// find returns which secret is in a text, and what is around it.
func (s *secretsSent) find(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for secret := range s.seen {
		if i := strings.Index(text, secret); i >= 0 {
			return fmt.Sprintf("%q in …%s…", secret, text[max(0, i-200):min(len(text), i+len(secret)+100)])
		}
	}
	return ""
}

// What the clients of TestMountSecrets prove themselves with.
const (
	secretUser     = "someone"
	secretPassword = "hush-hush-4711"
	secretIdentity = "refresh-me-4711"
)

// TestMountSecrets looks for the secrets of a run in all that it printed and
// kept, with everything on that makes it talk, and with everything going wrong.
func TestMountSecrets(t *testing.T) {
	needFUSE(t)
	for name, opts := range map[string]*registrytest.Options{
		"basic":          {Login: registrytest.Basic, User: secretUser, Password: secretPassword},
		"bearer":         {Login: registrytest.Bearer, User: secretUser, Password: secretPassword, CDN: true},
		"bearer, TLS":    {Login: registrytest.Bearer, User: secretUser, Password: secretPassword, CDN: true, TLS: true},
		"identity token": {Login: registrytest.Bearer, User: secretUser, Password: "nobody has it", IdentityToken: secretIdentity, CDN: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testMountSecrets(t, opts)
		})
	}
}

// secretLogin writes an auth.json for a registry, with an entry that is
// malformed beside, and returns its path and what it has to hide.
func secretLogin(t *testing.T, s *sandbox, host string, byToken bool) (file, auth string) {
	auth = base64.StdEncoding.EncodeToString([]byte(secretUser + ":" + secretPassword))
	text := fmt.Sprintf(`{"auths": {%q: {"auth": %q}, "other.example": {"auth": "%s!"}}}`, host, auth, auth)
	if byToken {
		auth = base64.StdEncoding.EncodeToString([]byte("00000000-0000-0000-0000-000000000000:"))
		text = fmt.Sprintf(`{"auths": {%q: {"auth": %q, "identitytoken": %q}}}`, host, auth, secretIdentity)
	}
	return writeFile(t, filepath.Join(s.dir, "auth.json"), text), auth
}

// testMountSecrets has two mounts of an image, and faults.
func testMountSecrets(t *testing.T, opts *registrytest.Options) {
	reg := registrytest.New(t, opts)
	image, _ := publish(t, reg, oneFile("a", seededNoise(1, faultFile)), oneFile("b", seededNoise(2, faultFile)))
	s := newSandbox(t)
	file, auth := secretLogin(t, s, reg.Host(), opts.IdentityToken != "")
	flags := []string{"--verbose", "--tls-verify=false", "--authfile=" + file}
	var secrets secretsSent
	secrets.add(secretPassword, secretIdentity, auth, "secret-token", "secret-signature")
	var said strings.Builder
	say := func(r result) { said.WriteString(r.stdout + r.stderr) }

	s.ok(append(flags, "index", image)...)
	s.dropBlobs()
	// In the foreground, where stderr is the log.
	dir := s.mountpoint()
	cmd := s.command(append(flags, "mount", "-f", "--read-timeout=500ms", "--retries=1", image, dir)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventuallyMounted(dir) {
		t.Fatalf("nothing is mounted:\n%s", &out)
	}
	// In the background, with a log file.
	other := s.mount(image, append(flags, "--read-timeout=500ms", "--retries=1")...)
	for _, f := range secretFaults(reg) {
		for _, kind := range []registrytest.Kind{registrytest.Blob, registrytest.CDN, registrytest.Token} {
			reg.Inject(kind, registrytest.Always(f))
		}
		reg.RevokeTokens()
		reg.ExpireURLs()
		var wg sync.WaitGroup
		for _, d := range []string{dir, other} {
			wg.Go(func() { _, _ = headOf(filepath.Join(d, "a"), 4096) }) // fails, or is in the cache
		}
		wg.Wait()
		say(s.run("stats", other))
		say(s.run("stats", "--json", dir))
		secrets.addFrom(reg)
	}
	for _, kind := range []registrytest.Kind{registrytest.Blob, registrytest.CDN, registrytest.Token, registrytest.Manifest} {
		reg.Inject(kind, registrytest.Always(registrytest.Status(401)))
	}
	for _, args := range [][]string{{"ls", image}, {"cat", image, "a"}, {"index", image}, {"inspect", image}, {"mount", image, s.mountpoint()}, {"cache", "ls"}} {
		say(s.run(append(append(flags, "--cache-dir="+filepath.Join(s.dir, "other")), args...)...))
	}
	for _, kind := range []registrytest.Kind{registrytest.Blob, registrytest.CDN, registrytest.Token, registrytest.Manifest} {
		reg.Inject(kind, nil)
	}
	for _, d := range []string{dir, other} {
		if text, err := os.ReadFile(filepath.Join(d, "b")); err != nil || string(text) != seededNoise(2, faultFile) {
			t.Errorf("after the faults: error %v, or other content", err)
		}
	}
	secrets.addFrom(reg)
	s.umount(dir)
	if err := cmd.Wait(); err != nil {
		t.Errorf("imgfs mount -f: %v", err)
	}
	s.umount(other)
	said.Write(out.Bytes())
	if !strings.Contains(said.String(), "GET ") || !strings.Contains(out.String(), ": 401 in ") {
		t.Errorf("--verbose does not show the requests:\n%s", said.String())
	}
	if len(secrets.seen) < 5 {
		t.Errorf("only %d secrets are known", len(secrets.seen))
	}
	if found := secrets.find(said.String()); found != "" {
		t.Errorf("it was said: %s", found)
	}
	for _, path := range files(t, s.dir) {
		if found := secrets.find(readFile(t, path)); found != "" && path != file {
			t.Errorf("%s: %s", path, found)
		}
	}
}

// secretFaults are those whose answers have a secret in them, or that bring
// the address that was asked into an error.
func secretFaults(reg *registrytest.Server) []registrytest.Fault {
	const signature = "X-Amz-Signature=secret-signature-9"
	return []registrytest.Fault{
		registrytest.Status(403), registrytest.Status(404), registrytest.Status(502), registrytest.Reset(-1), registrytest.Reset(10), reg.Stall(-1), reg.Stall(10),
		registrytest.Redirect("/?" + signature), registrytest.Redirect("http://[::1?" + signature), registrytest.Redirect("http://user:hush-hush-4711@127.0.0.1:1/a?" + signature),
		registrytest.Redirect("ftp://x.example/?" + signature), registrytest.Page(),
		registrytest.Status(401, "WWW-Authenticate", `Bearer realm="http://user:hush-hush-4711@127.0.0.1:1/token?`+signature+`",service="x"`),
		func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors": [{"code": "DENIED", "message": "no access to https://x.example/a?%s"}]}`, signature)
		},
	}
}

// TestProxySecrets has a password in the address of a proxy that is away, or
// makes no sense.
func TestProxySecrets(t *testing.T) {
	testenv.Slow(t)
	const password = "hush-proxy-4711"
	s := newSandbox(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, proxy := range []string{"http://user:" + password + "@127.0.0.1:1", "http://user:" + password + "@[::1", "http://user:" + password + "@127.0.0.1:bad/", "user:" + password + "@127.0.0.1:1"} {
		cmd := s.command("--verbose", "ls", "registry.example/app")
		cmd.Env = append(cmd.Env, "HTTPS_PROXY="+proxy)
		wg.Go(func() {
			r := s.finish(cmd)
			if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "registry.example/app") || r.took > 20*time.Second {
				t.Errorf("%s: exit code %d after %s\n%s", proxy, r.code, r.took, r.stderr)
			}
			if bad := strings.Contains(proxy, "[::1") || strings.Contains(proxy, ":bad"); bad != strings.Contains(r.stderr, "is not the URL of a proxy") {
				t.Errorf("%s: it is told wrongly what is wrong:\n%s", proxy, r.stderr)
			}
			if strings.Contains(r.stdout+r.stderr, password) {
				t.Errorf("the proxy's password is told:\n%s", r.stderr)
			}
		})
	}
}
