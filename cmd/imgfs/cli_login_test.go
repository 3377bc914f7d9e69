//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestBrokenCredentials: credentials that are of no use count as missing, with one
// warning, and stand in the error if the registry then refuses.
func TestBrokenCredentials(t *testing.T) {
	testenv.Slow(t)
	everybody := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	somebody := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "secret-p"})
	public, _ := publish(t, everybody, small)
	private, _ := publish(t, somebody, small)
	for _, c := range []struct {
		name, config, helper string
		env                  string // REGISTRY_AUTH_FILE
		says                 string // ~ is the home directory
	}{
		{name: "helper fails", config: `{"credsStore": "case"}`, helper: "#!/bin/sh\necho secret; echo 'ERROR: no account; run: cloud login' >&2; exit 1\n",
			says: "~/.docker/config.json: credential helper docker-credential-case: it ends with exit status 1: ERROR: no account; run: cloud login"},
		{name: "helper prints junk", config: `{"credsStore": "case"}`, helper: "#!/bin/sh\necho secret\n", says: "~/.docker/config.json: credential helper docker-credential-case: its output is not JSON"},
		{name: "helper without interpreter", config: `{"credsStore": "case"}`, helper: "#!/nonexistent\n", says: "docker-credential-case: it cannot be started: the interpreter that it names is not there"},
		{name: "malformed", config: "{\"auths\":{},\n}", says: "~/.docker/config.json: not a JSON file of credentials (line 2, column 1)"},
		{name: "directory", says: "~/.docker/config.json: is a directory"},
		{name: "no base64", config: fmt.Sprintf(`{"auths":{%q:{"auth":"secret!"},%q:{"auth":"secret!"}}}`, everybody.Host(), somebody.Host()), says: ": auth is not the base64 form of user:password"},
		{name: "REGISTRY_AUTH_FILE", config: "{}", env: "/nonexistent/auth.json", says: "/nonexistent/auth.json: no such file or directory; REGISTRY_AUTH_FILE names it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			home := alone(t)
			t.Setenv("PATH", home+string(os.PathListSeparator)+os.Getenv("PATH"))
			t.Setenv("REGISTRY_AUTH_FILE", c.env)
			config := filepath.Join(home, ".docker/config.json")
			if c.config == "" {
				if err := os.MkdirAll(config, 0o700); err != nil {
					t.Fatal(err)
				}
			} else {
				writeFile(t, config, c.config)
			}
			if c.helper != "" {
				if err := os.Chmod(writeFile(t, filepath.Join(home, "docker-credential-case"), c.helper), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			says := strings.Replace(c.says, "~", home, 1)
			r := invoke(t, "--cache-dir", t.TempDir(), "cat", public, "/etc/os-release")
			if text := progressLine.ReplaceAllString(r.stderr, ""); r.code != 0 || r.stdout != "NAME=small\n" || strings.Count(text, "\n") != 1 || !strings.Contains(text, says) || !strings.HasSuffix(text, "; going on without it\n") || strings.Contains(text, "secret") {
				t.Errorf("got on stderr %q, want one warning with %q", text, says)
			}
			r = invoke(t, "--quiet", "--cache-dir", t.TempDir(), "cat", public, "/etc/os-release")
			if r.code != 0 || r.stderr != "" {
				t.Errorf("--quiet: got on stderr %q", r.stderr)
			}
			r = invoke(t, "--cache-dir", t.TempDir(), "ls", private)
			checkRefusal(t, r, cli.ExitFailure, []string{private + ": unauthorized: ", says + "; without it: " + somebody.Host() + " wants a login"}, "mend that, or have another file: --authfile FILE, or log in: podman login "+somebody.Host())
			if strings.Contains(r.stderr, "secret") {
				t.Errorf("a secret is told: %s", r.stderr)
			}
		})
	}
}

