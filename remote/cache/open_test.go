package cache

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	c := openFacade(t, dir)
	if c.Dir() != dir {
		t.Errorf("Dir() = %q, want %q", c.Dir(), dir)
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil || string(version) != "imgfs cache 1\n" {
		t.Errorf("version file %q, %v", version, err)
	}
	for _, sub := range []string{"", "blobs/sha256", "meta/sha256", "refs", "tmp"} {
		st, err := os.Stat(filepath.Join(dir, sub))
		if err != nil {
			t.Error(err)
		} else if st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s has mode %v", sub, st.Mode())
		}
	}
	openFacade(t, dir)
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string) error
		want string // in the error, besides dir
	}{
		{"a file", func(t *testing.T, dir string) error {
			return os.WriteFile(dir, nil, 0o600)
		}, "not a directory"},
		{"a file in place of a part", func(t *testing.T, dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "tmp"), nil, 0o600)
		}, "tmp: not a directory"},
		{"newer format", func(t *testing.T, dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "version"), []byte("imgfs cache 2\n"), 0o600)
		}, "format 2, which is newer than this imgfs knows (1)"},
		{"another program's", func(t *testing.T, dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "version"), []byte("7.1"), 0o600)
		}, "not that of an imgfs cache"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			if err := tt.make(t, dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, nil)
			if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want it to name %s and say %q", err, dir, tt.want)
			}
		})
	}
}

func TestOpenEmptyVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "version"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openFacade(t, dir)
	if got, err := os.ReadFile(filepath.Join(dir, "version")); string(got) != "imgfs cache 1\n" {
		t.Errorf("version file %q, %v", got, err)
	}
}

func TestDefaultDir(t *testing.T) {
	known := ""
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		known = u.HomeDir + "/.cache/imgfs"
	}
	tests := []struct{ xdg, unit, home, want string }{
		{"/var/x", "/var/cache/unit", "/home/u", "/var/x/imgfs"},
		{"", "/var/cache/unit:/var/cache/more", "/home/u", "/var/cache/unit"},
		{"", "", "/home/u", "/home/u/.cache/imgfs"},
		{"relative", "relative", "/home/u", "/home/u/.cache/imgfs"},
		{"", "", "", known},
	}
	for _, tt := range tests {
		if tt.want == "" {
			continue // who runs the tests has no name
		}
		t.Setenv("XDG_CACHE_HOME", tt.xdg)
		t.Setenv("CACHE_DIRECTORY", tt.unit)
		t.Setenv("HOME", tt.home)
		got, err := DefaultDir()
		if got != tt.want || err != nil {
			t.Errorf("XDG_CACHE_HOME=%q CACHE_DIRECTORY=%q HOME=%q: DefaultDir() = %q, %v; want %q", tt.xdg, tt.unit, tt.home, got, err, tt.want)
		}
	}
}

func openFacade(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
