//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A countingDaemon is a daemon of one image, app:v1, that counts the bytes it sends.
type countingDaemon struct {
	server  *httptest.Server
	host    string
	archive atomic.Pointer[string]
	sent    atomic.Int64 // bytes of answers
}

// configIn returns the digest of the config in an archive of saved.
func configIn(archive string) string {
	_, config, _ := strings.Cut(archive, `{"os":"linux"`)
	config, _, _ = strings.Cut(config, "\x00")
	return digest.FromString(`{"os":"linux"` + config).String()
}

func newCountingDaemon(t *testing.T, archive string) *countingDaemon {
	t.Helper()
	dir := publicDir(t)
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	d := &countingDaemon{host: "unix://" + filepath.Join(dir, "s")}
	d.archive.Store(&archive)
	d.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		archive := *d.archive.Load()
		id := configIn(archive)
		answer := io.Reader(strings.NewReader(""))
		switch path := strings.TrimPrefix(r.URL.Path, "/v1.41"); path {
		case "/_ping":
			w.Header().Set("Api-Version", "1.41")
		case "/images/app:v1/json", "/images/" + id + "/json":
			answer = strings.NewReader(fmt.Sprintf(`{"Id":%q}`, id))
		case "/images/" + id + "/get":
			answer = strings.NewReader(archive)
		default:
			http.Error(w, `{"message":"No such image"}`, http.StatusNotFound)
		}
		n, _ := io.Copy(w, answer)
		d.sent.Add(n)
	})}}
	d.server.Start()
	t.Cleanup(d.server.Close)
	return d
}

// TestDockerDaemonStreams counts what a daemon sends to commands: the whole image to the
// first, and to those that read content, and to others nothing of it.
func TestDockerDaemonStreams(t *testing.T) {
	big := noiseText(1 << 20)
	archive := saved(t, small, func(a *labimage.Archive) error { return a.File("big", big) })
	d := newCountingDaemon(t, archive)
	s := newSandbox(t)
	s.env = append(s.env, "DOCKER_HOST="+d.host)
	image, whole := "docker-daemon:app:v1", int64(len(archive))
	run := func(streams bool, args ...string) string {
		t.Helper()
		d.sent.Store(0)
		out := s.ok(args...).stdout
		if sent := d.sent.Load(); streams && (sent < whole || sent > whole+1000) || !streams && sent > 1000 {
			t.Errorf("%q: the daemon sent %d bytes, of an image of %d", args, sent, whole)
		}
		return out
	}
	list := run(true, "ls", "-lR", image)
	for _, args := range [][]string{{"ls", "-lR", image}, {"ls", "-lR", "docker-daemon:" + configIn(archive)}} {
		if got := run(false, args...); !strings.HasSuffix(list, got[strings.Index(got, "\n"):]) {
			t.Errorf("%q prints\n%s\nand printed first\n%s", args, got, list)
		}
	}
	for _, args := range [][]string{{"find", image}, {"du", image}, {"history", image}, {"tree", image}, {"sum", image + ":/big"},
		{"inspect", image}, {"inspect", "--config", image}, {"diff", image, image}} {
		run(false, args...)
	}
	for range 2 {
		if got := run(true, "cat", image, "/big", "/etc/os-release"); got != big+"NAME=small\n" {
			t.Errorf("cat prints %d bytes", len(got))
		}
	}
	if n := bytesBelow(t, filepath.Join(s.cache, "blobs"), filepath.Join(s.cache, "contents"), filepath.Join(s.cache, "tmp")); n != 0 {
		t.Errorf("the cache has %d bytes of the image", n)
	}

	// The name means another image.
	changed := saved(t, func(a *labimage.Archive) error { return a.File("changed", big) })
	d.archive.Store(&changed)
	whole = int64(len(changed))
	if got := run(true, "ls", image); got != "changed\n" {
		t.Errorf("of the new image ls prints %q", got)
	}
	run(false, "ls", image)
	d.archive.Store(&archive)
	whole = int64(len(archive))
	if got := run(false, "ls", image); !strings.Contains(got, "big\n") {
		t.Errorf("of the old image ls prints %q", got)
	}

	// A mount reads what it has streamed, though there is no daemon any more.
	if _, err := os.Stat("/dev/fuse"); err == nil {
		d.sent.Store(0)
		dir := s.mount(image)
		if sent := d.sent.Load(); sent < whole {
			t.Errorf("mount: the daemon sent %d bytes, of an image of %d", sent, whole)
		}
		d.server.Close()
		if got, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || !bytes.Equal(got, []byte(big)) {
			t.Errorf("read %d bytes of the mount, error %v", len(got), err)
		}
		s.umount(dir)
	}
	d.server.Close()
	s.fails(cli.ExitFailure, []string{image + ": ", "the daemon's socket"}, "ls", image)
}

// TestDockerHost: the flag says more than the variable, and imgfs config shows both.
func TestDockerHost(t *testing.T) {
	d := newCountingDaemon(t, saved(t, small))
	s := newSandbox(t)
	s.env = append(s.env, "DOCKER_HOST=tcp://127.0.0.1:1")
	if got := s.ok("cat", "--docker-host", d.host, "docker-daemon:app:v1", "/etc/os-release").stdout; got != "NAME=small\n" {
		t.Errorf("cat prints %q", got)
	}
	s.fails(cli.ExitFailure, []string{`DOCKER_HOST is "tcp://127.0.0.1:1": a daemon is asked only over a socket of this machine`}, "ls", "docker-daemon:app:v1")
	for words, args := range map[string][]string{
		"tcp://127.0.0.1:1 DOCKER_HOST":  {"config", "docker-host"},
		"unix:///x/socket --docker-host": {"config", "--docker-host=unix:///x/socket", "docker-host"},
	} {
		if got := strings.Join(strings.Fields(s.ok(args...).stdout), " "); !strings.Contains(got, "docker-host "+words) {
			t.Errorf("%q prints %s", args, got)
		}
	}
}
