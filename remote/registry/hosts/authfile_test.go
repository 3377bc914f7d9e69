package hosts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func auth64(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// cleanEnv lets no file of the machine be found, and returns a home
// directory.
func cleanEnv(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	for _, name := range []string{"REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_AUTH_CONFIG", "DOCKER_CONFIG"} {
		t.Setenv(name, "")
	}
	return home
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAuthMatch(t *testing.T) {
	cleanEnv(t)
	entry := func(key, user string) string { return fmt.Sprintf("%q: {\"auth\": %q}", key, auth64(user, "p:w")) }
	file := func(entries ...string) string { return `{"auths": {` + strings.Join(entries, ",") + `}}` }
	for _, tc := range []struct {
		name, registry, repository, content, want string
	}{
		{"host", "quay.io", "a/b", file(entry("quay.io", "1")), "1"},
		{"host with a port", "quay.io:443", "a/b", file(entry("quay.io", "1"), entry("quay.io:443", "2")), "2"},
		{"other host", "quay.io", "a/b", file(entry("uay.io", "1"), entry("quay.io.example", "2")), ""},
		{"longest prefix", "quay.io", "a/b/c", file(entry("quay.io", "1"), entry("quay.io/a", "2"), entry("quay.io/a/b", "3"), entry("quay.io/a/b/c/d", "4")), "3"},
		{"not half a component", "quay.io", "ab/c", file(entry("quay.io/a", "1")), ""},
		{"not another namespace", "quay.io", "x/y", file(entry("quay.io/a", "1"), entry("quay.io/b", "2")), ""},
		{"URL", "quay.io", "a", file(entry("https://quay.io/v2/", "1")), "1"},
		{"plain URL", "quay.io", "a", file(entry("http://quay.io", "1")), "1"},
		{"path v1", "quay.io", "a", file(entry("quay.io/v1/", "1")), "1"},
		{"exact before URL", "quay.io", "a", file(entry("https://quay.io", "1"), entry("quay.io", "2")), "2"},
		{"docker", "docker.io", "library/fedora", file(entry("https://index.docker.io/v1/", "1")), "1"},
		{"docker, index", "docker.io", "library/fedora", file(entry("index.docker.io", "1")), "1"},
		{"docker, API", "docker.io", "library/fedora", file(entry("registry-1.docker.io", "1")), "1"},
		{"docker, namespace", "docker.io", "me/app", file(entry("docker.io/me", "2"), entry("https://index.docker.io/v1/", "1")), "2"},
		{"one bad entry", "quay.io", "a", file(`"bad1": 7`, `"bad2": {"auth": "!"}`, `"quay.io/a": {"auth": 5}`, entry("quay.io", "1")), "1"},
		{"one bad way to write it", "docker.io", "a", file(`"docker.io": {"auth": "!"}`, `"index.docker.io": {}`, entry("https://index.docker.io/v1/", "1")), "1"},
		{"bad store", "quay.io", "a", `{"credsStore": 7, "auths": {` + entry("quay.io", "1") + `}}`, "1"},
		{"bad helpers", "quay.io", "a", `{"credHelpers": ["x"], "auths": {` + entry("quay.io", "1") + `}}`, "1"},
		{"bad helper", "quay.io", "a", `{"credHelpers": {"quay.io": {}}, "auths": {` + entry("quay.io", "1") + `}}`, "1"},
		{"no entries", "quay.io", "a", `{"auths": "x"}`, ""},
		{"empty entry", "quay.io", "a", file(`"quay.io/a": {}`, entry("quay.io", "1")), "1"},
		{"user and password", "quay.io", "a", file(`"quay.io": {"username": "1", "password": "p:w"}`), "1"},
		{"zero bytes", "quay.io", "a", file(fmt.Sprintf(`"quay.io": {"auth": %q}`, auth64("1", "p:w\x00\x00"))), "1"},
		{"unpadded", "quay.io", "a", file(fmt.Sprintf(`"quay.io": {"auth": %q}`, strings.TrimRight(auth64("1", "p:w"), "="))), "1"},
		{"other members", "quay.io", "a", `{"HttpHeaders": 7, "auths": {` + entry("quay.io", "1") + `}, "credHelpers": {"x": 7}}`, "1"},
		{"empty file", "quay.io", "a", "\n", ""},
		{"null", "quay.io", "a", "null", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "auth.json"), tc.content, 0o600)}
			got, err := a.Credential(t.Context(), tc.registry, tc.repository)
			want := Credential{}
			if tc.want != "" {
				want = Credential{User: tc.want, Password: "p:w"}
			}
			if err != nil || got != want {
				t.Errorf("%s/%s in %s: got %v and error %v, want %v", tc.registry, tc.repository, tc.content, got, err, want)
			}
		})
	}
}

