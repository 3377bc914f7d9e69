package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

// describe writes down what matters of a site.
func describe(s *Site) string {
	text := s.Host + s.Path + "/" + s.Ref.Repository
	if s.Scheme != "" {
		text = s.Scheme + "://" + text
	}
	if s.Ref.Digest != "" {
		text += "@" + string(s.Ref.Digest[:10])
	} else {
		text += ":" + s.Ref.Tag
	}
	for word, is := range map[string]bool{"pull": !s.Resolve, "resolve": !s.Pull} {
		if is {
			text += " only " + word
		}
	}
	if s.Insecure {
		text += " insecure"
	}
	if s.Namespace != "" {
		text += " ns=" + s.Namespace
	}
	for name, values := range s.Header {
		text += fmt.Sprintf(" %s=%s", name, values)
	}
	return text
}

// load loads a registries.conf and a certs.d tree that the test wrote.
func load(t *testing.T, dir, registries string) *Configuration {
	t.Helper()
	conf, err := (&ConfigFiles{Registries: []string{writeFile(t, filepath.Join(dir, "registries.conf"), registries, 0o600)},
		HostDirs: []string{filepath.Join(dir, "none"), filepath.Join(dir, "certs.d")}, DaemonJSON: []string{filepath.Join(dir, "daemon.json")}}).Load()
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

const testDigest = "@sha256:0123456789012345678901234567890123456789012345678901234567890123"

func TestHostsToml(t *testing.T) {
	const mirrors = `
server = "https://up.example/"
[host."https://B.example"]
  capabilities = ["pull", "resolve"]
[host."http://a.example:5000"]
  capabilities = ["pull"]
`
	for _, tc := range []struct {
		name, image string
		files       map[string]string
		want        []string
	}{
		{"none", "r.example/a/b", nil, []string{"r.example/v2/a/b:latest"}},
		{"Docker Hub", "fedora", nil, []string{"registry-1.docker.io/v2/library/fedora:latest"}},
		{"in the order of the file", "r.example/a:x", map[string]string{"r.example": mirrors},
			[]string{"https://b.example/v2/a:x ns=r.example", "http://a.example:5000/v2/a:x only pull ns=r.example", "https://up.example/v2/a:x ns=r.example"}},
		{"order by what comes first", "r.example/a", map[string]string{"r.example": "[host.\"https://b.example\".header]\nx=\"1\"\n[host.\"https://a.example\"]\n[host.\"https://b.example\"]\nskip_verify=false\n"},
			[]string{"https://b.example/v2/a:latest ns=r.example X=[1]", "https://a.example/v2/a:latest ns=r.example", "r.example/v2/a:latest"}},
		{"another registry", "q.example/a", map[string]string{"r.example": mirrors}, []string{"q.example/v2/a:latest"}},
		{"host_port_", "r.example:5000/a", map[string]string{"r.example_5000_": `server = "https://x.example"`, "r.example:5000": mirrors}, []string{"https://x.example/v2/a:latest ns=r.example:5000"}},
		{"host:port", "r.example:5000/a", map[string]string{"r.example:5000": `server = "https://x.example"`, "r.example": mirrors}, []string{"https://x.example/v2/a:latest ns=r.example:5000"}},
		{"not another port's", "r.example:5000/a", map[string]string{"r.example": mirrors}, []string{"r.example:5000/v2/a:latest"}},
		{"_default", "r.example:5000/a", map[string]string{"_default": `[host."https://x.example"]`}, []string{"https://x.example/v2/a:latest ns=r.example:5000", "r.example:5000/v2/a:latest"}},
		{"its own before _default", "r.example/a", map[string]string{"_default": mirrors, "r.example": `[host."https://x.example"]`}, []string{"https://x.example/v2/a:latest ns=r.example", "r.example/v2/a:latest"}},
		{"empty", "r.example/a", map[string]string{"r.example": ""}, []string{"r.example/v2/a:latest"}},
		{"server without a scheme", "r.example/a", map[string]string{"r.example": `server = "x.example"`}, []string{"https://x.example/v2/a:latest ns=r.example"}},
		{"docker.io as a server", "fedora", map[string]string{"docker.io": `server = "https://docker.io"`}, []string{"https://registry-1.docker.io/v2/library/fedora:latest"}},
		{"no server of Docker Hub", "fedora", map[string]string{"docker.io": `[host."https://x.example"]`},
			[]string{"https://x.example/v2/library/fedora:latest ns=docker.io", "registry-1.docker.io/v2/library/fedora:latest"}},
		{"path", "r.example/a", map[string]string{"r.example": `server = "https://x.example/p/q/"`}, []string{"https://x.example/p/q/v2/a:latest ns=r.example"}},
		{"path with v2", "r.example/a", map[string]string{"r.example": `server = "https://x.example/v2"`}, []string{"https://x.example/v2/a:latest ns=r.example"}},
		{"path with v2 before", "r.example/a", map[string]string{"r.example": `server = "https://x.example/v2/p"`}, []string{"https://x.example/v2/p/v2/a:latest ns=r.example"}},
		{"override_path", "r.example/a", map[string]string{"r.example": "server = \"https://x.example/v2/p/\"\noverride_path = true"}, []string{"https://x.example/v2/p/a:latest ns=r.example"}},
		{"override_path without a path", "r.example/a", map[string]string{"r.example": "server = \"https://x.example\"\noverride_path = true"}, []string{"https://x.example/a:latest ns=r.example"}},
		{"headers", "r.example/a", map[string]string{"r.example": "[header]\n  x-a = [\"1\", \"2\"]\n"}, []string{"r.example/v2/a:latest X-A=[1 2]"}},
		{"http and TLS", "r.example/a", map[string]string{"r.example": "server = \"http://x.example\"\nskip_verify = true\n"}, []string{"x.example/v2/a:latest insecure ns=r.example"}},
		{"unknown capability", "r.example/a", map[string]string{"r.example": `capabilities = ["PULL", "levitate"]`}, []string{"r.example/v2/a:latest only pull"}},
		{"the server again", "r.example/a", map[string]string{"r.example": "server = \"https://r.example\"\n[host.\"https://r.example\"]\nskip_verify = true\n"}, []string{"https://r.example/v2/a:latest"}},
		{"digest", "r.example/a" + testDigest, map[string]string{"r.example": `[host."https://x.example"]`}, []string{"https://x.example/v2/a@sha256:012 ns=r.example", "r.example/v2/a@sha256:012"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tc.files {
				writeFile(t, filepath.Join(dir, "certs.d", name, "hosts.toml"), content, 0o600)
			}
			checkSites(t, load(t, dir, ""), tc.image, tc.want)
		})
	}
}

func checkSites(t *testing.T, conf *Configuration, image string, want []string) {
	t.Helper()
	ref, err := remote.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	sites, err := conf.Sites(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sites {
		got = append(got, describe(s))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", image, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Certificates are looked for beside the file, and each host has its own.
func TestHostsTomlTLS(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "certs.d/r.example/hosts.toml"), `
ca = "up.crt"
[host."https://a.example"]
  ca = ["a.crt", "/b.crt"]
  client = "both.pem"
  dial_timeout = "1500ms"
[host."https://b.example"]
  client = [["c.cert", "c.key"], ["both.pem", ""], "more.pem"]
  proxy = "http://proxy.example:3128"
`, 0o600)
	sites, err := load(t, dir, "").Sites(t.Context(), remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"})
	if err != nil || len(sites) != 3 {
		t.Fatalf("got %d sites and error %v", len(sites), err)
	}
	here := filepath.Join(dir, "certs.d/r.example") + "/"
	for i, want := range []string{
		fmt.Sprintf("[%sa.crt /b.crt] [[%sboth.pem ]] 1.5s <nil>", here, here),
		fmt.Sprintf("[] [[%sc.cert %sc.key] [%sboth.pem ] [%smore.pem ]] 0s http://proxy.example:3128", here, here, here, here),
		fmt.Sprintf("[%sup.crt] [] 0s <nil>", here),
	} {
		w := sites[i].Wire
		if got := fmt.Sprint(w.Authorities, w.ClientCerts, w.DialTimeout, " ", w.Proxy); got != want {
			t.Errorf("host %d: got %s, want %s", i, got, want)
		}
	}
	// One that has another's settings does not share its connections.
	if a, b := sites[0].Wire.Key("a.example"), sites[1].Wire.Key("a.example"); a == b {
		t.Errorf("two wires have the key %q", a)
	}
}

func TestRegistriesConf(t *testing.T) {
	const mirrors = `
[[registry]]
prefix = "r.example/ns"
location = "up.example/other"
[[registry.mirror]]
location = "b.example/m/"
[[registry.mirror]]
location = "a.example:5000"
insecure = true
`
	const kinds = `
[[registry]]
location = "r.example"
[[registry.mirror]]
location = "all.example"
pull-from-mirror = "all"
[[registry.mirror]]
location = "digest.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tag.example"
pull-from-mirror = "tag-only"
`
	const nested = `
[[registry]]
location = "r.example"
[[registry]]
prefix = "r.example/a"
location = "one.example"
[[registry]]
prefix = "r.example/a/b"
location = "two.example/q"
[[registry]]
prefix = "r.example/a/b:x"
location = "three.example/c:y"
[[registry]]
prefix = "*.example"
location = "wild.example"
[[registry]]
prefix = "*.r.example"
[[registry.mirror]]
location = "m.example/deep"
`
	for _, tc := range []struct {
		name, conf, image string
		want              []string
	}{
		{"mirrors in order", mirrors, "r.example/ns/a:x", []string{"b.example/v2/m/a:x", "a.example:5000/v2/a:x insecure", "up.example/v2/other/a:x"}},
		{"digest", mirrors, "r.example/ns/a" + testDigest, []string{"b.example/v2/m/a@sha256:012", "a.example:5000/v2/a@sha256:012 insecure", "up.example/v2/other/a@sha256:012"}},
		{"not half a component", mirrors, "r.example/nsx/a", []string{"r.example/v2/nsx/a:latest"}},
		{"any port", "[[registry]]\nlocation = \"r.example\"\ninsecure = true", "r.example:5000/a", []string{"r.example:5000/v2/a:latest insecure"}},
		{"any port, elsewhere", "[[registry]]\nprefix = \"r.example\"\nlocation = \"s.example\"", "r.example:5000/a", []string{"s.example:5000/v2/a:latest"}},
		{"not another port", "[[registry]]\nlocation = \"r.example:5000\"\ninsecure = true", "r.example:50001/a", []string{"r.example:50001/v2/a:latest"}},
		{"the first of two", "[[registry]]\nprefix = \"r.example\"\nlocation = \"a.example\"\n[[registry]]\nprefix = \"r.example\"\nlocation = \"b.example\"", "r.example/x", []string{"a.example/v2/x:latest"}},
		{"capitals", "[[registry]]\nprefix = \"r.example\"\nlocation = \"a.example\"", "R.example/x", []string{"R.example/v2/x:latest"}},
		{"no location but the prefix", "[[registry]]\nlocation = \"r.example\"\ninsecure = true", "r.example/a", []string{"r.example/v2/a:latest insecure"}},
		{"by tag", kinds, "r.example/a:x", []string{"all.example/v2/a:x", "tag.example/v2/a:x", "r.example/v2/a:x"}},
		{"by digest", kinds, "r.example/a" + testDigest, []string{"all.example/v2/a@sha256:012", "digest.example/v2/a@sha256:012", "r.example/v2/a@sha256:012"}},
		{"mirror-by-digest-only, by tag", "[[registry]]\nlocation=\"r.example\"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation=\"m.example\"", "r.example/a", []string{"r.example/v2/a:latest"}},
		{"longest prefix: host", nested, "r.example/x", []string{"wild.example/v2/x:latest"}},
		{"longest prefix: namespace", nested, "r.example/a/x", []string{"one.example/v2/x:latest"}},
		{"longest prefix: repository", nested, "r.example/a/b/c", []string{"two.example/v2/q/c:latest"}},
		{"no prefix with a tag", nested, "r.example/a/b:x", []string{"two.example/v2/q:x"}},
		{"wildcard", nested, "x.y.example/a", []string{"wild.example/v2/a:latest"}},
		{"wildcard with a port", nested, "x.example:5000/a", []string{"wild.example:5000/v2/a:latest"}},
		{"longer wildcard, no location", nested, "x.r.example/a", []string{"m.example/v2/deep/a:latest", "x.r.example/v2/a:latest"}},
		{"wildcard is no suffix", nested, "xexample.com/a", []string{"xexample.com/v2/a:latest"}},
		{"Docker Hub", "[[registry]]\nlocation=\"docker.io\"\n[[registry.mirror]]\nlocation=\"m.example\"", "fedora", []string{"m.example/v2/library/fedora:latest", "registry-1.docker.io/v2/library/fedora:latest"}},
		{"to Docker Hub", "[[registry]]\nprefix=\"localhost/mine\"\nlocation=\"docker.io/library\"", "localhost/mine/fedora", []string{"registry-1.docker.io/v2/library/fedora:latest"}},
		{"to Docker Hub's other host", "[[registry]]\nprefix=\"localhost/mine\"\nlocation=\"registry-1.docker.io\"", "localhost/mine/a/b", []string{"registry-1.docker.io/v2/a/b:latest"}},
		{"a mirror that is blocked", mirrors + "[[registry]]\nlocation = \"b.example\"\nblocked = true", "r.example/ns/a:x", []string{"a.example:5000/v2/a:x insecure", "up.example/v2/other/a:x"}},
		{"version 1", "[registries.insecure]\nregistries = ['r.example']", "r.example/a", []string{"r.example/v2/a:latest insecure"}},
		{"nothing in it", "# nothing\n", "r.example/a", []string{"r.example/v2/a:latest"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkSites(t, load(t, t.TempDir(), tc.conf), tc.image, tc.want)
		})
	}
}

// A location must be an image's when the prefix is.
func TestRegistriesConfNoImage(t *testing.T) {
	conf := load(t, t.TempDir(), "[[registry]]\nprefix = \"r.example/a\"\nlocation = \"two.example\"\n")
	_, err := conf.Sites(t.Context(), remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"})
	if !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), "two.example") {
		t.Errorf("got error %v, want one that names the location", err)
	}
}

// A hosts.toml of the registry goes before registries.conf, and that before
// one for all registries; what is blocked is blocked.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "certs.d/own.example/hosts.toml"), `server = "https://hosts.example"`, 0o600)
	writeFile(t, filepath.Join(dir, "certs.d/blocked.example/hosts.toml"), `server = "https://hosts.example"`, 0o600)
	writeFile(t, filepath.Join(dir, "certs.d/_default/hosts.toml"), `server = "https://default.example"`, 0o600)
	conf := load(t, dir, `
[[registry]]
prefix = "own.example"
location = "conf.example"
[[registry]]
prefix = "other.example"
location = "conf.example"
[[registry]]
location = "blocked.example/ns"
blocked = true
`)
	checkSites(t, conf, "own.example/a", []string{"https://hosts.example/v2/a:latest ns=own.example"})
	checkSites(t, conf, "other.example/a", []string{"conf.example/v2/a:latest"})
	checkSites(t, conf, "third.example/a", []string{"https://default.example/v2/a:latest ns=third.example"})
	checkSites(t, conf, "blocked.example/a", []string{"https://hosts.example/v2/a:latest ns=blocked.example"})
	_, err := conf.Sites(t.Context(), remote.Reference{Registry: "blocked.example", Repository: "ns/a", Tag: "x"})
	if !errors.Is(err, ErrBlocked) || !strings.Contains(err.Error(), "registries.conf forbids to pull blocked.example/ns") {
		t.Errorf("blocked: got error %v, want one that names the file", err)
	}
}

// Later files replace what earlier ones say of the same.
func TestRegistriesConfMerge(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string { return writeFile(t, filepath.Join(dir, name), content, 0o600) }
	conf, err := (&ConfigFiles{HostDirs: []string{}, DaemonJSON: []string{}, Registries: []string{
		file("1", "unqualified-search-registries = [\"a.example\"]\n[aliases]\none = \"a.example/one\"\ntwo = \"a.example/two\"\n[[registry]]\nlocation = \"r.example\"\nblocked = true\n[[registry]]\nlocation = \"q.example\"\ninsecure = true\n"),
		filepath.Join(dir, "absent"),
		file("2", "[[registry]]\nlocation = \"r.example\"\n[aliases]\none = \"\"\ntwo = \"b.example/two\"\n"),
		file("3", "unqualified-search-registries = [\"b.example\"]\n"),
	}}).Load()
	if err != nil {
		t.Fatal(err)
	}
	checkSites(t, conf, "r.example/a", []string{"r.example/v2/a:latest"})
	checkSites(t, conf, "q.example/a", []string{"q.example/v2/a:latest insecure"})
	for name, want := range map[string]string{"one": "b.example/one", "two": "b.example/two"} {
		if got, err := conf.ShortName(name); got != want || err != nil {
			t.Errorf("%s: got %s and error %v, want %s", name, got, err, want)
		}
	}
}

func TestMalformedConfiguration(t *testing.T) {
	for name, tc := range map[string]struct{ hosts, registries, want string }{
		"TOML":                       {registries: "\n[[registry]\n", want: "line 3"},
		"type":                       {registries: "[[registry]]\nlocation = \"a.example\"\n\ninsecure = \"yes\"\n", want: "line "},
		"neither":                    {registries: "[[registry]]\n", want: "neither prefix nor location"},
		"prefix alone":               {registries: "[[registry]]\nprefix = \"a.example\"\n", want: `"a.example" has no location`},
		"wildcard":                   {registries: "[[registry]]\nprefix = \"a.*.example\"\n", want: "only at the beginning"},
		"wildcard with a path":       {registries: "[[registry]]\nprefix = \"*.example/a\"\n", want: "only at the beginning"},
		"URL":                        {registries: "[[registry]]\nlocation = \"https://a.example\"\n", want: "is a URL"},
		"mirror without a place":     {registries: "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\n", want: "a mirror of a.example has no location"},
		"pull-from-mirror":           {registries: "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"b.example\"\npull-from-mirror = \"never\"\n", want: `"never", which is none of`},
		"pull-from-mirror twice":     {registries: "[[registry]]\nlocation = \"a.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b.example\"\npull-from-mirror = \"all\"\n", want: "mirror-by-digest-only already"},
		"pull-from-mirror of itself": {registries: "[[registry]]\nlocation = \"a.example\"\npull-from-mirror = \"all\"\n", want: "it is for its mirrors"},
		"conflict":                   {registries: "[[registry]]\nlocation = \"a.example\"\nblocked = true\n[[registry]]\nlocation = \"a.example/\"\n", want: "disagree on insecure or blocked"},
		"conflict of locations":      {registries: "[[registry]]\nprefix = \"b.example\"\nlocation = \"a.example\"\ninsecure = true\n[[registry]]\nlocation = \"a.example\"\n", want: "disagree on insecure or blocked"},
		"conflict behind a block": {registries: "[[registry]]\nlocation = \"a.example\"\n[[registry]]\nprefix = \"a.example\"\nlocation = \"b.example\"\nblocked = true\n" +
			"[[registry]]\nlocation = \"a.example\"\nblocked = true\n", want: "disagree on insecure or blocked"},
		"prefix of slashes":    {registries: "[[registry]]\nprefix = \"/\"\nlocation = \"a.example\"\nblocked = true\n", want: "neither prefix nor location"},
		"wildcard alone":       {registries: "[[registry]]\nprefix = \"*.\"\nblocked = true\n", want: "only at the beginning"},
		"search registry":      {registries: "unqualified-search-registries = [\"a_b\"]", want: `"a_b" is not the name of a registry`},
		"short-name-mode":      {registries: "short-name-mode = \"sometimes\"", want: `"sometimes", which is none of`},
		"two versions":         {registries: "short-name-mode = \"disabled\"\n[registries.block]\nregistries = [\"a.example\"]", want: "version 1"},
		"alias of no registry": {registries: "[aliases]\nbad = \"nowhere\"", want: `"nowhere", which is not the name`},
		"alias with a tag":     {registries: "[aliases]\nbad = \"a.example/b:x\"", want: "which is not the name"},
		"alias of a full name": {registries: "[aliases]\n\"a.example/b\" = \"a.example/c\"", want: "not the short name"},
		"proxy":                {registries: "[[registry]]\nlocation = \"a.example\"\nproxy = \"ftp://u:secret@p.example\"\n", want: "not the URL of a proxy"},
		"hosts: TOML":          {hosts: "server = \n", want: "line 1"},
		"hosts: type":          {hosts: "\nskip_verify = 1\n", want: "line 2"},
		"hosts: URL":           {hosts: "[host.\"ftp://a.example\"]\n", want: `"ftp://a.example" is not the URL of a server`},
		"hosts: ca":            {hosts: "ca = [1]\n", want: "ca: a int64"},
		"hosts: client":        {hosts: "client = [[\"a\", \"b\", \"c\"]]\n", want: "client: 3 files"},
		"hosts: header":        {hosts: "[header]\nx = 1\n", want: "header x: a int64"},
		"hosts: dial_timeout":  {hosts: "dial_timeout = \"soon\"\n", want: `"soon" is not a length of time`},
		"hosts: proxy":         {hosts: "proxy = \"secret\"\n", want: "not the URL of a proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeFile(t, filepath.Join(dir, "registries.conf"), tc.registries, 0o600)
			conf, err := (&ConfigFiles{Registries: []string{path}, HostDirs: []string{dir}, DaemonJSON: []string{}}).Load()
			if tc.hosts != "" {
				path = writeFile(t, filepath.Join(dir, "r.example/hosts.toml"), tc.hosts, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conf.Sites(t.Context(), remote.Reference{Registry: "q.example", Repository: "a", Tag: "x"}); err != nil {
					t.Errorf("another registry: got error %v", err)
				}
				_, err = conf.Sites(t.Context(), remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"})
			}
			if !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got error %v, want one that names %s and says %q", err, path, tc.want)
			}
		})
	}
}

func TestShortName(t *testing.T) {
	const aliases = "[aliases]\nfedora = \"registry.example/fedora\"\n\"a/b\" = \"b.example/c\"\n"
	for _, tc := range []struct{ conf, name, want string }{
		{"", "fedora", "fedora"},
		{"", "a/b:x", "a/b:x"},
		{aliases, "fedora", "registry.example/fedora"},
		{aliases, "fedora:39", "registry.example/fedora:39"},
		{aliases, "fedora" + testDigest, "registry.example/fedora" + testDigest},
		{aliases, "fedora:39" + testDigest, "registry.example/fedora:39" + testDigest},
		{aliases, "a/b:x", "b.example/c:x"},
		{aliases, "library/fedora", "library/fedora"},
		{aliases, "docker.io/fedora", "docker.io/fedora"},
		{aliases, "fedora.example/fedora", "fedora.example/fedora"},
		{aliases, "other", "other"},
		{"unqualified-search-registries = [\"s.example\"]", "fedora:39", "s.example/fedora:39"},
		{"unqualified-search-registries = [\"s.example\"]", "localhost/fedora", "localhost/fedora"},
		{"unqualified-search-registries = [\"s.example\"]", "localhost:5000/fedora", "localhost:5000/fedora"},
		{"unqualified-search-registries = [\"s.example\"]", "Big/fedora", "Big/fedora"},
		{"unqualified-search-registries = [\"s.example\"]\n" + aliases, "fedora", "registry.example/fedora"},
		{"unqualified-search-registries = []", "fedora", "fedora"},
		{"[registries.search]\nregistries = ['s.example']", "fedora", "s.example/fedora"},
	} {
		if got, err := load(t, t.TempDir(), tc.conf).ShortName(tc.name); got != tc.want || err != nil {
			t.Errorf("%q with %q: got %q and error %v, want %q", tc.name, tc.conf, got, err, tc.want)
		}
	}
	_, err := load(t, t.TempDir(), "unqualified-search-registries = [\"docker.io\", \"s.example\"]").ShortName("fedora:39")
	if !errors.Is(err, remote.ErrReference) || !strings.Contains(err.Error(), "registries.conf has several") || !strings.Contains(err.Error(), "docker.io/fedora:39, s.example/fedora:39") {
		t.Errorf("two to search: got error %v, want one that names them", err)
	}
}

func TestHeaderOfHosts(t *testing.T) {
	table := hostTable{Header: map[string]any{"x-a": "1", "Authorization": []any{"Basic x"}}}
	got, err := table.header()
	if want := (http.Header{"X-A": {"1"}, "Authorization": {"Basic x"}}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
}
