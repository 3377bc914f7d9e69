//go:build linux

package main

import (
	"encoding/xml"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// readmeImage has what the README's commands look for.
func readmeImage(a *labimage.Archive) error {
	for _, f := range []struct {
		name, content string
		mode          int64
	}{
		{"etc/debian_version", "12.5\n", 0o644},
		{"etc/os-release", "NAME=test\n", 0o644},
		{"usr/bin/chfn", "#!/bin/sh\n", 0o4755},
	} {
		if err := a.File(f.name, f.content, labimage.Mode(f.mode)); err != nil {
			return err
		}
	}
	return nil
}

// consoleCommands returns the commands of a document's console blocks.
func consoleCommands(doc string) []string {
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		for line := range strings.Lines(block[1]) {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				commands = append(commands, strings.TrimSpace(c))
			}
		}
	}
	return commands
}

// TestReadme runs every command that README.md and docs/usage.md show, in their
// order, with another image and other mountpoints.
func TestReadme(t *testing.T) {
	need(t, "fusermount3", "find")
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, readmeImage); err != nil {
		t.Fatal(err)
	}
	registry := registrytest.New(t, &registrytest.Options{Writable: true})
	if err := registry.PushLayout(layout, "test"); err != nil {
		t.Fatal(err)
	}
	s := newSandbox(t)
	image := regexp.MustCompile(`\b(quay\.io/\S+|localhost:5000/\S+|(?:golang|node|debian|alpine):[0-9.]+|fedora\b)`)
	mountpoint := regexp.MustCompile(`~/\w+`)
	mounts := map[string]string{}
	commands := consoleCommands(readDoc(t, "README.md"))
	more := consoleCommands(readDoc(t, "docs/usage.md"))
	if len(commands) < 3 || len(more) < 12 {
		t.Fatalf("only %d and %d commands found", len(commands), len(more))
	}
	commands = append(commands, more...)
	for _, c := range commands {
		c = mountpoint.ReplaceAllStringFunc(c, func(m string) string {
			if mounts[m] == "" {
				mounts[m] = s.mountpoint()
			}
			return mounts[m]
		})
		if strings.HasPrefix(c, "imgfs ") {
			c = strings.ReplaceAll(c, "localhost:5000/indexes", registry.Host()+"/indexes")
			c = image.ReplaceAllString(c, registry.Host()+"/test:"+labimage.Tag)
			if r := s.run(strings.Fields(c)[1:]...); r.code != 0 {
				t.Errorf("%s: exit code %d\n%s%s", c, r.code, r.stdout, r.stderr)
			}
			continue
		}
		if strings.HasPrefix(c, "mkdir ") {
			continue // it has been
		}
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s: %v\n%s", c, err, out)
		}
	}
	for m, dir := range mounts {
		if mounted(dir) {
			s.umount(dir)
		}
		t.Logf("%s was %s", m, dir)
	}
}

// TestUsageProgram: what docs/usage.md shows in Go compiles.
func TestUsageProgram(t *testing.T) {
	testenv.Slow(t)
	_, rest, _ := strings.Cut(readDoc(t, "docs/usage.md"), "```go\n")
	body, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/usage.md has no Go in it")
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "main.go"), `package main

import (
	"context"
	"fmt"
	iofs "io/fs"

	"`+module+`/fs/image"
)

func main() { fmt.Println(list(context.Background())) }

func list(ctx context.Context) error {
`+body+"}\n")
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReadmeTargets: what README says of make exists.
func TestReadmeTargets(t *testing.T) {
	makefile := readDoc(t, "Makefile")
	found := 0
	for _, m := range regexp.MustCompile("(?m)^    make (.*)$|`make (\\w+)`").FindAllStringSubmatch(readDoc(t, "README.md"), -1) {
		for target := range strings.FieldsSeq(m[1] + m[2]) {
			found++
			if !strings.Contains(makefile, "\n"+target+":") {
				t.Errorf("README has make %s, the Makefile has no such target", target)
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d targets found", found)
	}
	if run := readDoc(t, ".ci/run"); !strings.Contains(run, "make check test") {
		t.Errorf(".ci/run does not run make check test, as README says: %s", run)
	}
}

// TestDemo runs what make demo runs.
func TestDemo(t *testing.T) {
	testenv.Slow(t)
	need(t, "fusermount3", "find", "grep")
	cmd := exec.Command("go", "run", "./testdata/demo", imgfsBinary(t))
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"compress/flate/inflate.go", "fetched", "requests for blobs"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo does not print %q:\n%s", want, out)
		}
	}
}

// TestPicture draws what make docs draws, and compares the commands of the picture that
// README.md shows with those of the new one.
func TestPicture(t *testing.T) {
	testenv.Slow(t)
	need(t, "fusermount3", "grep", "tmux")
	screen := filepath.Join(t.TempDir(), "explore.svg")
	made := filepath.Join(t.TempDir(), "imgfs.svg")
	cmd := exec.Command("go", "run", "./testdata/picture", "-o", made, "-explore", screen, imgfsBinary(t))
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	picture, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	lines := pictured(t, picture)
	for _, want := range []string{"~/go/src/compress/flate/inflate.go", "- /src/crypto/rc4", "+ /src/encoding/cbor", "~ /VERSION  content"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the picture has no line %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
	explored, err := os.ReadFile(screen)
	if err != nil {
		t.Fatal(err)
	}
	// Sizes are those of the Go release.
	sizes := regexp.MustCompile(` *[\d.]+ k?M?B| in \d+ inodes`)
	exploredLines := func(svg []byte) string {
		return sizes.ReplaceAllString(strings.Join(pictured(t, svg), "\n"), "")
	}
	if drawn, shown := exploredLines(explored), exploredLines([]byte(readDoc(t, "docs/explore.svg"))); !strings.Contains(drawn, "what layer 2 changed") || drawn != shown {
		t.Errorf("docs/explore.svg shows\n%s\nmake docs draws\n%s", shown, drawn)
	}
	typed := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "$ ") })
	}
	shown := typed(pictured(t, []byte(readDoc(t, "docs/imgfs.svg"))))
	if drawn := typed(lines); len(drawn) < 4 || !slices.Equal(shown, drawn) {
		t.Errorf("docs/imgfs.svg shows\n%q\nmake docs draws\n%q", shown, drawn)
	}
}

// pictured returns the lines of text of an SVG.
func pictured(t *testing.T, svg []byte) []string {
	t.Helper()
	var doc struct {
		Text []struct {
			Line string `xml:",innerxml"`
		} `xml:"text"`
	}
	if err := xml.Unmarshal(svg, &doc); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range doc.Text {
		lines = append(lines, html.UnescapeString(regexp.MustCompile("<[^>]*>").ReplaceAllString(l.Line, "")))
	}
	return lines
}
