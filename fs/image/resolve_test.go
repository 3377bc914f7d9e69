package image_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
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

// TestCredentialBehindFiles: what the files have goes before what the program has, which is
// asked where they have nothing.
func TestCredentialBehindFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull)
	dir, name := exampleImage()
	defer os.RemoveAll(dir)
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "me", Password: "secret"})
	if err := reg.PushLayout(name[len("oci:"):], "app"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, file, password string
		asked, ok            bool
	}{
		{"none in the file", `{}`, "secret", true, true},
		{"one in the file", fmt.Sprintf(`{"auths": {%q: {"username": "me", "password": "secret"}}}`, reg.Host()), "wrong", false, true},
		{"a wrong one in the file", fmt.Sprintf(`{"auths": {%q: {"username": "me", "password": "wrong"}}}`, reg.Host()), "secret", false, false},
		{"a wrong one", `{}`, "wrong", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			authfile := filepath.Join(t.TempDir(), "auth.json")
			if err := os.WriteFile(authfile, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			var asked atomic.Bool
			r, err := image.Resolve(t.Context(), "docker://"+reg.Host()+"/app:latest", &image.Options{
				CacheDir: filepath.Join(t.TempDir(), "cache"), AuthFile: authfile,
				Credential: func(_ context.Context, registry, repository string) (hosts.Credential, error) {
					asked.Store(true)
					if registry != reg.Host() || repository != "app" {
						t.Errorf("asked for %s/%s", registry, repository)
					}
					return hosts.Credential{User: "me", Password: tc.password}, nil
				},
			})
			if err == nil {
				defer r.Close()
			}
			if (err == nil) != tc.ok || err != nil && !errors.Is(err, remote.ErrUnauthorized) {
				t.Errorf("error %v", err)
			}
			if asked.Load() != tc.asked {
				t.Errorf("asked: %v, want %v", asked.Load(), tc.asked)
			}
		})
	}
}
