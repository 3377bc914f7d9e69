package registry

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

// A configuration that is malformed is read again, by the same client and for
// the same repository, and one that is right is not.
func TestConfigurationIsReadAgain(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	path := filepath.Join(home, ".config", "containers", "registries.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	c := New(nil)
	defer c.Close()
	ref, err := remote.ParseReference("registry.example/a")
	if err != nil {
		t.Fatal(err)
	}
	r := c.Repository(ref)
	for _, step := range []struct {
		text string
		ok   bool
	}{{"[[registry", false}, {"x = ", false}, {"# nothing", true}, {"[[registry", true}} {
		if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := r.endpoints(t.Context())
		if (err == nil) != step.ok || step.ok && len(all) != 1 {
			t.Errorf("%q: %d endpoints, %v", step.text, len(all), err)
		}
	}
}
