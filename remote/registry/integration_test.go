package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestDockerRegistry reads an image from Debian's docker-registry that
// Debian's skopeo pushed there.
func TestDockerRegistry(t *testing.T) {
	testenv.Slow(t)
	needPrograms(t, "docker-registry", "skopeo")
	store := sourcetest.NewStore()
	layer := noise(1, 3<<20)
	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}})
	layout := writeLayout(t, store, top)

	for _, basic := range []bool{false, true} {
		t.Run(fmt.Sprintf("basic auth %t", basic), func(t *testing.T) {
			conf, args := "", []string{"copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"}
			opts := fast()
			if basic {
				conf = basicLogin(t, opts)
				args = append(args, "--dest-creds", basicUser+":"+basicPassword)
			}
			host := startDockerRegistry(t, conf)
			for _, tag := range []string{"latest", "other"} {
				if out, err := exec.Command("skopeo", append(args, "oci:"+layout, "docker://"+host+"/a/b:"+tag)...).CombinedOutput(); err != nil {
					t.Fatalf("skopeo: %v\n%s", err, out)
				}
			}
			client := registry.New(opts)
			defer client.Close()
			r := client.Repository(remote.Reference{Registry: host, Repository: "a/b", Tag: "latest"})
			img, err := remote.Open(t.Context(), r, "")
			if err != nil {
				t.Fatal(err)
			}
			if img.Top.Digest != top.Digest || digest.FromBytes(img.Raw) != top.Digest {
				t.Errorf("got manifest %s, want %s", img.Top.Digest, top.Digest)
			}
			if tags, err := r.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"latest", "other"}) {
				t.Errorf("got tags %q and error %v", tags, err)
			}
			readers(t, 20, func(i int) error { return check(t.Context(), img.Layers[0], layer, i*100_000, 70_000) })
			if err := check(t.Context(), img.Layers[0], layer, 0, len(layer)); err != nil {
				t.Error(err)
			}
			for _, absent := range []remote.Reference{
				{Registry: host, Repository: "a/b", Tag: "absent"}, {Registry: host, Repository: "absent", Tag: "latest"},
			} {
				if _, err := client.Repository(absent).Resolve(t.Context()); !errors.Is(err, remote.ErrNotFound) {
					t.Errorf("Resolve of %s: got error %v, want %v", absent, err, remote.ErrNotFound)
				}
			}
			if basic {
				anonymous := registry.New(fast())
				defer anonymous.Close()
				if _, err := anonymous.Repository(remote.Reference{Registry: host, Repository: "a/b", Tag: "latest"}).Resolve(t.Context()); !errors.Is(err, remote.ErrUnauthorized) {
					t.Errorf("without a credential: got error %v, want %v", err, remote.ErrUnauthorized)
				}
			}
		})
	}
}

const basicUser, basicPassword = "someone", "pass:word"

// basicLogin returns what has docker-registry want a login, and has a client
// log in.
func basicLogin(t *testing.T, opts *registry.Options) (conf string) {
	t.Helper()
	// The bcrypt hash of "pass:word".
	const htpasswd = basicUser + ":$2b$05$JrExSVRVeaeLtPiMBvsASe5dTwRvlp7B.ZK3esVpfg.nGP7SYHI36\n"
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	opts.Credential = func(context.Context, string, string) (hosts.Credential, error) {
		return hosts.Credential{User: basicUser, Password: basicPassword}, nil
	}
	return fmt.Sprintf("auth: {htpasswd: {realm: r, path: %s}}\n", path)
}

func TestPushLayout(t *testing.T) {
	store := sourcetest.NewStore()
	layer := noise(1, blobSize)
	image := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}})
	top := store.AddIndex(image)
	s := registrytest.New(t, nil)
	if err := s.PushLayout(writeLayout(t, store, top), "app"); err != nil {
		t.Fatal(err)
	}
	img, err := remote.Open(t.Context(), open(t, s, fast()), "")
	if err != nil {
		t.Fatal(err)
	}
	if img.Top.Digest != top.Digest || img.Descriptor.Digest != image.Digest {
		t.Errorf("got %s and %s, want %s and %s", img.Top.Digest, img.Descriptor.Digest, top.Digest, image.Digest)
	}
	if err := check(t.Context(), img.Layers[0], layer, 0, len(layer)); err != nil {
		t.Error(err)
	}
}

// writeLayout writes an OCI layout with one image.
func writeLayout(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write("index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`, top.MediaType, top.Digest, top.Size))
	for _, d := range store.Digests() {
		content, _ := store.Get(d)
		write("blobs/sha256/"+d.Encoded(), content)
	}
	return dir
}

// needPrograms skips the test without the programs, but not where all are to
// be there.
func needPrograms(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
}

// startDockerRegistry runs docker-registry until the end of the test, with
// what conf adds to its configuration, and returns its host.
func startDockerRegistry(t *testing.T, conf string) string {
	t.Helper()
	host, _ := startDockerRegistryAt(t, freeAddress(t), conf)
	return host
}

// startDockerRegistryAt is startDockerRegistry at an address. stop ends it
// before the end of the test.
func startDockerRegistryAt(t *testing.T, host, conf string) (_ string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	conf = fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host) + conf
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(conf), 0o666); err != nil {
		t.Fatal(err)
	}
	stop = startServer(t, exec.Command("docker-registry", "serve", path))
	waitForServer(t, host)
	return host, stop
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startServer runs a program until stop or the end of the test.
func startServer(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			const most = 4 << 10
			t.Logf("%s printed at last:\n%s", cmd.Path, out.Bytes()[max(0, out.Len()-most):])
		}
	})
	return stop
}

// waitForServer waits until somebody listens.
func waitForServer(t *testing.T, host string) {
	t.Helper()
	for range 200 {
		if conn, err := net.Dial("tcp", host); err == nil {
			conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("nobody listens on %s", host)
}
