package hosts

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestDaemonJSON(t *testing.T) {
	const hub = "registry-1.docker.io/v2/library/fedora:latest"
	for _, tc := range []struct {
		name, daemon, image string
		want                []string
		told                string // what is passed over
	}{
		{"none", "", "fedora", []string{hub}, ""},
		{"empty", " \n", "fedora", []string{hub}, ""},
		{"mirrors in order", `{"registry-mirrors": ["https://B.example/", "http://a.example:5000"]}`, "fedora",
			[]string{"https://b.example/v2/library/fedora:latest", "http://a.example:5000/v2/library/fedora:latest", hub}, ""},
		{"by digest", `{"registry-mirrors": ["https://b.example"]}`, "fedora" + testDigest,
			[]string{"https://b.example/v2/library/fedora@sha256:012", "registry-1.docker.io/v2/library/fedora@sha256:012"}, ""},
		{"of Docker Hub alone", `{"registry-mirrors": ["https://b.example"]}`, "r.example/a", []string{"r.example/v2/a:latest"}, ""},
		{"path", `{"registry-mirrors": ["https://b.example/hub/"]}`, "fedora", []string{"https://b.example/hub/v2/library/fedora:latest", hub}, ""},
		{"insecure mirror", `{"registry-mirrors": ["https://b.example:5000"], "insecure-registries": ["b.example:5000"]}`, "fedora",
			[]string{"https://b.example:5000/v2/library/fedora:latest insecure", hub}, ""},
		{"Docker Hub is secure", `{"insecure-registries": ["docker.io", "registry-1.docker.io", "0.0.0.0/0"]}`, "fedora", []string{hub}, ""},
		{"insecure", `{"insecure-registries": ["R.example:5000"]}`, "r.example:5000/a", []string{"r.example:5000/v2/a:latest insecure"}, ""},
		{"another port", `{"insecure-registries": ["r.example:5000"]}`, "r.example/a", []string{"r.example/v2/a:latest"}, ""},
		{"URL", `{"insecure-registries": ["http://r.example"]}`, "r.example/a", []string{"r.example/v2/a:latest insecure"}, ""},
		{"network", `{"insecure-registries": ["10.1.0.0/16"]}`, "10.1.2.3:5000/a", []string{"10.1.2.3:5000/v2/a:latest insecure"}, ""},
		{"another network", `{"insecure-registries": ["10.1.0.0/16"]}`, "10.2.2.3/a", []string{"10.2.2.3/v2/a:latest"}, ""},
		{"byte order mark", "\ufeff" + `{"insecure-registries": ["r.example"]}`, "r.example/a", []string{"r.example/v2/a:latest insecure"}, ""},
		{"else", `{"storage-driver": "overlay2", "log-opts": {"max-size": "1m"}}`, "fedora", []string{hub}, ""},
		{"malformed", `{"registry-mirrors": ["https://b.example"`, "fedora", []string{hub}, "unexpected end"},
		{"type", `{"registry-mirrors": {"docker.io": 1}}`, "fedora", []string{hub}, "registry-mirrors"},
		{"bad mirrors", `{"registry-mirrors": ["ftp://c.example", "https://u:secret@b.example", "https://b.example"]}`, "fedora",
			[]string{"https://b.example/v2/library/fedora:latest", hub}, "ftp://c.example"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "daemon.json")
			if tc.daemon != "" {
				writeFile(t, file, tc.daemon, 0o600)
			}
			var told strings.Builder
			conf, err := (&ConfigFiles{Registries: []string{}, HostDirs: []string{}, DaemonJSON: []string{file + "-absent", file},
				Logf: func(format string, args ...any) { fmt.Fprintf(&told, format+"\n", args...) }}).Load()
			if err != nil {
				t.Fatal(err)
			}
			checkSites(t, conf, tc.image, tc.want)
			if got := told.String(); (got == "") != (tc.told == "") || !strings.Contains(got, tc.told) || tc.told != "" && !strings.Contains(got, file) || strings.Contains(got, "secret") {
				t.Errorf("told %q, want the file, %q, and no secret", got, tc.told)
			}
		})
	}
}

// What podman and containerd are told of an image goes before what docker is.
func TestDaemonJSONLast(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "daemon.json"), `{"registry-mirrors": ["https://docker.example"], "insecure-registries": ["r.example", "q.example"]}`, 0o600)
	conf := load(t, dir, "[[registry]]\nlocation = \"r.example\"\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"podman.example\"\n")
	checkSites(t, conf, "fedora", []string{"podman.example/v2/library/fedora:latest", "registry-1.docker.io/v2/library/fedora:latest"})
	checkSites(t, conf, "r.example/a", []string{"r.example/v2/a:latest"})
	checkSites(t, conf, "q.example/a", []string{"q.example/v2/a:latest insecure"})
	writeFile(t, filepath.Join(dir, "certs.d/_default/hosts.toml"), `server = "https://default.example"`, 0o600)
	checkSites(t, conf, "q.example/a", []string{"https://default.example/v2/a:latest ns=q.example"})
}
