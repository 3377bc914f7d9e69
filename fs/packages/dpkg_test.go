package packages

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
)

// queried returns what dpkg-query lists as installed of a status file, as NAME=VERSION/ARCH.
// The file is a copy, for dpkg to be free to change its own meanwhile.
func queried(t *testing.T, content string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "status"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg-query", "--admindir="+dir, "-W", "-f", "${Package}=${Version}/${Architecture} ${db:Status-Status}\n").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("dpkg-query: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		p, state, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch state {
		case "not-installed", "config-files", "half-installed": // their files are not there, or not all
		default:
			all = append(all, p)
		}
	}
	slices.Sort(all)
	return all
}

// states is a status file with a package in each state, and of each kind of stanza that
// dpkg writes.
func states() string {
	var b strings.Builder
	for i, state := range []string{
		"not-installed", "config-files\nConfig-Version: 1", "half-installed", "unpacked", "half-configured",
		"triggers-awaited\nTriggers-Awaited: libx++.1:i386", "triggers-pending\nTriggers-Pending: /x", "installed",
	} {
		fmt.Fprintf(&b, "Package: p%d\nStatus: install ok %s\nMaintainer: x <x@example.org>\nArchitecture: all\nVersion: %d:1~rc%d-1+b1\nDescription: x\n Package: y\n\tVersion: 2\n\n", i, state, i+1, i)
	}
	for _, arch := range []string{"amd64", "i386"} {
		fmt.Fprintf(&b, "Package: libx++.1\nStatus: hold ok installed\nMulti-Arch: same\nArchitecture: %s\nVersion: 1.0\nConffiles:\n /etc/x 0123 obsolete\n\n", arch)
	}
	return b.String()
}

// TestDpkg holds what is read of a status file against dpkg-query: of this machine's own,
// and of a file with all states.
func TestDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("no dpkg-query here")
	}
	for name, content := range map[string]func() (string, error){
		"states": func() (string, error) { return states(), nil },
		"own":    func() (string, error) { p, err := os.ReadFile("/var/lib/dpkg/status"); return string(p), err },
	} {
		t.Run(name, func(t *testing.T) {
			content, err := content()
			if err != nil || content == "" {
				t.Skipf("dpkg has installed nothing here: %v", err)
			}
			all := read(t, layertest.File("var/lib/dpkg/status", content))
			if len(all) != 1 || all[0].Err != nil {
				t.Fatalf("got %s", text(all))
			}
			var got []string
			for _, p := range all[0].Packages {
				got = append(got, p.Name+"="+p.Version+"/"+p.Arch)
			}
			slices.Sort(got)
			if want := queried(t, content); !slices.Equal(got, want) || len(got) == 0 {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			t.Logf("%d packages", len(got))
		})
	}
}
