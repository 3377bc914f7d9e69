//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestTreeIsTree compares imgfs tree with tree(1) in what umoci unpacks of the same image,
// byte for byte.
func TestTreeIsTree(t *testing.T) {
	testenv.Slow(t)
	needRoot(t) // to unpack with owners and devices
	need(t, "tree", "umoci")
	s := newSandbox(t)
	made, zoo := filepath.Join(s.dir, "made"), filepath.Join(s.dir, "zoo")
	if _, err := labimage.Write(made, findLayer); err != nil {
		t.Fatal(err)
	}
	if err := labimage.Zoo(zoo); err != nil {
		t.Fatal(err)
	}
	for layout, rootfs := range map[string]string{made: unpacked(t, made), zoo: unpacked(t, zoo)} {
		s.ok("index", "oci:"+layout)
		for _, c := range []struct{ flags, paths string }{
			{"", "."}, {"-a", "."}, {"-d", "."}, {"-ad", "."}, {"-f", "."}, {"-i", "."}, {"-fi", "."}, {"-L 1", "."}, {"-L 2 -d", "."}, {"-p", "."}, {"-s", "."}, {"-h", "."}, {"--si", "."}, {"-D", "."}, {"-F", "."}, {"-Ff", "."},
			{"-psD", "."}, {"-phDF -a", "."}, {"--noreport", "."}, {"-N", "."}, {"-Q", "."}, {"-QF", "."}, {"-r", "."}, {"-t", "."}, {"-tr", "."}, {"--sort=size", "."}, {"--sort=size -r", "."}, {"--dirsfirst", "."}, {"--filesfirst", "."}, {"-t --dirsfirst", "."}, {"-r --dirsfirst", "."},
			{"-P *.c", "."}, {"-P *.c|*.h", "."}, {"-P *.C --ignore-case", "."}, {"-P *.c --prune", "."}, {"-I *.c|names", "."}, {"-I d*", "."}, {"-a -I .git", "."}, {"--prune", "."}, {"-n", "."}, {"-x", "."}, {"--timefmt %Y-%m-%d", "."}, {"-D --timefmt=%s", "."},
			{"", "kinds deep void"}, {"-a", "deep/"}, {"-f", "deep/ void/"}, {"", "void"}, {"", "void deep/a/b"}, {"-L 1", "link content"}, {"-d", "name"}, {"--charset=UTF-8", "."}, {"--charset=ASCII", "."}, {"-ug", "etc kinds"},
		} {
			if layout == zoo && strings.HasPrefix(c.paths, "kinds") || c.flags == "-ug" && layout == zoo {
				continue
			}
			for _, locale := range []string{"LC_ALL=C.UTF-8", "LC_ALL=C"} {
				t.Run(fmt.Sprintf("%s %s %s %s", filepath.Base(layout), c.flags, c.paths, locale), func(t *testing.T) {
					var paths []string
					for _, path := range strings.Fields(c.paths) {
						if n, _ := s.output(t, s.command("find", "-q", "oci:"+layout, path, "-maxdepth", "0")); n != "" {
							paths = append(paths, path)
						}
					}
					if paths == nil {
						t.Skip("the image has none of the directories")
					}
					tree := s.program("tree", append(strings.Fields(c.flags), paths...)...)
					tree.Dir, tree.Env = rootfs, append(slices.Clip(tree.Env), locale, "TZ=UTC")
					want, wantErr := s.output(t, tree)
					ours := s.command(slices.Concat([]string{"tree", "-q"}, strings.Fields(c.flags), []string{"oci:" + layout}, paths)...)
					ours.Env = append(slices.Clip(ours.Env), locale, "TZ=UTC")
					if got, err := s.output(t, ours); got != want || (err != nil) != (wantErr != nil) {
						t.Errorf("imgfs tree and tree differ (errors %v, %v):\n%s", err, wantErr, differing(got, want))
					}
				})
			}
		}
	}
}
