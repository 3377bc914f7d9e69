//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// updateByHand writes what the commands of docs/run-by-hand.md print into it.
var updateByHand = flag.Bool("update-by-hand", false, "write the output of docs/run-by-hand.md anew")

// byHandDoc is a text whose console blocks are run.
const byHandDoc = "docs/run-by-hand.md"

// A step is a command of a console block, and what the text says it prints.
type consoleStep struct {
	command      string // lines that begin with "> " in the text go on with it
	want         string
	begins, ends int // bytes of want in the text
}

// consoleSteps returns the commands of the console blocks of a text.
func consoleSteps(doc string) (steps []consoleStep) {
	inside, at := false, 0
	for line := range strings.Lines(doc) {
		at += len(line)
		last := len(steps) - 1
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console\n"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, consoleStep{command: line[2:], begins: at, ends: at})
		case strings.HasPrefix(line, "> ") && last >= 0 && steps[last].want == "":
			steps[last].command += line[2:]
			steps[last].begins, steps[last].ends = at, at
		case last >= 0:
			steps[last].want += line
			steps[last].ends = at
		}
	}
	return steps
}

// hello is an image that says hello: a base, a program with its settings, and a layer that
// takes some of it away.
func hello(busybox string) *labimage.Runnable {
	base := func(a *labimage.Archive) error {
		errs := []error{a.Dir("bin"), a.Dir("dev"), a.Dir("etc"), a.Dir("proc"), a.Dir("sys"), a.Dir("tmp", labimage.Mode(0o1777))}
		f, err := os.Open(busybox)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		errs = append(errs, a.Copy("bin/busybox", st.Size(), f, labimage.Mode(0o755)))
		for _, name := range strings.Fields("cat cut hostname id ls mount ps sh umount") {
			errs = append(errs, a.Symlink("bin/"+name, "busybox"))
		}
		errs = append(errs, a.File("etc/passwd", "root:x:0:0:root:/:/bin/sh\nhello:x:1000:1000::/:/bin/sh\n"),
			a.File("etc/group", "root:x:0:\nhello:x:1000:\n"), a.File("etc/motd", "base\n"), a.File("etc/issue", "base\n"))
		return errors.Join(errs...)
	}
	program := func(a *labimage.Archive) error {
		return errors.Join(a.File("bin/hello", "#!/bin/sh\necho \"$GREETING from process $$ on $(hostname)\"\n", labimage.Mode(0o755)),
			a.Dir("etc/hello"), a.File("etc/hello/old", "old\n"), a.File("etc/motd", "second layer\n"))
	}
	less := func(a *labimage.Archive) error {
		return errors.Join(a.Whiteout("etc/issue"), a.Opaque("etc/hello"), a.File("etc/hello/new", "new\n"))
	}
	return &labimage.Runnable{Name: "hello", Config: ocispec.ImageConfig{
		Env: []string{"PATH=/bin", "GREETING=Hello"}, Cmd: []string{"/bin/hello"}, User: "hello", WorkingDir: "/tmp",
	}, Layers: []labimage.Layer{base, program, less}}
}

// publishHello serves the image for two platforms, of which this machine's can be run.
func publishHello(t *testing.T, reg *registrytest.Server, repository, busybox string) {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	img := hello(busybox)
	for _, arch := range []string{runtime.GOARCH, "riscv64"} {
		if arch == "riscv64" {
			img.Layers = img.Layers[1:]
		}
		layout := filepath.Join(t.TempDir(), arch)
		if err := os.Mkdir(layout, 0o755); err != nil {
			t.Fatal(err)
		}
		desc, err := img.Write(layout)
		if err == nil {
			err = reg.PushLayout(layout, repository)
		}
		if err != nil {
			t.Fatal(err)
		}
		desc.Annotations, desc.Platform = nil, &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, desc)
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	reg.ReplaceManifest(digest.FromBytes(text), index.MediaType, text)
	reg.Tag(repository, labimage.Tag, digest.FromBytes(text))
}

