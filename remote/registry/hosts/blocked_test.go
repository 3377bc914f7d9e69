package hosts

import (
	"errors"
	"fmt"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

// TestBlocked: what registries.conf blocks is blocked for every spelling of it.
func TestBlocked(t *testing.T) {
	block := func(prefix string) string {
		return fmt.Sprintf("[[registry]]\nlocation = %q\nblocked = true\n", prefix)
	}
	for _, tc := range []struct{ name, conf, image string }{
		{"host", block("r.example"), "r.example/a"},
		{"host of any port", block("127.0.0.1"), "127.0.0.1:5666/a"},
		{"pattern of any port", "[[registry]]\nprefix = \"*.example\"\nblocked = true", "r.example:5000/a"},
		{"pattern in the middle", "[[registry]]\nprefix = \"*.example\"\nblocked = true", "r.example.example/a"},
		{"repository", block("r.example/a"), "r.example/a:x"},
		{"repository by digest", block("r.example/a"), "r.example/a" + testDigest},
		{"tag", "[[registry]]\nprefix = \"r.example/a:x\"\nlocation = \"s.example/a:x\"\nblocked = true", "r.example/a:x"},
		{"capitals", block("r.example"), "R.Example/a"},
		{"capitals in the file", block("R.example"), "r.example/a"},
		{"the second of two", "[[registry]]\nprefix = \"r.example\"\nlocation = \"a.example\"\n[[registry]]\nprefix = \"r.example\"\nlocation = \"b.example\"\nblocked = true", "r.example/a"},
		{"with a mirror that is not", block("r.example") + "[[registry.mirror]]\nlocation = \"m.example\"", "r.example/a"},
		{"where it leads to", "[[registry]]\nprefix = \"r.example\"\nlocation = \"s.example\"\n" + block("s.example/a"), "r.example/a"},
		{"version 1", "[registries.insecure]\nregistries = [\"r.example\"]\n[registries.block]\nregistries = [\"r.example\"]", "r.example/a"},
	} {
		ref, err := remote.ParseReference(tc.image)
		if err != nil {
			t.Fatal(err)
		}
		if sites, err := load(t, t.TempDir(), tc.conf).Sites(t.Context(), ref); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %s: got %d sites and error %v, want %v", tc.name, tc.image, len(sites), err, ErrBlocked)
		}
	}
	for _, tc := range []struct{ conf, image string }{
		{block("r.example:5000"), "r.example/a"},
		{block("r.example:5000"), "r.example:50001/a"},
		{block("r.example"), "r.example.test/a"},
		{block("r.example/a"), "r.example/ab"},
		{block("r.example") + "[[registry]]\nlocation = \"r.example/a\"", "r.example/a/b"},
	} {
		ref, err := remote.ParseReference(tc.image)
		if err != nil {
			t.Fatal(err)
		}
		if sites, err := load(t, t.TempDir(), tc.conf).Sites(t.Context(), ref); len(sites) != 1 || err != nil {
			t.Errorf("%s with %q: got %d sites and error %v, want one", tc.image, tc.conf, len(sites), err)
		}
	}
}

// TestBlockedAsWritten: Docker Hub's other host is looked at before it is taken
// for docker.io.
func TestBlockedAsWritten(t *testing.T) {
	for _, prefix := range []string{"*.docker.io", "registry-1.docker.io", "registry-1.docker.io/library/fedora"} {
		conf := load(t, t.TempDir(), fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = \"x.example\"\nblocked = true\n[aliases]\nf = \"registry-1.docker.io/library/fedora\"", prefix))
		for _, name := range []string{"registry-1.docker.io/library/fedora", "f:40"} {
			if got, err := conf.ShortName(name); !errors.Is(err, ErrBlocked) {
				t.Errorf("%s blocked: %s means %q, error %v, want %v", prefix, name, got, err, ErrBlocked)
			}
		}
		if got, err := conf.ShortName("docker.io/library/fedora"); got != "docker.io/library/fedora" || err != nil {
			t.Errorf("%s blocked: docker.io/library/fedora means %q, error %v", prefix, got, err)
		}
	}
}
