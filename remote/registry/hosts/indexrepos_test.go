package hosts

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

func TestIndexRepos(t *testing.T) {
	t.Parallel()
	const conf = `
[[registry]]
location = "r.example"
imgfs.index-repo = "i.example/all"
[[registry.mirror]]
location = "m.example"

[[registry]]
location = "r.example/team"
imgfs.index-repo = ["i.example/team", "localhost:5000/a/b", "i.example/team"]

[[registry]]
location = "r.example/silent"

[[registry]]
prefix = "*.wild.example"
[registry.imgfs]
index-repo = "i.example/wild"

[[registry]]
location = "blocked.example"
blocked = true
imgfs.index-repo = "i.example/x"

[[registry]]
location = "none.example"
imgfs.index-repo = []

[[registry]]
location = "docker.io"
imgfs.index-repo = "docker.io/me/indexes"
`
	files := map[string]string{
		"own.example":   "server = \"https://up.example\"\nimgfs.index-repo = \"i.example/own\"\n[host.\"https://m.example\"]\n",
		"r.example":     "[host.\"https://m.example\"]\n", // says nothing of it
		"table.example": "[imgfs]\nindex-repo = [\"i.example/1\", \"i.example/2\"]\n[host.\"https://m.example\"]\n",
		"p.example_50_": "imgfs.index-repo = \"i.example/port\"\n",
		"_default":      "imgfs.index-repo = \"i.example/default\"\n",
	}
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, filepath.Join(dir, "certs.d", name, "hosts.toml"), content, 0o600)
	}
	c := load(t, dir, conf)
	for image, want := range map[string][]string{
		"r.example/a":               {"i.example/all"},
		"r.example/a:v1":            {"i.example/all"},
		"r.example/a" + testDigest:  {"i.example/all"},
		"r.example/team/a":          {"i.example/team", "localhost:5000/a/b"},
		"r.example/teams/a":         {"i.example/all"},
		"r.example/silent/a":        {"i.example/default"},
		"a.b.wild.example/x":        {"i.example/wild"},
		"none.example/a":            {},
		"fedora":                    {"docker.io/me/indexes"},
		"registry-1.docker.io/a/b":  {"docker.io/me/indexes"},
		"own.example/a":             {"i.example/own"},
		"table.example/a":           {"i.example/1", "i.example/2"},
		"p.example:50/a":            {"i.example/port"},
		"p.example/a":               {"i.example/default"},
		"elsewhere.example/a/b/c:x": {"i.example/default"},
	} {
		ref, err := remote.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.IndexRepos(t.Context(), ref); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q and error %v, want %q", image, got, err, want)
		}
	}
	if _, err := c.IndexRepos(t.Context(), remote.Reference{Registry: "blocked.example", Repository: "a", Tag: "x"}); !errors.Is(err, ErrBlocked) {
		t.Errorf("a blocked image: got error %v, want %v", err, ErrBlocked)
	}
	if got, err := new(Configuration).IndexRepos(t.Context(), remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"}); err != nil || got != nil {
		t.Errorf("without files: got %q and error %v", got, err)
	}
}

// A value that names no repository is an error with the file and what is wrong, in
// either kind of file, and the sites are refused with it.
func TestIndexReposWrong(t *testing.T) {
	t.Parallel()
	for value, say := range map[string]string{
		`"i.example"`:                     "docker.io/library/i.example",
		`"team/indexes"`:                  "docker.io/team/indexes",
		`"i.example/x:v1"`:                "no tag",
		`"i.example/X"`:                   "capitals",
		`"https://i.example/x"`:           "URL",
		`"i.example/x` + testDigest + `"`: "no digest",
		`""`:                              "empty",
		`["i.example/x", ""]`:             "empty",
		`7`:                               "string is expected",
		`["i.example/x", 7]`:              "string is expected",
		`true`:                            "string is expected",
		`["r.e/1","r.e/2","r.e/3","r.e/4","r.e/5","r.e/6","r.e/7","r.e/8","r.e/9"]`: "8 are the most",
	} {
		path := writeFile(t, filepath.Join(t.TempDir(), "registries.conf"), "[[registry]]\nlocation = \"r.example\"\nimgfs.index-repo = "+value+"\n", 0o600)
		_, err := (&ConfigFiles{Registries: []string{path}, HostDirs: []string{}, DaemonJSON: []string{}}).Load()
		checkWrong(t, value+" in registries.conf", err, path, "imgfs.index-repo", say)

		dir := t.TempDir()
		path = writeFile(t, filepath.Join(dir, "certs.d/r.example/hosts.toml"), "imgfs.index-repo = "+value+"\n", 0o600)
		ref := remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"}
		_, err = load(t, dir, "").IndexRepos(t.Context(), ref)
		checkWrong(t, value+" in hosts.toml", err, path, "imgfs.index-repo", say)
		_, err = load(t, dir, "").Sites(t.Context(), ref)
		checkWrong(t, value+" in hosts.toml, for its sites", err, path, "imgfs.index-repo", say)
	}
	path := writeFile(t, filepath.Join(t.TempDir(), "registries.conf"), "[[registry]]\nlocation = \"r.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\nimgfs.index-repo = \"i.example/x\"\n", 0o600)
	_, err := (&ConfigFiles{Registries: []string{path}, HostDirs: []string{}, DaemonJSON: []string{}}).Load()
	checkWrong(t, "of a mirror", err, path, "m.example", "not to a mirror")
	dir := t.TempDir()
	path = writeFile(t, filepath.Join(dir, "certs.d/r.example/hosts.toml"), "[host.\"https://m.example\"]\nimgfs.index-repo = \"i.example/x\"\n", 0o600)
	_, err = load(t, dir, "").IndexRepos(t.Context(), remote.Reference{Registry: "r.example", Repository: "a", Tag: "x"})
	checkWrong(t, "of a host", err, path, "https://m.example", "before all [host] tables")
}

func checkWrong(t *testing.T, what string, err error, says ...string) {
	t.Helper()
	if !errors.Is(err, ErrConfiguration) {
		t.Errorf("%s: got error %v, want %v", what, err, ErrConfiguration)
		return
	}
	for _, say := range says {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("%s: got error %v, want one that says %q", what, err, say)
		}
	}
}
