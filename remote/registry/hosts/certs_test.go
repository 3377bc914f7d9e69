package hosts

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCertDirOfDockerHub(t *testing.T) {
	root := t.TempDir()
	dirs := CertDirs{root}
	for _, name := range []string{"docker.io", "registry-1.docker.io"} { // the second is the more exact one
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if got := dirs.of(apiHost("docker.io")); got != dir {
			t.Errorf("got %q, want %q", got, dir)
		}
	}
	if got := dirs.of("auth.docker.io"); got != "" {
		t.Errorf("another host: got %q", got)
	}
}