func TestAuthTokens(t *testing.T) {
	cleanEnv(t)
	a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "auth.json"),
		`{"auths": {"quay.io": {"auth": "", "identitytoken": "i"}, "ghcr.io": {"registrytoken": "r"}}}`, 0o600)}
	for registry, want := range map[string]Credential{"quay.io": {IdentityToken: "i"}, "ghcr.io": {RegistryToken: "r"}} {
		if got, err := a.Credential(t.Context(), registry, "a"); err != nil || got != want {
			t.Errorf("%s: got %v and error %v, want %v", registry, got, err, want)
		}
	}
}

// The files in the order in which they are asked; each is removed after it
// answered.
func TestAuthOrder(t *testing.T) {
	home := cleanEnv(t)
	content := func(user string) string {
		return fmt.Sprintf(`{"auths": {"quay.io": {"auth": %q}}}`, auth64(user, "p"))
	}
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("DOCKER_AUTH_CONFIG", content("4"))
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, "docker"))
	t.Setenv("REGISTRY_AUTH_FILE", writeFile(t, filepath.Join(home, "registry-auth"), content("1"), 0o600))
	runtime := writeFile(t, filepath.Join(home, "run/containers/auth.json"), content("2"), 0o600)
	config := writeFile(t, filepath.Join(home, "config/containers/auth.json"), content("3"), 0o600)
	docker := writeFile(t, filepath.Join(home, "docker/config.json"), content("5"), 0o600)
	writeFile(t, filepath.Join(home, ".config/containers/auth.json"), content("6"), 0o600)
	writeFile(t, filepath.Join(home, ".docker/config.json"), content("7"), 0o600)
	remove := func(path string) func() {
		return func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	unset := func(name string) func() { return func() { t.Setenv(name, "") } }
	for i, next := range []func(){
		unset("REGISTRY_AUTH_FILE"), remove(runtime), remove(config), unset("DOCKER_AUTH_CONFIG"), remove(docker),
		unset("XDG_CONFIG_HOME"),
		func() { remove(filepath.Join(home, ".config/containers/auth.json"))(); unset("DOCKER_CONFIG")() },
	} {
		want := fmt.Sprint(i + 1)
		if i == 5 { // neither of the directories that are set has a file
			want = ""
		}
		if i == 6 {
			want = "6"
		}
		if got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a"); err != nil || got.User != want {
			t.Errorf("step %d: got user %q and error %v, want %q", i, got.User, err, want)
		}
		next()
	}
	if got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a"); err != nil || got.User != "7" {
		t.Errorf("docker's own file: got user %q and error %v, want 7", got.User, err)
	}
	remove(filepath.Join(home, ".docker/config.json"))()
	writeFile(t, filepath.Join(home, ".dockercfg"), fmt.Sprintf(`{"https://quay.io/v1/": {"auth": %q, "email": "a@example.org"}}`, auth64("8", "p")), 0o600)
	if got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a"); err != nil || got.User != "8" {
		t.Errorf("docker's old file: got user %q and error %v, want 8", got.User, err)
	}
}

func TestAuthBadFiles(t *testing.T) {
	home := cleanEnv(t)
	path := writeFile(t, filepath.Join(home, "bad"), `{"auths": {"quay.io": {"auth": "secret`, 0o600)
	_, err := (&AuthFiles{Path: path}).Credential(t.Context(), "quay.io", "a")
	if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "secret") {
		t.Errorf("not JSON: got error %v, want one that names the file and nothing in it", err)
	}
	path += "-absent"
	if _, err := (&AuthFiles{Path: path}).Credential(t.Context(), "quay.io", "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named and is absent: got error %v, want %v", err, os.ErrNotExist)
	}
}

