package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// at has the variable name a file with a text.
func at(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(Variable, path)
	return path
}

func TestLoad(t *testing.T) {
	path := at(t, `# a comment = no key
offline = true
"cache-size" = '20G' # much
index-repo = [
  "a/b",
  "c/d",
]
retries=3

[mount]
  prefetch = false
[ cache . ls ]
json = true
[empty]
`)
	f, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	want := &File{path, []Setting{
		{"", "offline", []string{"true"}, 2},
		{"", "cache-size", []string{"20G"}, 3},
		{"", "index-repo", []string{"a/b", "c/d"}, 4},
		{"", "retries", []string{"3"}, 8},
		{"mount", "", nil, 10},
		{"mount", "prefetch", []string{"false"}, 11},
		{"cache ls", "", nil, 12},
		{"cache ls", "json", []string{"true"}, 13},
		{"empty", "", nil, 14},
	}}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f, want)
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"offline = yes":  ":1: ",
		"a = 1\na = 2":   ":2: ",
		"a = 1\nb = 1.5": ":2: b: it is no text",
		"b = 2020-01-01": ":1: b: it is no text",
		"b = [1]":        ":1: b: a list has texts",
		"[[b]]\nc = 1":   ": b: ",
		"a = \"\x1b[31m": ":1: ",
		"a = '''" + strings.Repeat("x", maxSize) + "'''": "more than",
	} {
		path := at(t, text)
		_, err := Load()
		var failed *Error
		if !errors.As(err, &failed) || failed.Path != path || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got the error %v, want %s%s", text, err, path, want)
		}
	}
}

// TestPath: where the file is looked for, and when it must be there.
func TestPath(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv(Variable, "")
	if path, named := Path(); path != "" || !named {
		t.Errorf("with an empty variable: %q, %v", path, named)
	}
	os.Unsetenv(Variable)
	for xdg, want := range map[string]string{"": home + "/.config", "relative": home + "/.config", home + "/xdg": home + "/xdg"} {
		t.Setenv("XDG_CONFIG_HOME", xdg)
		if path, named := Path(); path != want+"/imgfs/config.toml" || named {
			t.Errorf("XDG_CONFIG_HOME=%s: %s, %v", xdg, path, named)
		}
	}
	if f, err := Load(); err != nil || f.Path != "" || f.Settings != nil {
		t.Errorf("without a file: %+v, error %v", f, err)
	}
	t.Setenv(Variable, home+"/none.toml")
	if _, err := Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is named and not there: error %v", err)
	}
	t.Setenv("HOME", "")
	os.Unsetenv(Variable)
	t.Setenv("XDG_CONFIG_HOME", "")
	if path, _ := Path(); path != "" {
		t.Errorf("without a home directory: %s", path)
	}
}

// TestUnsafe: what is no file, and what somebody else may have written, is not read, and
// nothing is waited for.
func TestUnsafe(t *testing.T) {
	path := at(t, "offline = true\n")
	for _, mode := range []os.FileMode{0o620, 0o602, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(); !errors.Is(err, ErrUnsafe) {
			t.Errorf("mode %o: error %v", mode, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv(Variable, link)
	if _, err := Load(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a symlink to such a file: error %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err := Load(); err != nil || len(f.Settings) != 1 {
		t.Errorf("a symlink: %v, error %v", f, err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("somebody's file: error %v", err)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir(), "/dev/null"} {
		t.Setenv(Variable, path)
		if _, err := Load(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: error %v", path, err)
		}
	}
}
