//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// threeLayers are the layers of an image; one of them has some size.
func threeLayers() []labimage.Layer {
	return []labimage.Layer{
		small,
		func(a *labimage.Archive) error { return a.File("noise", noiseText(3<<20)) },
		func(a *labimage.Archive) error { return a.File("last", "last\n") },
	}
}

// manyLayers are n layers, the first of which has some size.
func manyLayers(n int) []labimage.Layer {
	all := []labimage.Layer{oneFile("big", noiseText(2<<20))}
	for i := len(all); i < n; i++ {
		all = append(all, oneFile(fmt.Sprint("f", i), fmt.Sprint(i)))
	}
	return all
}

// noiseText returns n bytes that do not compress well.
func noiseText(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// slowly has a registry send so many bytes of a layer every 20 ms, in each of four
// requests for a long one.
func slowly(reg *registrytest.Server, some int) {
	reg.Inject(registrytest.Blob, registrytest.Always(reg.Trickle(0, some, 20*time.Millisecond)))
}

// drawsBars prepares the environment of a test that runs imgfs in this process with
// a terminal.
func drawsBars(t *testing.T) {
	alone(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1") // bars have no colour
}

var (
	partShown  = regexp.MustCompile(`^layer \d+/\d+ [0-9a-f]{12} \[=*(>-*)?\] \S+ [kM]?B / \S+ [kM]?B$`)
	wholeShown = regexp.MustCompile(`^\d+ of \d+ layers, \S+ [kM]?B of \S+ [kM]?B`)
)

// TestBars looks at what is drawn while layers are indexed, and at what stays.
func TestBars(t *testing.T) {
	testenv.Slow(t)
	drawsBars(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	slowly(reg, 4_000)
	var stdout bytes.Buffer
	args := []string{"index", "--verbose", "--cache-dir", t.TempDir(), image}
	w := newTerminal(t, 80, 24)
	if code := w.run(func(tty *os.File) int { return run(t.Context(), args, &stdout, tty) }); code != 0 {
		t.Fatalf("got exit code %d: %s", code, w.written())
	}
	drawn := drawnLines(w.written())
	parts, wholes := 0, 0
	for _, line := range drawn {
		switch {
		case strings.HasPrefix(line, "imgfs: "), line == "":
		case partShown.MatchString(line):
			parts++
		case wholeShown.MatchString(line):
			wholes++
		default:
			t.Errorf("a line that is neither a bar nor a message: %q", line)
		}
		if len(line) > 79 && !strings.HasPrefix(line, "imgfs: ") {
			t.Errorf("a line of %d columns: %q", len(line), line)
		}
	}
	if parts < 3 || wholes < 3 {
		t.Errorf("%d bars and %d lines about all were drawn:\n%q", parts, wholes, drawn)
	}
	if !regexp.MustCompile(`, [0-9.]+ .?B/s, \d+ s left`).MatchString(w.written()) {
		t.Errorf("nowhere is a rate and the time left: %q", drawn)
	}
	left := strings.Join(w.lines(), "\n")
	for line := range strings.Lines(left) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "imgfs: ") && !continued(line) {
			t.Errorf("of the bars is left %q", line)
		}
	}
	if !strings.Contains(left, "imgfs: GET http://"+reg.Host()) || !strings.Contains(left, "imgfs: indexed 3 layers, 3.1 MB in ") {
		t.Errorf("no messages of --verbose, or of what was indexed:\n%s", left)
	}
	if s := w.strange(); s != "" {
		t.Errorf("what not every terminal knows: %s", s)
	}
	screen := onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(args[:1:1], args[2:]...), &stdout, tty) })
	if screen != "" {
		t.Errorf("the second time, with all layers known: %q", screen)
	}
}

// continued reports whether a line may be the end of a message that is too long.
func continued(line string) bool { return !strings.Contains(line, "layer") }

// drawnLines returns the lines that were written to a terminal, without what moves the
// cursor.
func drawnLines(written string) []string {
	plain := sequences.ReplaceAllString(written, "")
	return regexp.MustCompile(`[\r\n]+`).Split(plain, -1)
}

var sequences = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// TestBarsFit has terminals of all sizes: nothing is wider or higher than they are, and
// nothing is left of the bars.
func TestBarsFit(t *testing.T) {
	testenv.Slow(t)
	drawsBars(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, manyLayers(60)...)
	reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		time.Sleep(100 * time.Millisecond)
		serve(w, r)
	}))
	for _, size := range [][2]int{{80, 24}, {20, 24}, {80, 5}, {40, 3}, {20, 2}, {80, 1}, {3, 3}, {1, 1}, {300, 100}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newTerminal(t, size[0], size[1])
			code := w.run(func(tty *os.File) int {
				return run(t.Context(), []string{"index", "--cache-dir", t.TempDir(), image}, io.Discard, tty)
			})
			got := strings.ReplaceAll(strings.Join(w.lines(), ""), " ", "")
			if want := regexp.MustCompile(`^imgfs:indexed60layers,2.1MBin[0-9.]+s$`); code != 0 || !want.MatchString(got) {
				t.Errorf("exit code %d, and there stays %q", code, w.lines())
			}
			if most := max(1, size[1]-2); w.screen.high > most && size[0] >= 80 {
				t.Errorf("%d lines were drawn on a terminal of %d", w.screen.high, size[1])
			}
			for _, line := range drawnLines(w.written()) {
				if !strings.HasPrefix(line, "imgfs: ") && len(line) > max(0, size[0]-1) {
					t.Errorf("on %d columns a line of %d: %q", size[0], len(line), line)
				}
			}
		})
	}
}

