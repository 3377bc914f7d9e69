//go:build linux

package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// zooChanges change the zoo in every way, at names that a line of diff can have.
func zooChanges(a *labimage.Archive) error {
	stamp := labimage.ModTime(time.Unix(1_600_000_000, 5))
	return errors.Join(
		a.File("content/one", "2"), a.File("content/empty", "no longer"), a.File("content/block", strings.Repeat("b", 511)), a.Dir("content/empty-dir", labimage.Mode(0o700)),
		a.Sparse("sparse/pax", 10<<20, labimage.Chunk{Off: 4096, Data: "other"}), a.File("sparse/pax-hole-at-end", "start"+strings.Repeat("\x00", 2<<20-5)),
		a.Symlink("kind/symlink", "dir"), a.File("kind/null", "a file now"), a.Device("kind/tty300", tar.TypeChar, 4, 301, labimage.Mode(0o620), labimage.Owner(0, 5)),
		a.Whiteout("kind/dir"), a.Symlink("kind/dir", "/"), a.Whiteout("kind/file"), a.Dir("kind/file"), a.File("kind/file/below", "x"),
		a.File("mode/setuid", "#!/bin/true\n", labimage.Mode(0o755)), a.File("mode/owned", "1000:1001\n", labimage.Owner(1001, 1001)), a.Dir("mode/closed-dir", labimage.Mode(0o100)),
		a.File("xattr/binary", "x", labimage.Xattr("user.binary", "\x00\x01\xfe\xff=\r")), a.File("xattr/capability", "#!/bin/true\n", labimage.Mode(0o755)), a.Dir("xattr", labimage.Xattr("user.on-dir", "no")),
		a.File("time/epoch", "x", stamp), a.Symlink("time/symlink", "epoch", stamp), a.Dir("time", stamp),
		a.File("link/first", "one inode no more\n", stamp), a.Link("link/fifth", "link/fourth", labimage.ModTime(time.Date(2024, 2, 3, 5, 5, 6, 0, time.UTC))), a.Fifo("link/fifo-too"), a.Whiteout("link/sub"),
		a.Whiteout("old"), a.Dir("new"), a.Dir("new/dir"), a.File("new/dir/file", "new"), a.Symlink("new/link", "dir"), a.File("name/with space", "y"), a.File("name/...", "y"),
	)
}

// randomTree writes some of few names, so that two of them have many in common.
func randomTree(seed uint64) labimage.Layer {
	return func(a *labimage.Archive) error {
		r := rand.New(rand.NewPCG(seed, 7))
		type file struct {
			name string
			opts []labimage.Option
		}
		var files []file
		var errs []error
		for d := range 6 {
			dir := fmt.Sprintf("d%d", d)
			errs = append(errs, a.Dir(dir, labimage.Mode(0o700+r.Int64N(2)), labimage.ModTime(time.Unix(r.Int64N(2), 0))))
			for f := range 40 {
				name := fmt.Sprintf("%s/f%d", dir, f)
				opts := []labimage.Option{labimage.Mode(0o640 + r.Int64N(2)), labimage.Owner(r.IntN(2), 0), labimage.ModTime(time.Unix(r.Int64N(2)+1e9, 0))}
				if r.IntN(4) == 0 {
					opts = append(opts, labimage.Xattr("user.x", strconv.Itoa(r.IntN(2))))
				}
				switch n := r.IntN(16); {
				case n == 0:
					errs = append(errs, a.Dir(name), a.File(name+"/below", "x"))
				case n == 1:
					errs = append(errs, a.Symlink(name, []string{"f1", "f2"}[r.IntN(2)]))
				case n == 2:
					errs = append(errs, a.Device(name, []byte{tar.TypeChar, tar.TypeBlock}[r.IntN(2)], 1, r.Int64N(2), opts[:3]...))
				case n == 3:
					errs = append(errs, a.Sparse(name, 1<<20, labimage.Chunk{Off: 4096 * r.Int64N(2), Data: "sparse"}))
				case n < 6 && len(files) > 0:
					to := files[r.IntN(len(files))]
					errs = append(errs, a.Link(name, to.name, to.opts...)) // other attributes would be the file's, too
				case n < 8:
				default:
					errs = append(errs, a.File(name, []string{"", "a", "b", "aa", "a\nb\n"}[r.IntN(5)], opts...))
					files = append(files, file{name, opts})
				}
			}
		}
		return errors.Join(errs...)
	}
}

