//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMountFault01Whole: a layer that a registry sends whole is in the cache
// afterwards, whole, and the mount keeps no other copy. A later mount needs no
// registry.
func TestMountFault01Whole(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "head", "sha256sum")
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			s, reg := newSandbox(t), registrytest.New(t, &registrytest.Options{TLS: proto == "HTTP/2.0"})
			content := seededNoise(1, 8<<20)
			image, _ := publish(t, reg, oneFile("file", content))
			reg.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))

			// The pass that makes the index has put it there.
			dir := s.mount(image, "--tls-verify=false")
			s.storedWhole(dir, 0)
			s.umount(dir)
			s.dropBlobs()

			dir = s.mount(image, "--tls-verify=false")
			reg.Forget()
			if r := s.finish(s.program("head", "-c", "1", filepath.Join(dir, "file"))); r.code != 0 || r.stdout != content[:1] {
				t.Fatalf("head: exit code %d, %q%s", r.code, r.stdout, r.stderr)
			}
			s.storedWhole(dir, s.stats(dir).Layers[0].Size)
			if n := reg.Count(registrytest.Blob); n != 1 {
				t.Errorf("%d requests for the layer, want one: %+v", n, reg.Requests(registrytest.Blob))
			}
			s.umount(dir)
			reg.Inject(registrytest.Blob, registrytest.Always(registrytest.Status(404)))

			dir = s.mount(image, "--offline")
			want := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
			if r := s.finish(s.program("sha256sum", filepath.Join(dir, "file"))); r.code != 0 || !strings.HasPrefix(r.stdout, want) {
				t.Errorf("offline: sha256sum: exit code %d, %s%s", r.code, r.stdout, r.stderr)
			}
			s.umount(dir)
		})
	}
}

// storedWhole waits until the one layer of a mount is in the cache, and checks
// that there is no other copy, and how many bytes count as fetched for it.
func (s *sandbox) storedWhole(dir string, fetched int64) {
	s.t.Helper()
	layer := func() serve.LayerStats { return s.stats(dir).Layers[0] }
	if !eventually(20*time.Second, func() bool { return layer().Cached == layer().Size && s.copies(dir) == 0 }) {
		s.t.Errorf("%d of %d bytes are in the cache, and %d files without names are open", layer().Cached, layer().Size, s.copies(dir))
	}
	if n := layer().Fetched; n != fetched {
		s.t.Errorf("%d bytes count as fetched, want %d", n, fetched)
	}
}

// copies returns how many files without names a mount keeps.
func (s *sandbox) copies(dir string) int {
	s.t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon(dir)))
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		// Some are closed by now. Nothing else has no name.
		if at, _ := os.Readlink(name); strings.HasPrefix(at, s.cache+"/tmp/") && strings.HasSuffix(at, " (deleted)") {
			n++
		}
	}
	return n
}
