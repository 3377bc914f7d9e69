package registry_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A mirror of docker's daemon.json has the images of Docker Hub under their
// own names, and gets its own credential.
func TestDaemonJSONMirror(t *testing.T) {
	m := newMirrored(t, 1, "")
	mirror := m.mirrors[0]
	mirror.Tag("library/app", "latest", m.top.Digest)
	m.opts.Sites = daemonJSON(t, fmt.Sprintf(`{"registry-mirrors": [%q]}`, mirror.URL()))
	ref, err := remote.ParseReference("app")
	if err != nil {
		t.Fatal(err)
	}
	c := registry.New(m.opts)
	t.Cleanup(func() { c.Close() })
	m.use(t, c.Repository(ref))
	onlyOwn(t, mirror)
}

// The proxy of a [[registry]] or mirror carries what is asked of it.
func TestRegistriesConfProxy(t *testing.T) {
	for name, conf := range map[string]string{
		"registry": "[[registry]]\nlocation = \"r.invalid\"\ninsecure = true\nproxy = %q\n",
		"mirror":   "[[registry]]\nlocation = \"r.invalid\"\n[[registry.mirror]]\nlocation = \"m.invalid\"\ninsecure = true\nproxy = %q\n",
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newMirrored(t, 0, ""), registrytest.New(t, nil)
			m.serve(s)
			m.opts.Sites = registriesConf(t, fmt.Sprintf(conf, s.URL()))
			c := registry.New(m.opts)
			t.Cleanup(func() { c.Close() })
			m.use(t, c.Repository(remote.Reference{Registry: "r.invalid", Repository: "app", Tag: "latest"}))
		})
	}
}

// credential-helpers of registries.conf are asked, in their order, beside the
// files.
func TestRegistriesConfHelpers(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"none":  `echo "credentials not found in native keychain"; exit 1`,
		"fails": `exit 3`,
		"right": `printf '{"Username":"u","Secret":"p"}'`,
		"wrong": `printf '{"Username":"u","Secret":"q"}'`,
	} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	s.Tag("app", "latest", digest.FromString("x"))
	right := fmt.Sprintf(`{"auths":{%q:{"auth":"dTpw"}}}`, s.Host())
	wrong := fmt.Sprintf(`{"auths":{%q:{"auth":"dTpx"}}}`, s.Host())
	for _, tc := range []struct {
		helpers, file string
		ok            bool
	}{
		{`[]`, right, true},
		{`["right"]`, `{}`, true},
		{`["none", "absent", "fails", "right"]`, `{}`, true},
		{`["fails"]`, `{}`, false},
		{`["right", "containers-auth.json"]`, wrong, true},
		{`["containers-auth.json", "right"]`, wrong, false},
		{`["containers-auth.json", "wrong"]`, right, true},
		{`["fails", "none"]`, right, true},
		{`["right", "fails"]`, wrong, true},
	} {
		opts := fast()
		dir := t.TempDir()
		path := writeText(t, filepath.Join(dir, "registries.conf"), "credential-helpers = "+tc.helpers)
		conf, err := (&hosts.ConfigFiles{Registries: []string{path}, HostDirs: []string{}, DaemonJSON: []string{}}).Load()
		if err != nil {
			t.Fatal(err)
		}
		opts.Sites, opts.Credential = conf.Sites, conf.Credentials(writeText(t, filepath.Join(dir, "auth.json"), tc.file))
		if _, err := open(t, s, opts).Tags(t.Context()); (err == nil) != tc.ok {
			t.Errorf("%s with %s: got error %v, want success: %t", tc.helpers, tc.file, err, tc.ok)
		}
	}
}
