package dockerdaemon_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A fake is a daemon that has one image, app:v1, and does what a test says instead.
type fake struct {
	host string

	mu    sync.Mutex
	asked []string
	// instead answers in place of the daemon, if it says so. It may be nil.
	instead func(w http.ResponseWriter, r *http.Request) (done bool)
}

// image is the archive of a small image, and its ID.
func image(t *testing.T) (archive []byte, id string) {
	t.Helper()
	layer := tarOf(t, "etc/os-release", "NAME=daemon\n")
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(layer))
	id = digest.FromString(config).String()
	name := digest.FromString(config).Encoded() + ".json"
	return tarOf(t, "layer.tar", string(layer), name, config, "manifest.json", `[{"Config":"`+name+`","RepoTags":null,"Layers":["layer.tar"]}]`), id
}

func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newFake starts a daemon on a socket of its own.
func newFake(t *testing.T, instead func(w http.ResponseWriter, r *http.Request) (done bool)) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "d") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{host: "unix://" + path, instead: instead}
	archive, id := image(t)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.URL.RequestURI())
		f.mu.Unlock()
		if f.instead != nil && f.instead(w, r) {
			return
		}
		version, path := "", r.URL.Path
		if rest, ok := strings.CutPrefix(path, "/v1.47/"); ok {
			version, path = "1.47", "/"+rest
		}
		switch {
		case path == "/_ping":
			w.Header().Set("Api-Version", "1.47")
		case version == "":
			http.Error(w, `{"message":"no version"}`, http.StatusBadRequest)
		case path == "/images/app:v1/json", path == "/images/app/json", path == "/images/"+id+"/json":
			fmt.Fprintf(w, `{"Id":%q,"RepoTags":["app:v1"]}`, id)
		case path == "/images/"+id+"/get":
			w.Header().Set("Content-Type", "application/x-tar")
			_, _ = w.Write(archive)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such image: %s"}`, path)
		}
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return f
}

// requests returns what was asked until now.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}