// TestBarsEnd has layers whose bars do not fill: an empty one, and those beside a
// damaged one, after which there is the error alone.
func TestBarsEnd(t *testing.T) {
	drawsBars(t)
	reg := registrytest.New(t, nil)
	slowly(reg, 20_000)
	store := sourcetest.NewStore()
	good, bad := tarOf(t, tar.Header{Name: "a"}), tarOf(t, tar.Header{Name: "b"})
	name := publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}, {Content: []byte{}}}}))
	index := []string{"index", "--cache-dir", t.TempDir()}
	onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(index, name), io.Discard, tty) })

	publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}, {Content: bad}}}))
	reg.ReplaceBlob(digest.FromBytes(bad), bytes.ToUpper(bad))
	w := newTerminal(t, 80, 24)
	code := w.run(func(tty *os.File) int { return run(t.Context(), append(index, name), io.Discard, tty) })
	want := "imgfs: " + name + ": layer " + digest.FromBytes(bad).String() + ": "
	if left := strings.Join(w.lines(), ""); code != cli.ExitFailure || !strings.HasPrefix(left, want) || strings.Contains(left, "/2") {
		t.Errorf("exit code %d, and there stays %q, want %q alone", code, left, want)
	}
}

// TestNoBars has terminals that know only lines of text.
func TestNoBars(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	for _, term := range []string{"dumb", ""} {
		t.Run("TERM="+term, func(t *testing.T) {
			alone(t)
			t.Setenv("TERM", term)
			screen := onTerminal(t, func(tty *os.File) int {
				return run(t.Context(), []string{"index", "--cache-dir", t.TempDir(), image}, io.Discard, tty)
			})
			text := strings.ReplaceAll(screen, "\r\n", "\n")
			if progressLine.ReplaceAllString(text, "") != "" || strings.Count(text, "\n") != 3 {
				t.Errorf("got %q, want a line for each of three layers", screen)
			}
		})
	}
}

func TestProgressLines(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, append(threeLayers(), small)...)
	cache := "--cache-dir=" + t.TempDir()
	r := invoke(t, "ls", cache, image, "/last")
	lines := strings.SplitAfter(r.stderr, "\n")
	// The last layer is the first one again.
	if len(lines) != 3+1 || progressLine.ReplaceAllString(r.stderr, "") != "" {
		t.Errorf("got %q, want a line for each of three layers", r.stderr)
	}
	if r = invoke(t, "ls", cache, image); r.stderr != "" {
		t.Errorf("the second time: got %q, want nothing", r.stderr)
	}
	if r = invoke(t, "ls", "-q", "--cache-dir", t.TempDir(), image); r.stderr != "" || r.code != 0 {
		t.Errorf("with --quiet: got %q and exit code %d, want nothing and 0", r.stderr, r.code)
	}
}

// TestProgressLinesFew has an image of more layers than anybody wants lines.
func TestProgressLinesFew(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, manyLayers(150)...)
	r := invoke(t, "index", "--cache-dir", t.TempDir(), image)
	if r.code != 0 || strings.Count(r.stderr, "\n") > 10 || !strings.Contains(r.stderr, "imgfs: indexed 150 layers, 2.1 MB in ") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

// TestUnpackingBar has an archive come slowly through a pipe.
func TestUnpackingBar(t *testing.T) {
	testenv.Slow(t)
	drawsBars(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, threeLayers()...); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	zw := gzip.NewWriter(&archive)
	w := tar.NewWriter(zw)
	if err := errors.Join(w.AddFS(os.DirFS(layout)), w.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for archive.Len() > 0 {
			if _, err := f.Write(archive.Next(100_000)); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	screen := onTerminal(t, func(tty *os.File) int {
		return run(t.Context(), []string{"index", "--cache-dir", t.TempDir(), "oci-archive:" + pipe}, io.Discard, tty)
	})
	if !regexp.MustCompile(`unpacking [1-3]\.\d MB`).MatchString(screen) {
		t.Errorf("nothing says how much has been unpacked: %q", screen)
	}
}

// TestSingleBars looks at the bars of commands that have one bar for all layers.
func TestSingleBars(t *testing.T) {
	testenv.Slow(t)
	drawsBars(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	dir := t.TempDir()
	succeed(t, "index", "-q", "--cache-dir", dir, image)
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	slowly(reg, 20_000)
	args := []string{"index", "--fetch", image, "--cache-dir", dir}
	screen := onTerminal(t, func(tty *os.File) int { return run(t.Context(), args, io.Discard, tty) })
	bars := 0
	for _, line := range drawnLines(screen) {
		if regexp.MustCompile(`^fetching \[=*>?-*\] \S+ .?B of 3.1 MB`).MatchString(line) {
			bars++
		} else if line != "" && !strings.HasPrefix(line, "imgfs: ") {
			t.Errorf("a line that is neither the bar nor a message: %q", line)
		}
	}
	if bars < 3 {
		t.Errorf("%d bars were drawn: %q", bars, screen)
	}
	for _, args := range [][]string{args, {"cache", "verify", "--cache-dir", dir}} {
		if quiet := onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(args, "-q"), io.Discard, tty) }); quiet != "" {
			t.Errorf("imgfs %q -q: got %q, want nothing", args, quiet)
		}
	}
}
