package engines

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestModules: each engine has a module that pins it.
func TestModules(t *testing.T) {
	for name, e := range all {
		for _, file := range []string{"go.mod", "go.sum"} {
			if _, err := os.Stat(filepath.Join(name, file)); err != nil {
				t.Error(err)
			}
		}
		if len(e.packages) == 0 {
			t.Errorf("nothing is built of %s", name)
		}
	}
	if _, err := Build(t.Context(), "none"); err == nil || errors.Is(err, ErrNotBuilt) {
		t.Errorf("of an engine that nobody knows: %v", err)
	}
}
