package dockerdaemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerdaemon"
)

func TestOpen(t *testing.T) {
	_, id := image(t)
	for ref, repository := range map[string]string{"app:v1": "docker.io/library/app", "app": "docker.io/library/app", id: ""} {
		f := newFake(t, nil)
		src, err := dockerdaemon.Open(t.Context(), ref, &dockerdaemon.Options{Host: f.host})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		defer src.Close()
		if src.Name() != "docker-daemon:"+ref || src.Repository() != repository {
			t.Errorf("%s: it is called %q, in the repository %q, want %q", ref, src.Name(), src.Repository(), repository)
		}
		img, err := remote.Open(t.Context(), src, "linux/amd64")
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if len(img.Layers) != 1 || digest.FromBytes(img.Config).String() != id {
			t.Errorf("%s: %d layers, config %s, want 1 and %s", ref, len(img.Layers), digest.FromBytes(img.Config), id)
		}
		content := make([]byte, img.Layers[0].Size())
		if n, err := img.Layers[0].ReadAt(t.Context(), content, 0); err != nil && err != io.EOF || n != len(content) || !strings.Contains(string(content), "NAME=daemon") {
			t.Errorf("%s: read %d bytes of the layer, error %v", ref, n, err)
		}
		want := []string{"/_ping", "/v1.47/images/" + ref + "/json", "/v1.47/images/" + id + "/get"}
		if got := f.requests(); !slices.Equal(got, want) {
			t.Errorf("%s: asked for %q, want %q", ref, got, want)
		}
	}
}

// A daemon that knows of platforms is asked for one, if one was asked for.
func TestPlatform(t *testing.T) {
	archive, id := image(t)
	for _, c := range []struct {
		version, platform, query string
		status                   int
		want                     error
	}{
		{"1.48", "linux/arm64", `{"architecture":"arm64","os":"linux"}`, 200, nil},
		{"1.99", "linux/arm/v7", `{"architecture":"arm","os":"linux","variant":"v7"}`, 200, nil},
		{"1.48", "", "", 200, nil},
		{"1.47", "linux/arm64", "", 200, nil},
		{"", "linux/arm64", "", 200, nil},
		{"nonsense", "linux/arm64", "", 200, nil},
		{"1.48", "linux/arm64", `{"architecture":"arm64","os":"linux"}`, 404, remote.ErrPlatform},
		{"1.48", "a/b/c/d", "", 200, remote.ErrPlatform},
	} {
		got := ""
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/_ping":
				w.Header().Set("Api-Version", c.version)
			case strings.HasSuffix(r.URL.Path, "/json"):
				fmt.Fprintf(w, `{"Id":%q}`, id)
			default:
				got = r.URL.Query().Get("platform")
				w.WriteHeader(c.status)
				if c.status == 200 {
					_, _ = w.Write(archive)
				}
			}
			return true
		})
		src, err := dockerdaemon.Open(t.Context(), "app", &dockerdaemon.Options{Host: f.host, Archive: remote.ArchiveOptions{Platform: c.platform}})
		if !errors.Is(err, c.want) {
			t.Errorf("version %q, %q: error %v, want %v", c.version, c.platform, err, c.want)
		}
		if err == nil {
			src.Close()
		}
		if got != c.query {
			t.Errorf("version %q: asked for the platform %q, want %q", c.version, got, c.query)
		}
	}
}