// TestRunByHand runs each command of docs/run-by-hand.md in one shell, and compares what
// it prints with what the text has. Digests, numbers of bytes and processes, times and
// addresses are others each time.
func TestRunByHand(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	need(t, "bash", "busybox", "chroot", "curl", "gunzip", "jq", "runc", "sha256sum", "tar", "unshare", "pivot_root")
	if runtime.GOARCH != "amd64" {
		t.Skip("the text shows a machine of amd64")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	publishHello(t, reg, "lab/hello", busybox)
	s := newSandbox(t)
	doc := readDoc(t, byHandDoc)
	steps := consoleSteps(doc)
	const mark = "\x01end of step"
	var script strings.Builder
	// In a mount namespace of its own, where nobody else has something on /mnt.
	fmt.Fprintln(&script, "exec 2>&1 </dev/null; mount -t tmpfs tmpfs /mnt && cd /mnt || exit")
	for _, step := range steps {
		fmt.Fprintf(&script, "%s\necho \"%s $?\"\n", strings.ReplaceAll(step.command, "=localhost:5000\n", "="+reg.Host()+"\n"), mark)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "script"), script.String())
	cmd := s.program("unshare", "--mount", "--propagation", "private", "bash", file)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(imgfsBinary(t))+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "COLUMNS=")
	r := s.finish(cmd)
	outputs := strings.Split(strings.ReplaceAll(strings.ReplaceAll(r.stdout, "\r", ""), reg.Host(), "localhost:5000"), mark)
	if len(outputs) != len(steps)+1 {
		t.Fatalf("%d of %d commands were run: %s%s", len(outputs)-1, len(steps), r.stdout, r.stderr)
	}
	var again strings.Builder
	at, same := 0, newSameness()
	for i, step := range steps {
		// The exit code of a command is behind its mark.
		code, _, _ := strings.Cut(outputs[i+1], "\n")
		got := outputs[i]
		if i > 0 {
			_, got, _ = strings.Cut(got, "\n")
		}
		again.WriteString(doc[at:step.begins] + got)
		at = step.ends
		if strings.TrimSpace(code) != "0" {
			t.Errorf("exit code%s of %s%s", code, step.command, got)
		}
		if g, w := same.of(got, true), same.of(step.want, false); g != w {
			t.Errorf("%sgot\n%s\nwant\n%s", step.command, g, w)
		}
	}
	again.WriteString(doc[at:])
	if *updateByHand {
		if err := os.WriteFile(filepath.Join("..", "..", byHandDoc), []byte(again.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(steps) < 30 {
		t.Errorf("%s has only %d commands", byHandDoc, len(steps))
	}
}

// A sameness makes texts equal that tell of other blobs, processes and times. A digest is
// known by which one it is, from the first on.
type sameness struct{ digests [2][]string }

func newSameness() *sameness { return new(sameness) }

var (
	hexDigits = regexp.MustCompile(`\b[0-9a-f]{12,64}\b`)
	varying   = regexp.MustCompile(`\b\d+(\.\d+)? ([kMG]?B|m?s)\b|\b\d{2}:\d{2}(:\d{2})?\b|\b\d{3,}\b`)
	blanks    = regexp.MustCompile(` +`)
)

func (s *sameness) of(text string, got bool) string {
	side := &s.digests[0]
	if got {
		side = &s.digests[1]
	}
	text = hexDigits.ReplaceAllStringFunc(text, func(hex string) string {
		for i, known := range *side {
			if strings.HasPrefix(known, hex) {
				return fmt.Sprintf("<digest %d>", i)
			}
		}
		*side = append(*side, hex)
		return fmt.Sprintf("<digest %d>", len(*side)-1)
	})
	return blanks.ReplaceAllString(varying.ReplaceAllString(text, "<n>"), " ")
}
