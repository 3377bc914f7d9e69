package containersstorage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddImageStore edits files as people write them.
func TestAddImageStore(t *testing.T) {
	for _, tt := range []struct{ name, before, after string }{
		{"nothing", "", "\n[storage.options]\nadditionalimagestores = [\"/new\"]\n"},
		{"no options", "[storage]\ndriver = \"overlay\" # fast\n", "[storage]\ndriver = \"overlay\" # fast\n\n[storage.options]\nadditionalimagestores = [\"/new\"]\n"},
		{"no newline", "[storage]\ndriver = 'overlay'", "[storage]\ndriver = 'overlay'\n\n[storage.options]\nadditionalimagestores = [\"/new\"]\n"},
		{"options", "[storage]\n[storage.options] # mine\nsize = \"\"\n", "[storage]\n[storage.options] # mine\nadditionalimagestores = [\"/new\"]\nsize = \"\"\n"},
		{"an empty list", "[storage.options]\nadditionalimagestores = []\n", "[storage.options]\nadditionalimagestores = [\"/new\"]\n"},
		{"an empty list in lines", "[storage.options]\nadditionalimagestores = [\n]\n", "[storage.options]\nadditionalimagestores = [\"/new\"\n]\n"},
		{"a list", "[storage.options]\nadditionalimagestores=['/a']\nsize = \"\"\n", "[storage.options]\nadditionalimagestores=['/a', \"/new\"]\nsize = \"\"\n"},
		{"a list in lines", "[storage.options]\nadditionalimagestores = [ # \"]\n  \"/a\", # one\n  \"/b\", # ]\n]\n[x]\ny=1\n",
			"[storage.options]\nadditionalimagestores = [ # \"]\n  \"/a\", # one\n  \"/b\", \"/new\" # ]\n]\n[x]\ny=1\n"},
		{"a comment", "[storage.options]\n# additionalimagestores = [\"/old\"]\n", "[storage.options]\nadditionalimagestores = [\"/new\"]\n# additionalimagestores = [\"/old\"]\n"},
		{"strings", "[storage]\nx = \"\"\"\n[storage.options]\nadditionalimagestores = []\n\"\"\"\ny = 'a\\'\nz = \"\\\"#\"\n[ \"storage\" . options ]\n",
			"[storage]\nx = \"\"\"\n[storage.options]\nadditionalimagestores = []\n\"\"\"\ny = 'a\\'\nz = \"\\\"#\"\n[ \"storage\" . options ]\nadditionalimagestores = [\"/new\"]\n"},
		{"dotted", "[storage]\noptions.additionalimagestores = [\"/a\"]\n", "[storage]\noptions.additionalimagestores = [\"/a\", \"/new\"]\n"},
		{"options of a driver", "[storage]\n[storage.options.overlay]\nmountopt = \"nodev\"\n", "[storage]\n[storage.options.overlay]\nmountopt = \"nodev\"\n\n[storage.options]\nadditionalimagestores = [\"/new\"]\n"},
		{"DOS", "[storage.options]\r\nadditionalimagestores = [ \"/a\" ]\r\n", "[storage.options]\r\nadditionalimagestores = [ \"/a\", \"/new\" ]\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := addImageStore([]byte(tt.before), "/new")
			if err != nil || string(got) != tt.after {
				t.Errorf("got error %v and\n%s\nwant\n%s", err, got, tt.after)
			}
		})
	}
	for _, before := range []string{
		"[storage]\noptions = {size = \"\"}\n",
		"storage.options.additionalimagestores = [\"/a\"]\n",
		"[storage.options]\n\"additionalimagestores\" = [\"/a\"]\n",
		"[storage.options]\nadditionalimagestores = \"/a\"\n",
	} {
		if got, err := addImageStore([]byte(before), "/new"); !errors.Is(err, errEdit) {
			t.Errorf("%q: got error %v and\n%s", before, err, got)
		}
	}
	if _, err := addImageStore([]byte("[storage"), "/new"); err == nil {
		t.Error("no error for what is no TOML")
	}
}

// TestWithImageStore: a user's new file has what the machine's says, but not where the
// machine's store is.
func TestWithImageStore(t *testing.T) {
	dir := t.TempDir()
	machine := filepath.Join(dir, "machine.conf")
	if err := os.WriteFile(machine, []byte("[storage]\n# why\ngraphroot = \"/var/lib\"\n  runroot = \"/run\"\n[storage.options.overlay]\nmountopt = \"nodev\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{File: machine, Own: filepath.Join(dir, "own.conf"), Rootless: true}
	got, err := c.WithImageStore("/new")
	want := "[storage]\n# why\n# graphroot = \"/var/lib\"\n#   runroot = \"/run\"\n[storage.options.overlay]\nmountopt = \"nodev\"\n\n[storage.options]\nadditionalimagestores = [\"/new\"]\n"
	if err != nil || string(got) != want {
		t.Errorf("got error %v and\n%s\nwant\n%s", err, got, want)
	}
	c.Rootless = false
	if got, err := c.WithImageStore("/new"); err != nil || !strings.Contains(string(got), "\ngraphroot") {
		t.Errorf("of root: got error %v and\n%s", err, got)
	}
	if got, err := (&Config{Own: c.Own}).WithImageStore("/new"); err != nil || !strings.Contains(string(got), "driver = \"overlay\"") {
		t.Errorf("without any file: got error %v and\n%s", err, got)
	}
	if err := os.WriteFile(c.Own, []byte("[storage]\ngraphroot = \"/mine\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Rootless = true
	if got, err := c.WithImageStore("/new"); err != nil || !strings.HasPrefix(string(got), "[storage]\ngraphroot = \"/mine\"\n") {
		t.Errorf("of a file that is there: got error %v and\n%s", err, got)
	}
}