// TestRefusedCredential names the file whose credential is refused.
func TestRefusedCredential(t *testing.T) {
	alone(t)
	for name, login := range map[string]registrytest.Login{"basic": registrytest.Basic, "bearer": registrytest.Bearer} {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.New(t, &registrytest.Options{Login: login, User: "u", Password: "secret-p"})
			image, _ := publish(t, reg, small)
			flag := credentials(t, reg.Host(), "u", "secret-old")
			file := strings.TrimPrefix(flag, "--authfile=")
			checkRefusal(t, invoke(t, flag, "--cache-dir", t.TempDir(), "ls", image), cli.ExitFailure, []string{image + ": unauthorized: ", "the credential of " + file}, "log in again: podman login "+reg.Host()+" ")
		})
	}
}

// TestRefusedPlainHTTP: what to type stands beside the refusal, and helps.
func TestRefusedPlainHTTP(t *testing.T) {
	home := alone(t)
	plain, reg := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{TLS: true})
	image, layout := publish(t, reg, small)
	if err := plain.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(home, ".config/containers/certs.d", reg.Host(), "ca.crt"), pemOf(reg.Certificate()))
	reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		registrytest.Redirect(plain.URL()+r.URL.Path+"?sig=secret")(w, r, nil)
	}))
	ls := func(flags ...string) result {
		return invoke(t, append(flags, "--cache-dir", t.TempDir(), "ls", image, "/etc")...)
	}
	checkRefusal(t, ls(), cli.ExitFailure, []string{"unavailable: refused plain http: " + reg.URL() + "/v2/app/blobs/", " leads to " + plain.URL() + "/v2/app/blobs/"},
		"--tls-verify=false, or insecure = true for "+reg.Host()+" in registries.conf")
	if r := ls("--tls-verify=false"); r.code != 0 || r.stdout != "os-release\n" {
		t.Errorf("--tls-verify=false: got %+v", r)
	}
	writeFile(t, filepath.Join(home, ".config/containers/registries.conf"), fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", reg.Host()))
	if r := ls(); r.code != 0 || r.stdout != "os-release\n" {
		t.Errorf("insecure = true: got %+v", r)
	}
}

// TestProxyIsNamed by --verbose, without its password.
func TestProxyIsNamed(t *testing.T) {
	home := alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	image = strings.Replace(image, reg.Host(), "registry.invalid", 1)
	target, err := url.Parse(reg.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(target))
	defer proxy.Close()
	address := proxy.Listener.Addr().String()
	writeFile(t, filepath.Join(home, ".config/containers/registries.conf"), fmt.Sprintf("[[registry]]\nlocation = \"registry.invalid\"\ninsecure = true\nproxy = \"http://u:secret@%s\"\n", address))
	r := invoke(t, "--verbose", "--cache-dir", t.TempDir(), "ls", image)
	if n := strings.Count(r.stderr, "imgfs: registry.invalid is asked by way of the proxy http://"+address+"\n"); r.code != 0 || n != 1 || strings.Contains(r.stderr, "secret") {
		t.Errorf("the proxy is named %d times:\n%s", n, r.stderr)
	}
}

// TestTLSHints: what helps depends on what is wrong with a certificate.
func TestTLSHints(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{TLS: true})
	_, port, err := net.SplitHostPort(reg.Host())
	if err != nil {
		t.Fatal(err)
	}
	plain := registrytest.New(t, nil)
	for image, want := range map[string][2]string{
		reg.Host() + "/app":        {"is signed by itself", "/etc/containers/certs.d/" + reg.Host() + "/ca.crt"},
		"localhost:" + port + "/a": {"the certificate of localhost:" + port + " is for example.com, ", "by a name that its certificate has"},
		plain.Host() + "/app":      {"answers in plain http, and not by https", "insecure = true for " + plain.Host() + " in registries.conf"},
	} {
		checkRefusal(t, invoke(t, "--tls-verify", "--cache-dir", t.TempDir(), "ls", image), cli.ExitFailure, []string{"unavailable: no secure connection: ", want[0]}, want[1])
	}
}
