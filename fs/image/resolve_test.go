package image_test

import (
	"context"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// TestOpenFromRegistry opens an image of a registry by a short name, with hosts and
// credentials of the program's own in place of those of any file. What it has read
// is there offline, and Close leaves nothing open.
func TestOpenFromRegistry(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(home, "missing.conf"))
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "me", Password: "secret"})
	if err := reg.PushLayout(name[len("oci:"):], "library/app"); err != nil {
		t.Fatal(err)
	}
	opts := &image.Options{CacheDir: filepath.Join(dir, "cache"), Registry: registry.Options{
		Sites: func(_ context.Context, ref remote.Reference) ([]*hosts.Site, error) {
			site := hosts.Canonical(ref)
			site.Scheme, site.Host = "http", reg.Host()
			return []*hosts.Site{site}, nil
		},
		Credential: func(context.Context, string, string) (hosts.Credential, error) {
			return hosts.Credential{User: "me", Password: "secret"}, nil
		},
	}}
	for _, offline := range []bool{false, true} {
		opts.Offline = offline
		img, err := image.Open(t.Context(), "app:latest", opts)
		if err != nil {
			t.Fatalf("offline %v: %v", offline, err)
		}
		got, err := iofs.ReadFile(img.FS(t.Context()), "etc/motd")
		if err != nil || string(got) != "hello\n" {
			t.Errorf("offline %v: %q, %v", offline, got, err)
		}
		r := img.Resolved()
		if img.Name() != "docker.io/library/app:latest" || r.Local() {
			t.Errorf("%s, local %v", img.Name(), r.Local())
		}
		tags, err := r.Tags(t.Context())
		if want := !offline; err != nil || slices.Contains(tags, "latest") != want {
			t.Errorf("offline %v: tags %q, %v", offline, tags, err)
		}
		if servers := r.Servers(); len(servers) > 0 == offline {
			t.Errorf("offline %v: servers %v", offline, servers)
		}
		disk := r.Cache()
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		if _, err := disk.NewTempFile(nil); err == nil {
			t.Error("the cache is still open")
		}
	}
}
