//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// invoke runs imgfs within the test's process, as main does. That is for all
// but mounts that succeed.
func invoke(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	begun := time.Now()
	code := run(ctx, args, &stdout, &stderr)
	return result{stdout.String(), stderr.String(), code, time.Since(begun)}
}

// succeed runs imgfs and returns what it printed. It ends the test if imgfs
// failed.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	r := invoke(t, args...)
	if r.code != 0 {
		t.Fatalf("imgfs %q: got exit code %d, want 0; stderr:\n%s", args, r.code, r.stderr)
	}
	return r.stdout
}

// alone hides the environment of the test from imgfs, and gives
// it an empty home directory.
func alone(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"IMGFS_CACHE_DIR", "IMGFS_CACHE_SIZE", "IMGFS_INDEX_REPO", "IMGFS_INDEX_PUBLISH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE",
		"DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_RUNTIME_DIR", home)
	t.Setenv(config.Variable, "")
	os.Unsetenv(config.Variable)
	return home
}

// publishStore lets a registry hold all that a store holds, and the image top as
// app:latest. It returns that image's name.
func publishStore(reg *registrytest.Server, store *sourcetest.Store, top ocispec.Descriptor) string {
	for _, d := range store.Digests() {
		content, _ := store.Get(d)
		reg.ReplaceBlob(d, content)
		reg.ReplaceManifest(d, mediaTypeIn(content), content)
	}
	content, _ := store.Get(top.Digest)
	reg.ReplaceManifest(top.Digest, top.MediaType, content)
	reg.Tag("app", "latest", top.Digest)
	return reg.Host() + "/app:latest"
}

var mediaTypePattern = regexp.MustCompile(`^\{"schemaVersion":\d+,"mediaType":"([^"]*)"`)

// mediaTypeIn returns the media type that a manifest gives itself; of other content
// "".
func mediaTypeIn(content []byte) string {
	if m := mediaTypePattern.FindSubmatch(content); m != nil {
		return string(m[1])
	}
	return ""
}

// tarOf writes a tar of headers with the sizes 0. What is missing in them is
// that of a file.
func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// filesBelow returns the paths of all files below dir but directories, sorted.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// writeFile makes a file and the directories above it.
func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// publish lets a registry hold an image of layers as app:latest, and returns
// its name and the OCI layout that it comes from.
func publish(t *testing.T, reg *registrytest.Server, layers ...labimage.Layer) (image, layout string) {
	t.Helper()
	layout = filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, layers...); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	return reg.Host() + "/app:" + labimage.Tag, layout
}

// small is a layer of a few files, one of them the example of the help texts.
func small(a *labimage.Archive) error {
	return errors.Join(
		a.Dir("etc"),
		a.File("etc/os-release", "NAME=small\n"),
		a.File("etc/.hidden", ""),
		a.Symlink("os-release", "etc/os-release"),
		a.Symlink("conf", "etc"),
		a.Symlink("dangling", "nowhere"),
		a.Fifo("fifo"),
		a.Dir("empty"),
	)
}

var (
	progressLine = regexp.MustCompile(`(?m)^imgfs: layer \d+/\d+ [0-9a-f]{12}: indexed .*\n`)
	goWords      = regexp.MustCompile(`%!|0x[0-9a-f]{6}|\bEOF\b|goroutine|panic|&\{|<nil>|[^.]json: |context canceled|(Get|Head|Post) "|Go struct|strconv|no such host:`)
)

// checkRefusal checks what imgfs printed when it refused something: a line
// with the words of says, and a second one with the hint, if there is one.
func checkRefusal(t *testing.T, r result, code int, says []string, hint string) {
	t.Helper()
	if r.code != code {
		t.Errorf("got exit code %d, want %d", r.code, code)
	}
	if r.stdout != "" {
		t.Errorf("got on stdout %q, want nothing", r.stdout)
	}
	text := progressLine.ReplaceAllString(r.stderr, "")
	lines := strings.SplitAfter(text, "\n")
	switch {
	case len(lines) < 2 || len(lines) > 3 || lines[len(lines)-1] != "":
		t.Errorf("got %d lines on stderr, want one, or two with a hint:\n%s", len(lines)-1, text)
		return
	case !strings.HasPrefix(lines[0], "imgfs: ") || strings.HasPrefix(lines[0], "imgfs: hint: "):
		t.Errorf("the first line is not imgfs: …:\n%s", text)
	case len(lines) == 3 && !strings.HasPrefix(lines[1], "imgfs: hint: "):
		t.Errorf("the second line is not imgfs: hint: …:\n%s", text)
	case hint != "" && (len(lines) != 3 || !strings.Contains(lines[1], hint)):
		t.Errorf("there is no hint with %q:\n%s", hint, text)
	}
	for _, words := range says {
		if !strings.Contains(lines[0], words) {
			t.Errorf("the first line has no %q:\n%s", words, text)
		}
	}
	if m := goWords.FindString(text); m != "" {
		t.Errorf("%q means nothing to people:\n%s", m, text)
	}
	if stutters(lines[0]) {
		t.Errorf("it stutters:\n%s", text)
	}
}

var layerAndBlob = regexp.MustCompile(`layer (sha256:\w+): .*blob (sha256:\w+)`)

// stutters tells whether two parts of a message say the same in a row.
func stutters(line string) bool {
	if m := layerAndBlob.FindStringSubmatch(line); m != nil && m[1] == m[2] {
		return true
	}
	parts := strings.Split(strings.ToLower(strings.TrimSpace(line)), ": ")
	for i, p := range parts[1:] {
		if strings.HasPrefix(p, parts[i]) || strings.HasSuffix(parts[i], " "+p) {
			return true
		}
	}
	return false
}

// checkCache checks that a cache has nothing in it that is not what its name
// says, and no blob and no index but those of the digests allowed.
func checkCache(t *testing.T, dir string, allowed ...digest.Digest) {
	t.Helper()
	for _, name := range filesBelow(t, dir) {
		kind, rest, _ := strings.Cut(name, "/")
		d := digest.Digest(strings.Replace(rest, "/", ":", 1))
		switch {
		case name == "version", name == "space", kind == "refs":
		case kind == "images" && len(allowed) > 0: // says whose these are
		case kind == "meta":
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || digest.FromBytes(content) != d {
				t.Errorf("%s in the cache has other content, or error %v", name, err)
			}
		case (kind == "blobs" || kind == "indexes" || kind == "verified") && slices.Contains(allowed, d):
		default:
			t.Errorf("%s was left in the cache", name)
		}
	}
}

// credentials writes an auth.json with a password for the registry at host,
// and returns the flag that names it.
func credentials(t *testing.T, host, user, password string) (flag string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}}})
	if err != nil {
		t.Fatal(err)
	}
	return "--authfile=" + writeFile(t, filepath.Join(t.TempDir(), "auth.json"), string(text))
}

func pemOf(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
