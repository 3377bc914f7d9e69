package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A mirror that has gone bad is left for the registry, whatever it says, and
// gets to know nobody's credential.
func TestFault21BadMirror(t *testing.T) {
	for name, fault := range map[string]registrytest.Fault{
		"404": registrytest.Status(404), "500": registrytest.Status(500), "web page": registrytest.Page(), "login page of the right length": loginPage,
		"flipped bit": registrytest.FlipBit(), "reset": registrytest.Reset(-1), "other blob, whole": whole(registrytest.FlipBit()),
	} {
		t.Run(name, func(t *testing.T) {
			login := registrytest.Options{Login: registrytest.Bearer, User: "of-upstream", Password: "secret-p"}
			bothProtocols(t, login, func(t *testing.T, upstream *registrytest.Server, opts *registry.Options) {
				mirror := registrytest.New(t, &registrytest.Options{TLS: upstream.Certificate() != nil})
				content := noise(1, blobSize)
				desc := upstream.PutBlob(ocispec.MediaTypeImageLayer, content)
				mirror.PutBlob(ocispec.MediaTypeImageLayer, content)
				verify := false
				opts.TLSVerify = &verify // the test server's certificates have one name
				opts.Sites = hostsToml(t, upstream.Host(), fmt.Sprintf("[host.%q]\nskip_verify = true\n", mirror.URL()))
				opts.MirrorCooldown = time.Hour
				opts.Credential = func(_ context.Context, host, _ string) (hosts.Credential, error) {
					if host == upstream.Host() {
						return hosts.Credential{User: "of-upstream", Password: "secret-p"}, nil
					}
					return hosts.Credential{}, nil
				}
				disk, err := cache.Open(t.TempDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				r := open(t, upstream, opts)
				t.Cleanup(func() { disk.Close() })
				b := cachedOf(t, disk, blobOf(t, r, desc), content)
				if err := check(t.Context(), b, content, 0, 10); err != nil || mirror.Count(registrytest.Blob) == 0 {
					t.Fatalf("by way of the mirror: error %v, %d requests there", err, mirror.Count(registrytest.Blob))
				}
				mirror.Inject(registrytest.Blob, registrytest.Always(fault))
				mirror.Forget()
				readers(t, 5, func(i int) error { return check(t.Context(), b, content, readOff+i, readLen) })
				if n := mirror.Count(); n > 12 {
					t.Errorf("got %d requests at the mirror", n)
				}
				if n := upstream.Count(registrytest.Blob); n == 0 || n > 12 {
					t.Errorf("got %d requests at the registry", n)
				}
				for _, r := range mirror.Requests() {
					if a := r.Header.Get("Authorization"); a != "" {
						t.Errorf("the mirror was sent %q", a)
					}
				}
				if err := check(t.Context(), b, content, 0, blobSize); err != nil {
					t.Error(err)
				}
				verifyCached(t, disk, desc, content)
			})
		})
	}
}
