//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestStat(t *testing.T) {
	alone(t)
	cache, image := t.TempDir(), cookedImage(t, cookedSteps)
	text := succeed(t, "stat", "-q", "--cache-dir", cache, image, "/bin/sh")
	for _, want := range []string{"  File: /bin/sh\n  Size: 6         \tBlocks: 1          IO Block: 4096   regular file\n", "Links: 1\n", "Access: (0644/-rw-r--r--)  Uid: (    0/    root)   Gid: (    0/ UNKNOWN)\n",
		"Modify: 1970-01-01 00:00:00.000000000 +0000\n", "Digest: sha256:", "\n Layer: 2 sha256:", `(RUN apt-get install x && rm -rf\x1b /old)`, "1  added     0644  3  ADD file:1 in /", "2  replaced  0644  6  RUN apt-get"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := succeed(t, "stat", "-q", "--cache-dir", cache, image, "bin"); !strings.Contains(text, "File: bin -> usr/bin\n") || !strings.Contains(text, " Layer: 1 ") {
		t.Errorf("a symlink: got\n%s", text)
	}
	if text := succeed(t, "stat", "-q", "--cache-dir", cache, "-L", image, "bin"); !strings.Contains(text, "directory") || !strings.Contains(text, " Layer: 1 ") {
		t.Errorf("followed: got\n%s", text)
	}
	var docs []statDoc
	if err := show.Unmarshal([]byte(succeed(t, "stat", "-q", "--json", "--cache-dir", cache, image+":/usr/bin/sh")), &docs); err != nil || len(docs) != 1 {
		t.Fatalf("error %v, %d files", err, len(docs))
	}
	if d := docs[0]; d.Path != "/usr/bin/sh" || d.Layer != 2 || len(d.History) != 2 || d.History[1].Change != "replaced" || d.History[0].Size != 3 || d.Gone {
		t.Errorf("got %+v", d)
	}
	// bin is a symlink to usr/bin: without the dots the path would be another one.
	docs = parsed[[]statDoc](t, "stat", "-q", "--json", "--cache-dir", cache, image, "bin/.././bin/sh")
	if len(docs) != 1 || docs[0].Path != "/bin/../bin/sh" || docs[0].Size != 6 {
		t.Errorf("with dots: got %+v", docs)
	}
	for _, format := range []string{"%5", "%a %-5%", "%#"} {
		checkRefusal(t, invoke(t, "stat", "-c", format, image, "bin"), cli.ExitUsage, []string{"the format has no letter after %"}, "")
	}
}

// TestStatGone has paths that a layer hides, or that no layer has.
func TestStatGone(t *testing.T) {
	alone(t)
	cache, image := t.TempDir(), cookedImage(t, cookedSteps)
	r := invoke(t, "stat", "-q", "--cache-dir", cache, image, "old/b/c")
	if r.code != cli.ExitFailure || !strings.Contains(r.stdout, "not in the image any more: hidden by layer 2 sha256:") || !strings.Contains(r.stdout, "1  added   0644  1") || !strings.Contains(r.stdout, "2  hidden") {
		t.Errorf("got exit code %d and\n%s", r.code, r.stdout)
	}
	_, hint, _ := strings.Cut(r.stderr, "hint: imgfs ")
	words := strings.Fields(strings.ReplaceAll(hint, "'", ""))
	if len(words) != 5 {
		t.Fatalf("there is no hint:\n%s", r.stderr)
	}
	if got := succeed(t, append(words, "-q", "--cache-dir", cache)...); got != "1" {
		t.Errorf("imgfs %q printed %q, want 1", words, got)
	}
	var docs []statDoc
	r = invoke(t, "stat", "-q", "--json", "--cache-dir", cache, image, "/old", "/no", "/x")
	if err := show.Unmarshal([]byte(r.stdout), &docs); err != nil || r.code != cli.ExitFailure || len(docs) != 2 || !docs[0].Gone || docs[0].Layer != 2 || docs[1].Path != "/x" || docs[1].Layer != 3 {
		t.Errorf("error %v, exit code %d, %+v", err, r.code, docs)
	}
	if !strings.Contains(r.stderr, "/no: no such file") || !strings.Contains(r.stderr, "imgfs ls --layer 1") {
		t.Errorf("got on stderr\n%s", r.stderr)
	}
	for _, args := range [][]string{{"stat"}, {"stat", image}} {
		if r := invoke(t, args...); r.code != cli.ExitUsage {
			t.Errorf("imgfs %q: got exit code %d", args, r.code)
		}
	}
}