// instead answers requests whose path ends so with a status and a body.
func instead(end string, status int, body string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, end) {
			return false
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// What a daemon does wrong is told in words, and nothing of it acts on a terminal.
func TestFaults(t *testing.T) {
	archive, _ := image(t)
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/get") {
			return false
		}
		_, _ = w.Write(archive[:1000])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	endless := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/get") {
			return false
		}
		_, _ = w.Write(archive[:512]) // a header, and files without end
		for {
			if _, err := w.Write(archive[:1024]); err != nil {
				return true
			}
		}
	}
	for _, c := range []struct {
		name    string
		instead func(w http.ResponseWriter, r *http.Request) bool
		want    error
		says    string
	}{
		{"no such image", instead("/json", 404, `{"message":"No such image: app"}`), remote.ErrNotFound, "not found: No such image: app"},
		{"no words", instead("/json", 404, ""), remote.ErrNotFound, "the daemon has no such image"},
		{"gone meanwhile", instead("/get", 404, `{"cause":"gone"}`), remote.ErrNotFound, "gone"},
		{"a server error", instead("/json", 500, `{"message":"disk \u001b[2Jon fire\nnow"}`), remote.ErrUnavailable, `the daemon says: disk \x1b[2Jon fire`},
		{"long words", instead("/json", 500, `{"message":"`+strings.Repeat("long ", 10000)+`"}`), remote.ErrUnavailable, "says: long long"},
		{"no JSON", instead("/json", 500, "<html>"), remote.ErrUnavailable, "status 500"},
		{"another server", instead("/json", 200, "<html>"), remote.ErrUnavailable, "does not speak as docker's daemon"},
		{"another list", instead("/json", 200, `{"Id":"../../x"}`), remote.ErrUnsupported, `the ID "../../x"`},
		{"a redirect", instead("/json", 302, ""), remote.ErrUnavailable, "status 302"},
		{"ping fails", instead("/_ping", 503, ""), remote.ErrUnavailable, "status 503"},
		{"much JSON", instead("/json", 200, strings.Repeat(" ", 17<<20)), remote.ErrUnsupported, "more than 16777216 bytes"},
		{"an error after 200", instead("/get", 200, `{"message":"cannot open layer"}`+"\n"), remote.ErrUnavailable, "the daemon says: cannot open layer"},
		{"an error within", instead("/get", 200, string(archive[:1024])+`{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}`+"\r\n"), remote.ErrUnavailable, "the daemon says: layer is gone"},
		{"something else", instead("/get", 200, strings.Repeat("text", 1000)), remote.ErrUnsupported, "not a tar archive"},
		{"nothing", instead("/get", 200, ""), remote.ErrUnsupported, "there is nothing in it"},
		{"another tar", instead("/get", 200, string(tarOf(t, "etc/passwd", "", "usr/x", ""))), remote.ErrUnsupported, "a tar of a root file system"},
		{"ends early", instead("/get", 200, string(archive[:len(archive)/2])), remote.ErrUnsupported, "unexpected EOF"},
		{"cut", cut, remote.ErrUnavailable, "the daemon's stream ends early, at byte 1000"},
		{"endless", endless, remote.ErrTooBig, "more than the 1048576 bytes allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, c.instead)
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			src, err := dockerdaemon.Open(t.Context(), "app:v1", &dockerdaemon.Options{Host: f.host, Archive: remote.ArchiveOptions{MaxSize: 1 << 20}})
			if err == nil {
				src.Close()
				t.Fatal("no error")
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "docker-daemon:app:v1: ") {
				t.Errorf("error %v, want %v that says %q", err, c.want, c.says)
			}
			if strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 600 {
				t.Errorf("the error is %q", err)
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left %v, error %v", left, err)
			}
		})
	}
}

// The end of the context ends what waits for a daemon, whatever that does.
func TestSlow(t *testing.T) {
	for _, end := range []string{"/_ping", "/json", "/get"} {
		for _, begun := range []bool{false, true} {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, end) {
					return false
				}
				if begun {
					_, _ = io.WriteString(w, "{")
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
				return true
			})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := dockerdaemon.Open(ctx, "app", &dockerdaemon.Options{Host: f.host}); err != context.DeadlineExceeded && !(end == "/_ping" && begun) {
				t.Errorf("%s, begun %t: error %v, want %v", end, begun, err, context.DeadlineExceeded)
			}
		}
	}
}

func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	podman := filepath.Join(dir, "podman", "podman.sock")
	if err := os.Mkdir(filepath.Dir(podman), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", podman)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dead := filepath.Join(dir, "dead")
	if l, err := net.Listen("unix", dead); err != nil {
		t.Fatal(err)
	} else {
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	for host, want := range map[string]error{
		"unix://" + dir + "/absent":                 os.ErrNotExist,
		"unix://" + dead:                            remote.ErrUnavailable,
		"unix://" + dir:                             remote.ErrUnavailable,
		"unix://relative":                           remote.ErrUnsupported,
		"tcp://127.0.0.1:1":                         remote.ErrUnsupported,
		"ssh://somebody@host":                       remote.ErrUnsupported,
		"unix://" + dir + strings.Repeat("/x", 200): remote.ErrUnavailable,
	} {
		t.Setenv("DOCKER_HOST", host)
		_, err := dockerdaemon.Open(t.Context(), "app", nil)
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", host, err, want)
		}
		var socket *dockerdaemon.SocketError
		if errors.As(err, &socket) && errors.Is(err, os.ErrNotExist) && !slices.Contains(socket.Others, podman) {
			t.Errorf("%s: podman's socket is not named: %v", host, socket.Others)
		}
	}
	for _, ref := range []string{"App", "a b", "app:", "../x", ""} {
		if _, err := dockerdaemon.Open(t.Context(), ref, &dockerdaemon.Options{Host: "unix:///absent"}); !errors.Is(err, remote.ErrReference) {
			t.Errorf("%q: error %v, want %v", ref, err, remote.ErrReference)
		}
	}
}