// diffLayouts writes pairs of images, by name.
func diffLayouts(t *testing.T, dir string) map[string][2]string {
	t.Helper()
	pairs := map[string][2]string{
		"zoo and changes": {filepath.Join(dir, "zoo"), filepath.Join(dir, "changed")},
		"zoo and a tree":  {filepath.Join(dir, "zoo"), filepath.Join(dir, "random-0-0")},
	}
	if err := errors.Join(labimage.Zoo(filepath.Join(dir, "zoo")), labimage.Zoo(filepath.Join(dir, "changed"), zooChanges)); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3) {
		pair := [2]string{}
		for i := range pair {
			pair[i] = filepath.Join(dir, fmt.Sprintf("random-%d-%d", seed, i))
			if _, err := labimage.Write(pair[i], randomTree(2*seed+uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
		pairs[fmt.Sprintf("random %d", seed)] = pair
	}
	return pairs
}

// A seen change is what imgfs diff --json says of a path, or what follows from two dumps.
type seenChange struct{ kind, what string }

// jsonChanges are the changes that imgfs diff --json printed, by path.
func jsonChanges(t *testing.T, out string) map[string]seenChange {
	t.Helper()
	var list []struct {
		Path      string   `json:"path"`
		PathBytes []byte   `json:"pathBytes"`
		Kind      string   `json:"kind"`
		What      []string `json:"what"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%.500s", err, out)
	}
	all := make(map[string]seenChange)
	for _, c := range list {
		name := c.Path
		if c.PathBytes != nil {
			name = string(c.PathBytes)
		}
		if _, twice := all[name]; twice {
			t.Errorf("%q is told twice", name)
		}
		all[name] = seenChange{c.Kind, strings.Join(c.What, ",")}
	}
	return all
}

var dumpPattern = regexp.MustCompile(`^mode=([0-7]+) owner=(\S+) links=\d+ size=(\d+) mtime=(\S+) rdev=(\S+) group=("(?:[^"\\]|\\.)*") target=(".*") xattrs=(.*) sha256=(\S*)$`)

// dumpChanges are the changes between two dumps, by path.
func dumpChanges(t *testing.T, a, b dump) map[string]seenChange {
	t.Helper()
	var sides [2]map[string][]string
	for i, d := range []dump{a, b} {
		sides[i] = make(map[string][]string)
		for quoted, line := range d {
			name, err := strconv.Unquote(quoted)
			columns := dumpPattern.FindStringSubmatch(line)
			if err != nil || columns == nil {
				t.Fatalf("a dump has the line %s %s", quoted, line)
			}
			sides[i][path.Clean("/"+name)] = columns[1:]
		}
	}
	all := make(map[string]seenChange)
	var both []string
	for name := range sides[0] {
		if sides[1][name] == nil {
			all[name] = seenChange{kind: "removed"}
		} else {
			both = append(both, name)
		}
	}
	for name := range sides[1] {
		if sides[0][name] == nil {
			all[name] = seenChange{kind: "added"}
		}
	}
	slices.Sort(both)
	var first [2]map[string]string // the first path of a group
	first[0], first[1] = make(map[string]string), make(map[string]string)
	for _, name := range both {
		x, y := sides[0][name], sides[1][name]
		for i, columns := range [][]string{x, y} {
			if _, ok := first[i][columns[5]]; !ok {
				first[i][columns[5]] = name
			}
		}
		modeX, _ := strconv.ParseUint(x[0], 8, 32)
		modeY, _ := strconv.ParseUint(y[0], 8, 32)
		typX, typY := modeX&0o170000, modeY&0o170000
		of := func(typ uint64) bool { return typX == typ || typY == typ }
		var words []string
		note := func(word string, yes bool) {
			if yes {
				words = append(words, word)
			}
		}
		note("type", typX != typY)
		note("content", typX == typY && x[8] != y[8])
		note("target", typX == typY && x[6] != y[6])
		note("device", typX == typY && x[4] != y[4])
		note("mode", !of(0o120000) && modeX&0o7777 != modeY&0o7777)
		note("owner", x[1] != y[1])
		note("time", !of(0o040000) && x[3] != y[3])
		note("xattrs", x[7] != y[7])
		note("hardlinks", typX == typY && first[0][x[5]] != first[1][y[5]])
		if len(words) > 0 {
			all[name] = seenChange{"changed", strings.Join(words, ",")}
		}
	}
	return all
}

var (
	onlyLine = regexp.MustCompile(`^Only in (.*): (.*)$`)
	pairLine = regexp.MustCompile(`^(?:Files|Symbolic links|Character special files|Block special files) (.*) and (.*) differ$`)
	typeLine = regexp.MustCompile(`^File (.*) is an? (.*) while file (.*) is an? (.*)$`)
)

// diffChanges are what diff -r finds in two trees: + what only the second has, - what
// only the first has, ~ what is not the same.
func diffChanges(t *testing.T, s *sandbox, a, b string) (all []string, code int) {
	t.Helper()
	cmd := s.program("diff", "-r", "-q", "--no-dereference", a, b)
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	r := s.finish(cmd)
	if r.stderr != "" {
		t.Errorf("diff says %s", r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		line = strings.TrimSuffix(line, "\n")
		if m := onlyLine.FindStringSubmatch(line); m != nil {
			if below, ok := strings.CutPrefix(m[1]+"/", a+"/"); ok {
				all = append(all, "- /"+below+m[2])
			} else {
				all = append(all, "+ /"+strings.TrimPrefix(m[1]+"/", b+"/")+m[2])
			}
		} else if m := pairLine.FindStringSubmatch(line); m != nil {
			all = append(all, "~ "+strings.TrimPrefix(m[1], a))
		} else if m := typeLine.FindStringSubmatch(line); m == nil {
			t.Errorf("diff says %q", line)
		} else if m[2] != m[4] { // two fifos are never the same for it
			all = append(all, "~ "+strings.TrimPrefix(m[1], a))
		}
	}
	slices.Sort(all)
	return all, r.code
}

// asDiff leaves of changes what diff -r tells: nothing of attributes, of the numbers of
// devices nothing that it does not say of two fifos, too, and of directories that only
// one side has nothing of what is in them.
func asDiff(changes map[string]seenChange) (all []string) {
	for name, c := range changes {
		above := changes[path.Dir(name)]
		_, told := changes[path.Dir(name)]
		if c.kind != "changed" {
			if !told || above.kind == "changed" && !strings.HasPrefix(above.what, "type") {
				all = append(all, map[string]string{"added": "+ ", "removed": "- "}[c.kind]+name)
			}
			continue
		}
		for _, word := range []string{"type", "content", "target"} {
			if strings.HasPrefix(c.what, word) {
				all = append(all, "~ "+name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// TestDiffIsDiff compares imgfs diff with diff(1), and with all that lstat says, in what
// umoci unpacks of the same images.
func TestDiffIsDiff(t *testing.T) {
	testenv.Slow(t)
	needRoot(t) // to unpack with owners and devices
	need(t, "diff", "umoci")
	s := newSandbox(t)
	roots := make(map[string]string)
	for name, pair := range diffLayouts(t, s.dir) {
		for _, layout := range pair {
			if roots[layout] == "" {
				roots[layout] = unpacked(t, layout)
			}
		}
		t.Run(name, func(t *testing.T) {
			a, b := roots[pair[0]], roots[pair[1]]
			r := s.run("diff", "-q", "--json", "oci:"+pair[0], "oci:"+pair[1])
			if r.code != exitDifferent || r.stderr != "" {
				t.Errorf("imgfs diff: exit code %d; %s", r.code, r.stderr)
			}
			got, want := jsonChanges(t, r.stdout), dumpChanges(t, dumpOf(t, s.account, a), dumpOf(t, s.account, b))
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%q: imgfs says %q, the trees are %q", name, got[name], want[name])
				}
			}
			for name := range got {
				if _, ok := want[name]; !ok {
					t.Errorf("%q: imgfs says %q, the trees are the same", name, got[name])
				}
			}
			if len(want) < 30 {
				t.Errorf("%d changes", len(want))
			}
			if name == "zoo and a tree" {
				return // its names have newlines, and diff prints them
			}
			lines, code := diffChanges(t, s, a, b)
			if g, w := strings.Join(asDiff(got), "\n"), strings.Join(lines, "\n"); g != w || code != r.code {
				t.Errorf("imgfs diff and diff differ (exit codes %d and %d):\n%s", r.code, code, differing(g, w))
			}
			for _, layout := range pair {
				if r := s.run("diff", "oci:"+layout, "oci:"+layout); r.code != 0 || r.stdout+r.stderr != "" {
					t.Errorf("an image and itself: exit code %d; %s%s", r.code, r.stdout, r.stderr)
				}
			}
		})
	}
}