// TestStatIsStats compares what formats print with stat(1) on the same files.
func TestStatIsStats(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	need(t, "stat", "tar")
	alone(t)
	blob := tarFiles(t, "a", "12345", "empty", "", "it's", "x", "one->=a", "", "two\nlines", "x", "dir/", "", "l->dir", "", "l2->no where", "")
	image, dir := layersImage(t, nil, blob), t.TempDir()
	cmd := exec.Command("tar", "-xpC", dir)
	cmd.Stdin = strings.NewReader(string(blob))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cache := t.TempDir()
	files := []string{"a", "one", "empty", "it's", "two\nlines", "dir", "l", "l2"}
	for _, format := range []string{"%n %N %a %A %u %g %F %y %Y %f %B", "%-10s|%10n|%.2n|%04a|%#a|%-6a|%06u|%.3Y|%5F|%%|%", "%h", "x%\\n\\x41z|\\x4g\\0101\\e|", "%#f %-8f| %08s"} {
		for _, flag := range []string{"-c", "--printf"} {
			for _, file := range files {
				if (strings.Contains(format, "s") || strings.Contains(format, "h")) && file == "dir" {
					continue // file systems differ
				}
				if flag == "--printf" && strings.HasSuffix(format, "%") {
					continue // stat takes the escape behind it for a letter
				}
				typed := format + `\n\t\101`
				stat := exec.Command("stat", flag+"="+typed, file)
				if flag == "-c" {
					typed = format
					stat = exec.Command("stat", flag, typed, file)
				}
				stat.Dir, stat.Env = dir, append(os.Environ(), "TZ=UTC", "LC_ALL=C")
				want, err := stat.Output()
				if err != nil {
					t.Fatal(err)
				}
				if got := succeed(t, "stat", "-q", "--cache-dir", cache, flag, typed, image, file); got != string(want) {
					t.Errorf("%s %q of %q:\n got %q\nwant %q", flag, typed, file, got, want)
				}
			}
		}
	}
}

// TestLayersOfFiles is of ls --layers and du --layers.
func TestLayersOfFiles(t *testing.T) {
	alone(t)
	cache, image := t.TempDir(), cookedImage(t, cookedSteps)
	if got, want := succeed(t, "ls", "-q", "--cache-dir", cache, "--layers", image), "1 bin\n1 etc\n2 new\n1 usr\n3 x\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := succeed(t, "ls", "-q", "--cache-dir", cache, "--layers", "-lR", image, "bin/sh"); !strings.HasPrefix(got, "2 -rw-r--r-- 1 root 0 6 ") {
		t.Errorf("long: got %q", got)
	}
	if got := succeed(t, "ls", "-q", "--cache-dir", cache, "--layers", "--layer", "1", image, "bin/sh"); got != "1 bin/sh\n" {
		t.Errorf("after layer 1: got %q", got)
	}
	text := succeed(t, "du", "-q", "--cache-dir", cache, "--layers", "--bytes", image)
	for _, want := range []string{"11, 35 ", "1, 1    1, 6 ", " 4, 6 ", "total  ", "RUN touch /x"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var rows []layerUsage
	if err := show.Unmarshal([]byte(succeed(t, "du", "-q", "--cache-dir", cache, "--layers", "--json", image)), &rows); err != nil || len(rows) != 3 || rows[0].Useless != 9 || rows[0].Layer != 1 {
		t.Errorf("error %v, %+v", err, rows)
	}
	if r := invoke(t, "du", "--layers", image, "/etc"); r.code != cli.ExitUsage {
		t.Errorf("with a path: got exit code %d", r.code)
	}
}

// TestLayerFlag reads what later layers hide, and has numbers that no layer has.
func TestLayerFlag(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	cache, image := t.TempDir(), cookedImage(t, cookedSteps)
	var rows []layerUsage
	if err := show.Unmarshal([]byte(succeed(t, "du", "-q", "--cache-dir", cache, "--layers", "--json", image)), &rows); err != nil {
		t.Fatal(err)
	}
	_, digits, _ := strings.Cut(rows[0].Digest.String(), ":")
	record := cacheRecords(t, cache)
	for _, layer := range []string{"1", rows[0].Digest.String(), digits[:12], rows[0].DiffID.String()} {
		if got := succeed(t, "cat", "-q", "--cache-dir", cache, "--layer", layer, image, "old/a"); got != "12345" {
			t.Errorf("--layer %s: got %q", layer, got)
		}
		if got := succeed(t, "ls", "-q", "--cache-dir", cache, "--layer="+layer, image, "old"); got != "a\nb\n" {
			t.Errorf("--layer %s: got %q", layer, got)
		}
	}
	if got := succeed(t, "cat", "-q", "--cache-dir", cache, "--layer", "1", image, "bin/sh"); got != "one" {
		t.Errorf("got %q", got)
	}
	for layer, code := range map[string]int{"4": cli.ExitFailure, "999": cli.ExitFailure, "ffffffffffff": cli.ExitFailure, "0": cli.ExitUsage, "-1": cli.ExitUsage, "x": cli.ExitUsage, "": cli.ExitUsage} {
		r := invoke(t, "cat", "-q", "--cache-dir", cache, "--layer="+layer, image, "x")
		if r.code != code || r.stdout != "" || !strings.Contains(r.stderr, "layer") {
			t.Errorf("--layer %q: got exit code %d and\n%s", layer, r.code, r.stderr)
		}
	}
	if r := invoke(t, "cat", "-q", "--cache-dir", cache, "--layer", "2", image, "old/a"); r.code != cli.ExitFailure {
		t.Errorf("a path that layer 2 hides: got exit code %d", r.code)
	}
	if got := cacheRecords(t, cache); got != record {
		t.Errorf("the cache's record of the image was\n%s\nand is\n%s", record, got)
	}
}

// cacheRecords returns which layers the cache knows its images to have.
func cacheRecords(t *testing.T, cache string) string {
	t.Helper()
	var list cacheList
	if err := show.Unmarshal([]byte(succeed(t, "cache", "ls", "--json", "--cache-dir", cache)), &list); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, img := range list.Images {
		b.WriteString(filepath.Base(img.Name))
		for _, l := range img.Layers {
			b.WriteString(" " + l.Digest.String())
		}
		b.WriteByte('\n')
	}
	return b.String()
}