// 15: helpers that answer, that have nothing, are missing, fail, or hang.
func TestHelpers(t *testing.T) {
	home := cleanEnv(t)
	bin := filepath.Join(home, "bin")
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"good":    `read server; printf '{"Username":"%s","Secret":"%s"}' "$1" "$server"`,
		"token":   `printf '{"Username":"<token>","Secret":"i"}'`,
		"none":    `echo "credentials not found in native keychain"; exit 1`,
		"fails":   `echo secret; exit 3`,
		"junk":    `echo secret`,
		"endless": `yes secret`,
		"hangs":   `sleep 600`,
		// The child keeps the pipe open after its parent is gone.
		"leaves": `printf '{"Username":"get","Secret":"quay.io"}'; sleep 2 &`,
	} {
		writeFile(t, filepath.Join(bin, "docker-credential-"+name), "#!/bin/sh\n"+script+"\n", 0o755)
	}
	auths := fmt.Sprintf(`"auths": {"quay.io": {"auth": %q}}`, auth64("file", "p"))
	fromFile, fromHelper := Credential{User: "file", Password: "p"}, Credential{User: "get", Password: "quay.io"}
	for _, tc := range []struct {
		name, content string
		want          Credential
		err           string
	}{
		{name: "helper", content: `{"credHelpers": {"quay.io": "good"}, ` + auths + `}`, want: fromHelper},
		{name: "store", content: `{"credsStore": "good", ` + auths + `}`, want: fromHelper},
		{name: "helper before store", content: `{"credHelpers": {"quay.io": "token"}, "credsStore": "good"}`, want: Credential{IdentityToken: "i"}},
		{name: "helper of another host", content: `{"credHelpers": {"ghcr.io": "fails"}, ` + auths + `}`, want: fromFile},
		{name: "has none", content: `{"credsStore": "none", ` + auths + `}`, want: fromFile},
		{name: "missing", content: `{"credsStore": "absent", ` + auths + `}`, want: fromFile},
		{name: "not a name", content: `{"credsStore": "../bin/good"}`, err: "not the name of a program"},
		{name: "fails", content: `{"credsStore": "fails", ` + auths + `}`, err: "docker-credential-fails: it ends with exit status 3"},
		{name: "junk", content: `{"credsStore": "junk"}`, err: "docker-credential-junk: its output is not JSON"},
		{name: "endless", content: `{"credsStore": "endless"}`, err: "docker-credential-endless: more than"},
		{name: "hangs", content: `{"credsStore": "hangs"}`, err: "docker-credential-hangs: no answer within"},
		{name: "leaves a child", content: `{"credsStore": "leaves"}`, want: fromHelper},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "config.json"), tc.content, 0o600), HelperTimeout: 5 * time.Second}
			if tc.name == "hangs" {
				a.HelperTimeout = 200 * time.Millisecond
			}
			start := time.Now()
			got, err := a.Credential(t.Context(), "quay.io", "a")
			if tc.err == "" && (err != nil || got != tc.want) {
				t.Errorf("got %v and error %v, want %v", got, err, tc.want)
			}
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got error %v, want one that says %q and no secret", err, tc.err)
			}
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore": "hangs"}`, 0o600)}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := a.Credential(ctx, "quay.io", "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

// docker login stores Docker Hub's credential under the URL of its first API.
func TestHelperDockerHub(t *testing.T) {
	home := cleanEnv(t)
	t.Setenv("PATH", home+string(os.PathListSeparator)+os.Getenv("PATH"))
	writeFile(t, filepath.Join(home, "docker-credential-hub"), `#!/bin/sh
read server
[ "$server" = https://index.docker.io/v1/ ] || { echo "credentials not found in native keychain"; exit 1; }
printf '{"Username":"u","Secret":"s"}'
`, 0o755)
	a := &AuthFiles{Path: writeFile(t, filepath.Join(home, "config.json"), `{"credsStore": "hub"}`, 0o600)}
	if got, err := a.Credential(t.Context(), "docker.io", "library/fedora"); err != nil || got.User != "u" {
		t.Errorf("docker.io: got %v and error %v", got, err)
	}
	if got, err := a.Credential(t.Context(), "quay.io", "a"); err != nil || got != (Credential{}) {
		t.Errorf("quay.io: got %v and error %v, want none", got, err)
	}
}

func TestCanonicalKey(t *testing.T) {
	for key, want := range map[string]string{
		"quay.io":                     "quay.io",
		"quay.io/":                    "quay.io",
		"Quay.IO/Ns":                  "quay.io/Ns",
		"https://quay.io":             "quay.io",
		"https://quay.io/v2/":         "quay.io",
		"http://localhost:5000/v1":    "localhost:5000",
		"localhost:5000/a":            "localhost:5000/a",
		"https://index.docker.io/v1/": "docker.io",
		"registry-1.docker.io/me":     "docker.io/me",
		"":                            "",
		"https:":                      "https:",
		"https://":                    "",
	} {
		if got := canonicalKey(key); got != want {
			t.Errorf("canonicalKey(%q): got %q, want %q", key, got, want)
		}
	}
}
