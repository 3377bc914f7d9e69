package hosts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
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
		broken                                    string // what is said to be wrong; "": nothing
	}{
		{"host", "quay.io", "a/b", file(entry("quay.io", "1")), "1", ""},
		{"host with a port", "quay.io:443", "a/b", file(entry("quay.io", "1"), entry("quay.io:443", "2")), "2", ""},
		{"other host", "quay.io", "a/b", file(entry("uay.io", "1"), entry("quay.io.example", "2")), "", ""},
		{"longest prefix", "quay.io", "a/b/c", file(entry("quay.io", "1"), entry("quay.io/a", "2"), entry("quay.io/a/b", "3"), entry("quay.io/a/b/c/d", "4")), "3", ""},
		{"not half a component", "quay.io", "ab/c", file(entry("quay.io/a", "1")), "", ""},
		{"not another namespace", "quay.io", "x/y", file(entry("quay.io/a", "1"), entry("quay.io/b", "2")), "", ""},
		{"URL", "quay.io", "a", file(entry("https://quay.io/v2/", "1")), "1", ""},
		{"plain URL", "quay.io", "a", file(entry("http://quay.io", "1")), "1", ""},
		{"path v1", "quay.io", "a", file(entry("quay.io/v1/", "1")), "1", ""},
		{"exact before URL", "quay.io", "a", file(entry("https://quay.io", "1"), entry("quay.io", "2")), "2", ""},
		{"docker", "docker.io", "library/fedora", file(entry("https://index.docker.io/v1/", "1")), "1", ""},
		{"docker, index", "docker.io", "library/fedora", file(entry("index.docker.io", "1")), "1", ""},
		{"docker, API", "docker.io", "library/fedora", file(entry("registry-1.docker.io", "1")), "1", ""},
		{"docker, namespace", "docker.io", "me/app", file(entry("docker.io/me", "2"), entry("https://index.docker.io/v1/", "1")), "2", ""},
		{"one bad entry", "quay.io", "a", file(`"bad1": 7`, `"bad2": {"auth": "!"}`, `"quay.io/a": {"auth": 5}`, entry("quay.io", "1")), "1", "quay.io/a: its auth is no text"},
		{"one bad way to write it", "docker.io", "a", file(`"docker.io": {"auth": "!"}`, `"index.docker.io": {}`, entry("https://index.docker.io/v1/", "1")), "1", "docker.io: auth is not the base64 form"},
		{"bad store", "quay.io", "a", `{"credsStore": 7, "auths": {` + entry("quay.io", "1") + `}}`, "1", "credsStore is not of the form"},
		{"bad helpers", "quay.io", "a", `{"credHelpers": ["x"], "auths": {` + entry("quay.io", "1") + `}}`, "1", "credHelpers is not of the form"},
		{"bad helper", "quay.io", "a", `{"credHelpers": {"quay.io": {}}, "auths": {` + entry("quay.io", "1") + `}}`, "1", ""},
		{"no entries", "quay.io", "a", `{"auths": "x"}`, "", "auths is not of the form"},
		{"empty entry", "quay.io", "a", file(`"quay.io/a": {}`, entry("quay.io", "1")), "1", ""},
		{"user and password", "quay.io", "a", file(`"quay.io": {"username": "1", "password": "p:w"}`), "1", ""},
		{"zero bytes", "quay.io", "a", file(fmt.Sprintf(`"quay.io": {"auth": %q}`, auth64("1", "p:w\x00\x00"))), "1", ""},
		{"unpadded", "quay.io", "a", file(fmt.Sprintf(`"quay.io": {"auth": %q}`, strings.TrimRight(auth64("1", "p:w"), "="))), "1", ""},
		{"other members", "quay.io", "a", `{"HttpHeaders": 7, "auths": {` + entry("quay.io", "1") + `}, "credHelpers": {"x": 7}}`, "1", ""},
		{"empty file", "quay.io", "a", "\n", "", ""},
		{"null", "quay.io", "a", "null", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "auth.json"), tc.content, 0o600)}
			got, err := a.Credential(t.Context(), tc.registry, tc.repository)
			want := Credential{}
			if tc.want != "" {
				want = Credential{User: tc.want, Password: "p:w", Origin: a.Path}
			}
			if got != want {
				t.Errorf("%s/%s in %s: got %v, want %v", tc.registry, tc.repository, tc.content, got, want)
			}
			if (err != nil) != (tc.broken != "") || err != nil && !strings.Contains(err.Error(), tc.broken) {
				t.Errorf("%s/%s in %s: got error %v, want %q", tc.registry, tc.repository, tc.content, err, tc.broken)
			}
		})
	}
}

