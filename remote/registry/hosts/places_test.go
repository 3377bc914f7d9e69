package hosts

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

// testPlaces are places below dir, as a user or root has them.
func testPlaces(t *testing.T, dir string, uid int) places {
	t.Helper()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF_OVERRIDE", "")
	return places{user: []string{filepath.Join(dir, "xdg"), filepath.Join(dir, "home")}, etc: filepath.Join(dir, "etc"), usr: filepath.Join(dir, "usr"),
		cache: filepath.Join(dir, "cache"), uid: uid}
}

// Which files podman would read, and in which order.
func TestRegistriesConfPlaces(t *testing.T) {
	dir := t.TempDir()
	p := testPlaces(t, dir, 1000)
	put := func(name string) string { return writeFile(t, filepath.Join(dir, name), "", 0o600) }
	aliases := filepath.Join(dir, "cache/containers/short-name-aliases.conf")
	check := func(what string, p places, want ...string) {
		t.Helper()
		got, err := p.registriesConf()
		if want = append(want, aliases); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got error %v and\n\t%s\nwant\n\t%s", what, err, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	check("no files", p)
	check("no directories", places{user: []string{"/dev/null"}, etc: "/dev/null", usr: "/dev/null", cache: p.cache, uid: 7})

	usr := put("usr/containers/registries.conf")
	check("the distribution's file", p, usr)
	etc := put("etc/containers/registries.conf")
	check("the machine's file", p, etc)

	// The most important comes last, and a directory in the order of its names.
	dropIns := []string{
		put("usr/containers/registries.conf.d/b.conf"), put("usr/containers/registries.rootless.conf.d/a.conf"), put("usr/containers/registries.rootless.conf.d/1000/a.conf"),
		put("etc/containers/registries.conf.d/a.conf"), put("etc/containers/registries.conf.d/b.conf"), put("etc/containers/registries.rootless.conf.d/z.conf"),
		put("etc/containers/registries.rootless.conf.d/1000/c.conf"), put("home/containers/registries.conf.d/a.conf"), put("xdg/containers/registries.conf.d/a.conf"),
	}
	put("etc/containers/registries.conf.d/c.toml")
	put("etc/containers/registries.rootless.conf.d/1001/a.conf")
	rootful := put("etc/containers/registries.rootful.conf.d/root.conf")
	check("drop-ins", p, append([]string{etc}, dropIns...)...)
	root := testPlaces(t, dir, 0)
	check("root's drop-ins", root, etc, dropIns[0], dropIns[3], dropIns[4], rootful, dropIns[7], dropIns[8])

	home := put("home/containers/registries.conf")
	check("the user's file", p, home, dropIns[7], dropIns[8])
	xdg := put("xdg/containers/registries.conf")
	check("that of XDG_CONFIG_HOME", p, xdg, dropIns[7], dropIns[8])

	last := put("last")
	t.Setenv("CONTAINERS_REGISTRIES_CONF_OVERRIDE", last)
	check("one that overrides", p, xdg, dropIns[7], dropIns[8], last)
	named := put("named")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", named)
	check("one that is named", p, slices.Concat([]string{named}, dropIns, []string{last})...)
	// What cannot be looked at may be there, and block something.
	if err := os.Remove(xdg); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("registries.conf", xdg); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	check("one that is a loop", p, xdg, dropIns[7], dropIns[8], last)
	for _, env := range []string{"CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE"} {
		t.Setenv(env, named+"-absent")
		if _, err := p.registriesConf(); !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), env) || !strings.Contains(err.Error(), "named-absent") {
			t.Errorf("%s names no file: got error %v, want one that names both", env, err)
		}
		t.Setenv(env, "")
	}
}

// Where certificates, hosts.toml and daemon.json are looked for.
func TestPlaces(t *testing.T) {
	for uid, want := range map[int]string{
		0: `xdg/containers/certs.d home/containers/certs.d etc/containers/certs.rootful.d etc/containers/certs.d usr/containers/certs.rootful.d usr/containers/certs.d
			etc/docker/certs.d xdg/docker/certs.d home/docker/certs.d xdg/containerd/certs.d home/containerd/certs.d etc/containerd/certs.d
			etc/docker/daemon.json`,
		7: `xdg/containers/certs.d home/containers/certs.d etc/containers/certs.rootless.d/7 etc/containers/certs.rootless.d etc/containers/certs.d
			usr/containers/certs.rootless.d/7 usr/containers/certs.rootless.d usr/containers/certs.d
			etc/docker/certs.d xdg/docker/certs.d home/docker/certs.d xdg/containerd/certs.d home/containerd/certs.d etc/containerd/certs.d
			xdg/docker/daemon.json home/docker/daemon.json etc/docker/daemon.json`,
	} {
		p := testPlaces(t, "", uid)
		if got := append(p.certDirs(), p.daemonJSON()...); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("user %d: got %q, want %q", uid, got, strings.Fields(want))
		}
	}
	home := cleanEnv(t)
	if got, want := thisMachine().user, []string{filepath.Join(home, ".config")}; !slices.Equal(got, want) {
		t.Errorf("got the directories %q, want %q", got, want)
	}
	t.Setenv("XDG_CONFIG_HOME", "/x/")
	if got, want := thisMachine().user, []string{"/x", filepath.Join(home, ".config")}; !slices.Equal(got, want) {
		t.Errorf("with XDG_CONFIG_HOME: got the directories %q, want %q", got, want)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	if got := thisMachine().user; len(got) > 0 {
		t.Errorf("without a home directory: got the directories %q", got)
	}
}

// What is no directory has no files, whoever asks.
func TestPlacesNoDirectory(t *testing.T) {
	cleanEnv(t)
	t.Setenv("XDG_CONFIG_HOME", "/dev/null")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF_OVERRIDE", "")
	conf, err := new(ConfigFiles).Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.hostSites(remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"}, []string{"r.example"}); err != nil {
		t.Error(err)
	}
	if dir := DefaultCertDirs().of("r.example"); strings.HasPrefix(dir, "/dev/null") {
		t.Errorf("certificates are in %s", dir)
	}
	if _, err := new(AuthFiles).Credential(t.Context(), "r.example", "a"); err != nil {
		t.Error(err)
	}
}
