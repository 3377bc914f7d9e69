//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestTablesFitPipes has the tables of all commands, of an image with long names and many
// layers, in a pipe: they take 80 columns, or what COLUMNS says.
func TestTablesFitPipes(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	long := strings.Repeat("directory-", 20)
	status := func(version string) labimage.Layer {
		text := ""
		for i := range 3 {
			text += fmt.Sprintf("Package: %s%d\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\n\n", strings.Repeat("package-", 12), i, version+strings.Repeat(".1", 40))
		}
		return func(a *labimage.Archive) error {
			return errors.Join(a.Dir("var"), a.Dir("var/lib"), a.Dir("var/lib/dpkg"), a.File("var/lib/dpkg/status", text), a.File(long, version))
		}
	}
	images := make([]string, 2)
	for i := range images {
		layout := filepath.Join(t.TempDir(), "layout")
		layers := []labimage.Layer{small, status(fmt.Sprint(i + 1))}
		for n := range 12 {
			layers = append(layers, func(a *labimage.Archive) error {
				return a.File(fmt.Sprintf("%s%d", long, n), strings.Repeat("x", i*n<<12))
			})
		}
		if _, err := labimage.Write(layout, layers...); err != nil {
			t.Fatal(err)
		}
		repository := fmt.Sprintf("%s/%s%d", strings.Repeat("organisation-", 4)+"x", strings.Repeat("repository-", 6)+"x", i)
		if err := reg.PushLayout(layout, repository); err != nil {
			t.Fatal(err)
		}
		images[i] = reg.Host() + "/" + repository
	}
	s := newSandbox(t)
	settings := filepath.Join(s.dir, strings.Repeat("settings-", 12)+".toml")
	if err := os.WriteFile(settings, []byte("index-repo = [\""+reg.Host()+"/"+strings.Repeat("indexes-", 12)+"x\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"index", images[0]}, {"index", "push", images[0]}, {"history", images[1]}, {"du", "--layers", images[1]}, {"diff", "--stat", images[0], images[1]},
		{"diff", "--packages", images[0], images[1]}, {"stat", images[1], "/" + long}, {"config"}, {"cache", "ls"},
	} {
		for _, columns := range []int{80, 50} {
			cmd := s.command(append(args, "-q")...)
			cmd.Env = append(cmd.Env, fmt.Sprintf("COLUMNS=%d", columns), "IMGFS_CONFIG="+settings)
			if columns == 80 {
				cmd.Env[len(cmd.Env)-2] = "COLUMNS="
			}
			r := s.finish(cmd)
			if r.stdout == "" || r.code > 1 || r.code == 1 && args[0] != "diff" {
				t.Errorf("imgfs %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
			}
			text := r.stdout
			if args[0] == "stat" { // GNU's lines stay as they are
				_, text, _ = strings.Cut(text, "\nHistory:")
			}
			checkFits(t, args, text, columns)
		}
	}
}