func TestAuthTokens(t *testing.T) {
	cleanEnv(t)
	a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "auth.json"),
		`{"auths": {"quay.io": {"auth": "", "identitytoken": "i"}, "ghcr.io": {"registrytoken": "r"}}}`, 0o600)}
	for registry, want := range map[string]Credential{"quay.io": {IdentityToken: "i", Origin: a.Path}, "ghcr.io": {RegistryToken: "r", Origin: a.Path}} {
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

// Files that are of no use as a whole count as missing, and are named.
func TestAuthBadFiles(t *testing.T) {
	const good = `{"auths": {"quay.io": {"auth": "dTpw"}}}`
	for _, tc := range []struct {
		name, content, says string
		make                func(t *testing.T, path string) error // instead of content
	}{
		{name: "ends too early", content: `{"auths": {"quay.io": {"auth": "secret`, says: "not a JSON file of credentials"},
		{name: "comma too much", content: "{\"auths\":{},\n }", says: "not a JSON file of credentials (line 2, column 2)"},
		{name: "list", content: `["secret"]`, says: "not a JSON file of credentials"},
		{name: "bytes", content: "\x00\xff secret \x1b[31m", says: "not a JSON file of credentials (line 1, column 1)"},
		{name: "huge", says: "16777216 bytes or more", make: func(t *testing.T, path string) error {
			return errors.Join(os.WriteFile(path, []byte("{"), 0o600), os.Truncate(path, 1<<40))
		}},
		{name: "directory", says: "is a directory", make: func(t *testing.T, path string) error { return os.Mkdir(path, 0o700) }},
		{name: "link to itself", says: "too many levels of symbolic links", make: func(t *testing.T, path string) error { return os.Symlink(path, path) }},
		{name: "pipe", says: "no regular file", make: func(t *testing.T, path string) error { return syscall.Mkfifo(path, 0o600) }},
		{name: "not to be read", says: "permission denied", make: func(t *testing.T, path string) error {
			if os.Getuid() == 0 {
				t.Skip("root reads everything")
			}
			return os.WriteFile(path, []byte(good), 0)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := cleanEnv(t)
			path := filepath.Join(home, "run/containers/auth.json")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			make := tc.make
			if make == nil {
				make = func(t *testing.T, path string) error { return os.WriteFile(path, []byte(tc.content), 0o600) }
			}
			if err := make(t, path); err != nil {
				t.Fatal(err)
			}
			check := func(what string, want Credential) {
				t.Helper()
				got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a")
				var broken *BrokenError
				if got != want || !errors.As(err, &broken) || !broken.Loud || len(broken.Reasons) != 1 {
					t.Fatalf("%s: got %v and error %v, want %v and what is wrong with one file", what, got, err, want)
				}
				if text := err.Error(); !strings.HasPrefix(text, path+": ") || !strings.Contains(text, tc.says) || strings.Contains(text, "secret") || !printable.Harmless(text) {
					t.Errorf("%s: got error %q, want one with %q that names the file and quotes nothing of it", what, text, tc.says)
				}
			}
			check("alone", Credential{})
			next := writeFile(t, filepath.Join(home, ".docker/config.json"), "\ufeff"+good, 0o600)
			check("with another file", Credential{User: "u", Password: "p", Origin: next})
		})
	}
}

// A file that the environment names counts as missing if it is, one that a program
// names can be checked before, and neither lets other files stand in for it.
func TestAuthNamedFiles(t *testing.T) {
	home := cleanEnv(t)
	writeFile(t, filepath.Join(home, ".docker/config.json"), `{"auths": {"quay.io": {"auth": "dTpw"}}}`, 0o600)
	absent := filepath.Join(home, "absent")
	t.Setenv("REGISTRY_AUTH_FILE", absent)
	for by, a := range map[string]*AuthFiles{"REGISTRY_AUTH_FILE names it": {}, "it was named": {Path: absent}} {
		got, err := a.Credential(t.Context(), "quay.io", "a")
		if want := absent + ": no such file or directory; " + by; !got.Empty() || !errors.Is(err, os.ErrNotExist) || err.Error() != want {
			t.Errorf("got %v and error %v, want %s", got, err, want)
		}
	}
	t.Setenv("REGISTRY_AUTH_FILE", "/dev/null")
	if got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a"); !got.Empty() || err != nil {
		t.Errorf("/dev/null: got %v and error %v, want neither", got, err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker/config.json"))
	got, err := (&AuthFiles{}).Credential(t.Context(), "quay.io", "a")
	if want := home + "/.docker/config.json/config.json: not a directory; DOCKER_CONFIG names its directory"; !got.Empty() || err == nil || err.Error() != want {
		t.Errorf("DOCKER_CONFIG is a file: got %v and error %v, want %s", got, err, want)
	}
	bad := writeFile(t, filepath.Join(home, "bad"), `{"auths": {},}`, 0o600)
	entry := writeFile(t, filepath.Join(home, "entry"), `{"auths": {"quay.io": {"auth": "!"}}}`, 0o600)
	fifo := filepath.Join(home, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{absent: "no such file", bad: "line 1, column 14", home: "is a directory", entry: "", fifo: "", "/dev/null": ""} {
		if err := CheckAuthFile(path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("CheckAuthFile(%s): got error %v, want %q", path, err, want)
		}
	}
}

// A pipe that was named is read once, and whoever never writes to it does not stop
// everything.
func TestAuthNamedPipes(t *testing.T) {
	defer func(d time.Duration) { pipeTime = d }(pipeTime)
	pipeTime = 300 * time.Millisecond
	home := cleanEnv(t)
	fifo := filepath.Join(home, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", fifo)
	held, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, silent := range []string{"somebody has it open", "nobody has"} {
		for _, a := range []*AuthFiles{{}, {Path: fifo}} {
			got, err := a.Credential(t.Context(), "quay.io", "a")
			if want := fifo + ": it is a pipe, and nobody has written to it for 300ms"; !got.Empty() || err == nil || err.Error() != want {
				t.Errorf("%s: got %v and error %v, want %s", silent, got, err, want)
			}
		}
		held.Close()
	}
	if _, err := readOptional(fifo); err == nil || !strings.Contains(err.Error(), "it is a pipe") {
		t.Errorf("configuration: got error %v", err)
	}
	pipeTime = time.Minute
	a := &AuthFiles{}
	go func() {
		time.Sleep(50 * time.Millisecond)
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		for _, part := range []string{`{"auths": {"quay.io": `, `{"auth": "dTpw"}}}`} {
			if _, err := w.WriteString(part); err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for range 2 {
		if got, err := a.Credential(t.Context(), "quay.io", "a"); err != nil || got.User != "u" || got.Password != "p" {
			t.Errorf("got %v and error %v, want what was written", got, err)
		}
	}
}

// 15: helpers that answer, that have nothing, are missing, fail, or hang.
func TestHelpers(t *testing.T) {
	home := cleanEnv(t)
	bin := filepath.Join(home, "bin")
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"good":       `read server; printf '{"Username":"%s","Secret":"%s"}' "$1" "$server"`,
		"token":      `printf '{"Username":"<token>","Secret":"i"}'`,
		"none":       `echo "credentials not found in native keychain"; exit 1`,
		"none-err":   `echo "credentials not found in native keychain" >&2; exit 1`,
		"nobody":     `echo '{"Username":"","Secret":""}'`,
		"fails":      `echo secret; exit 3`,
		"says":       `printf 'ERROR: no account;\n  run: \033[1mcloud login\033[0m https://u:secret@x.example/?code=secret\n' >&2; exit 1`,
		"says much":  `echo first; yes secret-not | head -1000000 >&2; exit 1`,
		"tells all":  `set -x; echo '{"Username":"u","Secret":"secret-1"}'; exit 1`,
		"tells more": `echo secret-2; echo "what is secret-2?" >&2; exit 1`,
		"junk":       `echo secret; echo why not >&2`,
		"silent":     `exit 0`,
		"no secret":  `echo '{"Username":"u"}'`,
		"endless":    `yes secret`,
		"hangs":      `echo "your passphrase:" >&2; sleep 600`,
		// The child keeps the pipe open after its parent is gone.
		"leaves": `printf '{"Username":"get","Secret":"quay.io"}'; sleep 2 &`,
	} {
		writeFile(t, filepath.Join(bin, "docker-credential-"+name), "#!/bin/sh\n"+script+"\n", 0o755)
	}
	writeFile(t, filepath.Join(bin, "docker-credential-text"), "#!/bin/sh\n", 0o644)
	writeFile(t, filepath.Join(bin, "docker-credential-script"), "#!/nonexistent/sh\n", 0o755)
	writeFile(t, filepath.Join(bin, "docker-credential-bytes"), "\x00\x01", 0o755)
	auths := fmt.Sprintf(`"auths": {"quay.io": {"auth": %q}}`, auth64("file", "p"))
	for _, tc := range []struct {
		name, content string
		want          Credential // of the helper, or else of the file
		err           string
		quiet         bool
	}{
		{name: "helper", content: `"credHelpers": {"quay.io": "good"}`, want: Credential{User: "get", Password: "quay.io", Origin: "docker-credential-good"}},
		{name: "store", content: `"credsStore": "good"`, want: Credential{User: "get", Password: "quay.io", Origin: "docker-credential-good"}},
		{name: "helper before store", content: `"credHelpers": {"quay.io": "token"}, "credsStore": "good"`, want: Credential{IdentityToken: "i", Origin: "docker-credential-token"}},
		{name: "helper of another host", content: `"credHelpers": {"ghcr.io": "fails"}`},
		{name: "has none", content: `"credsStore": "none"`},
		{name: "says on stderr that it has none", content: `"credsStore": "none-err"`},
		{name: "has nobody", content: `"credsStore": "nobody"`},
		{name: "missing", content: `"credsStore": "absent"`, err: "docker-credential-absent: it is not installed", quiet: true},
		{name: "not a name", content: `"credsStore": "../bin/good"`, err: "not the name of a program"},
		{name: "not executable", content: `"credsStore": "text"`, err: bin + "/docker-credential-text may not be executed"},
		{name: "no interpreter", content: `"credsStore": "script"`, err: "docker-credential-script: it cannot be started: the interpreter that it names is not there"},
		{name: "no program", content: `"credsStore": "bytes"`, err: "docker-credential-bytes: it cannot be started: exec format error"},
		{name: "fails", content: `"credsStore": "fails"`, err: "docker-credential-fails: it ends with exit status 3"},
		{name: "says why", content: `"credsStore": "says"`, err: `docker-credential-says: it ends with exit status 1: ERROR: no account; run: \x1b[1mcloud login\x1b[0m https://x.example/`},
		{name: "fails once of two", content: `"credHelpers": {"quay.io": "fails"}, "credsStore": "fails"`, err: "docker-credential-fails: it ends with exit status 3"},
		{name: "fails, and the store does not", content: `"credHelpers": {"quay.io": "fails"}, "credsStore": "good"`,
			want: Credential{User: "get", Password: "quay.io", Origin: "docker-credential-good"}, err: "exit status 3"},
		{name: "prints what it does", content: `"credsStore": "tells all"`, err: `it ends with exit status 1: + echo {"Username":"u","Secret":"…"}`},
		{name: "prints a secret twice", content: `"credsStore": "tells more"`, err: `it ends with exit status 1: what is …?`},
		{name: "junk", content: `"credsStore": "junk"`, err: "docker-credential-junk: its output is not JSON: why not"},
		{name: "silent", content: `"credsStore": "silent"`, err: "docker-credential-silent: its output is not JSON"},
		{name: "no secret", content: `"credsStore": "no secret"`, err: "no secret in its output"},
		{name: "endless", content: `"credsStore": "endless"`, err: "docker-credential-endless: more than"},
		{name: "hangs", content: `"credsStore": "hangs"`, err: "docker-credential-hangs: no answer within 200ms: your passphrase:"},
		{name: "leaves a child", content: `"credsStore": "leaves"`, want: Credential{User: "get", Password: "quay.io", Origin: "docker-credential-leaves"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "config.json"), "{"+tc.content+", "+auths+"}", 0o600), HelperTimeout: 5 * time.Second}
			if tc.name == "hangs" {
				a.HelperTimeout = 200 * time.Millisecond
			}
			if tc.want.Empty() {
				tc.want = Credential{User: "file", Password: "p", Origin: a.Path}
			} else {
				tc.want.Origin += " (" + a.Path + " names it)"
			}
			start := time.Now()
			got, err := a.Credential(t.Context(), "quay.io", "a")
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			var broken *BrokenError
			switch {
			case tc.err == "" && err != nil, tc.err != "" && !errors.As(err, &broken):
				t.Fatalf("got error %v, want %q", err, tc.err)
			case err == nil:
			case len(broken.Reasons) != 1 || broken.Loud == tc.quiet || !strings.HasPrefix(err.Error(), a.Path+": credential helper docker-credential-"):
				t.Errorf("got error %v, loud %t, want one that names file and helper once, loud %t", err, broken.Loud, !tc.quiet)
			case !strings.Contains(err.Error(), tc.err) || strings.Contains(strings.TrimPrefix(err.Error(), a.Path), "secret-"):
				t.Errorf("got error %v, want one that says %q and no secret", err, tc.err)
			case len(err.Error()) > len(a.Path)+500 || !printable.Harmless(err.Error()):
				t.Errorf("got error %q, want one short line", err)
			}
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore": "hangs", `+auths+`}`, 0o600)}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if got, err := a.Credential(ctx, "quay.io", "a"); !got.Empty() || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v and error %v, want %v", got, err, context.DeadlineExceeded)
		}
	})
	t.Run("says much", func(t *testing.T) {
		a := &AuthFiles{Path: writeFile(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore": "says much"}`, 0o600)}
		if _, err := a.Credential(t.Context(), "quay.io", "a"); err == nil || len(err.Error()) > len(a.Path)+500 {
			t.Errorf("got error %v, want a short one", err)
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
