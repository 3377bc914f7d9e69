//go:build linux

package main

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// entriesOf reads what a command printed with --json.
func entriesOf(t *testing.T, text string) []entry.Entry {
	t.Helper()
	checkHarmless(t, "--json", text)
	var all []entry.Entry
	if err := show.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return all
}

// TestLsJSON compares ls --json with the same ls without it, and with find --json.
func TestLsJSON(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, lsLayer("", "")); err != nil {
		t.Fatal(err)
	}
	image, cache := "oci:"+layout, "--cache-dir="+t.TempDir()
	list := func(args ...string) string { return succeed(t, append([]string{"ls", cache}, args...)...) }
	for _, dir := range []string{"/", "/names", "/sizes", "/times", "/versions", "/kinds", "/void"} {
		for _, flags := range []string{"", "-a", "-A", "-B", "-I*e*", "-r", "-t", "-tr", "-S", "-X", "-U", "-f", "-v", "--group-directories-first", "-F", "-C", "-lh", "-is", "--color=always"} {
			flags := strings.Split(strings.Replace(flags, "-v", "--sort=version", 1), " ")
			if flags[0] == "" {
				flags = nil
			}
			var got []string
			for _, e := range entriesOf(t, list(slices.Concat(flags, []string{"--json", image, dir})...)) {
				name := strings.TrimPrefix(strings.TrimPrefix(e.Path, dir), "/")
				if name == "" {
					name = "."
				}
				got = append(got, name+"\x00")
			}
			want := strings.SplitAfter(list(slices.Concat(flags, []string{"--zero", "-1", "--indicator-style=none", "--format=single-column", image, dir})...), "\x00")
			if want = want[:len(want)-1]; slices.Contains(flags, "-is") {
				want = want[1:]       // the total
				for i := range want { // INODE BLOCKS NAME
					_, want[i], _ = strings.Cut(strings.TrimLeft(want[i], " "), " ")
					_, want[i], _ = strings.Cut(strings.TrimLeft(want[i], " "), " ")
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("ls %s --json %s:\n%q\nwithout --json:\n%q", flags, dir, got, want)
			}
		}
	}
	if got, want := list("-RA", "--json", image), succeed(t, "find", cache, "--json", image, "-mindepth", "1"); !sameEntries(t, got, want) {
		t.Error("ls -RA --json and find --json have not the same files")
	}
	if got, want := list("-d", "--json", image, "/kinds", "names//.", "etc/passwd"), succeed(t, "find", cache, "--json", image, "/etc/passwd", "/kinds", "/names", "-maxdepth", "0"); !sameEntries(t, got, want) {
		t.Errorf("ls -d --json:\n%s\nfind --json:\n%s", got, want)
	}
	// A path through .. of a symlink is that of no other file.
	if got := entriesOf(t, list("-d", "--json", image, "/kinds/up/..", "/kinds/./to-dir/../plain")); len(got) != 2 || got[0].Path != "/kinds/to-dir/../plain" || got[1].Path != "/kinds/up/.." {
		t.Errorf("got %+v", got)
	}
	if got := list("--json", image, "/void"); got != "[]\n" {
		t.Errorf("an empty directory is %q", got)
	}
}

// sameEntries reports whether two documents have the same files, in whatever order.
func sameEntries(t *testing.T, a, b string) bool {
	t.Helper()
	sorted := func(text string) []string {
		entriesOf(t, text)
		list := strings.Split(strings.ReplaceAll(text, "},\n", "}\n"), "\n")
		slices.Sort(list)
		return list
	}
	return slices.Equal(sorted(a), sorted(b))
}

// TestLsJSONFollows has symlinks that lead to files, and nowhere.
func TestLsJSONFollows(t *testing.T) {
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, lsLayer("", "")); err != nil {
		t.Fatal(err)
	}
	cache := "--cache-dir=" + t.TempDir()
	r := invoke(t, "ls", cache, "-L", "--json", "oci:"+layout, "/kinds")
	types := map[string]string{}
	for _, e := range entriesOf(t, r.stdout) {
		types[path.Base(e.Path)] = e.Type
	}
	if types["to-dir"] != "dir" || types["to-program"] != "file" || types["dangling"] != "" || types["null"] != "char" {
		t.Errorf("got %v", types)
	}
	if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "/kinds/dangling: the symlink leads nowhere") {
		t.Errorf("got exit code %d and\n%s", r.code, r.stderr)
	}
	r = invoke(t, "ls", cache, "--json", "oci:"+layout, "/kinds/to-dir", "/no/where", "/kinds/to-program", "/names/\xff\xfe")
	got := entriesOf(t, r.stdout)
	if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "/no/where") || len(got) != 2 {
		t.Fatalf("got exit code %d, %+v and\n%s", r.code, got, r.stderr)
	}
	if got[0].Target != "program" || got[1].Path != "/names/\xff\xfe" {
		t.Errorf("got %+v", got)
	}
}

// TestLsJSONLayers has the layers of files, which are there with --layers alone.
func TestLsJSONLayers(t *testing.T) {
	alone(t)
	cache, image := "--cache-dir="+t.TempDir(), cookedImage(t, cookedSteps)
	var got []string
	for line := range strings.Lines(succeed(t, "ls", cache, "--layers", "--json", image)) {
		var e ls.Listed
		if line = strings.Trim(line, " ,\n"); !strings.HasPrefix(line, "{") {
			continue
		}
		if err := show.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v:\n%s", err, line)
		}
		got = append(got, fmt.Sprint(e.Layer, " ", strings.TrimPrefix(e.Path, "/"), "\n"))
	}
	if want := succeed(t, "ls", cache, "--layers", image); strings.Join(got, "") != want {
		t.Errorf("with --json:\n%swithout:\n%s", strings.Join(got, ""), want)
	}
	if out := succeed(t, "ls", cache, "--json", image); strings.Contains(out, `"layer"`) {
		t.Errorf("without --layers:\n%s", out)
	}
}
