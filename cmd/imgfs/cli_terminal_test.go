//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// onTerminal calls do with a terminal of 24 lines of 80 columns, and returns
// what was written to it. do must return 0.
func onTerminal(t *testing.T, do func(tty *os.File) int) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		missing(t, "there are no terminals: %v", err)
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		missing(t, "%v", err)
	}
	read := make(chan string)
	go func() {
		// It ends with EIO when the other end is closed.
		screen, _ := io.ReadAll(master)
		read <- string(screen)
	}()
	code := do(tty)
	tty.Close()
	screen := <-read
	if code != 0 {
		t.Fatalf("got exit code %d, want 0:\n%s", code, screen)
	}
	return screen
}

// threeLayers are the layers of an image; one of them has some size.
func threeLayers() []labimage.Layer {
	return []labimage.Layer{
		small,
		func(a *labimage.Archive) error { return a.File("noise", noiseText(3<<20)) },
		func(a *labimage.Archive) error { return a.File("last", "last\n") },
	}
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

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// TestBars looks at what is drawn while layers are indexed.
func TestBars(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	var stdout bytes.Buffer
	args := []string{"index", "--verbose", "--cache-dir", t.TempDir(), image}
	screen := onTerminal(t, func(tty *os.File) int { return run(t.Context(), args, &stdout, tty) })
	last := make(map[string]string) // state of each bar
	for line := range strings.SplitSeq(escapes.ReplaceAllString(screen, ""), "\n") {
		switch line = strings.Trim(line, "\r"); {
		case strings.HasPrefix(line, "layer "):
			last[line[:len("layer 1/3")]] = line
			if n := len([]rune(line)); n > 80 {
				t.Errorf("a line of %d columns: %q", n, line)
			}
		case line != "" && !strings.HasPrefix(line, "imgfs: "):
			t.Errorf("a line that is neither a bar nor a message: %q", line)
		case strings.Contains(line, "layer "):
			t.Errorf("a line about a layer in spite of the bars: %q", line)
		}
	}
	for _, name := range []string{"layer 1/3", "layer 2/3", "layer 3/3"} {
		counts := regexp.MustCompile(`([0-9.]+ \w+) / ([0-9.]+ \w+)$`).FindStringSubmatch(last[name])
		if counts == nil || counts[1] != counts[2] || !strings.Contains(last[name], "[=") || strings.Contains(last[name], "-]") {
			t.Errorf("the last state of %s is %q, want a whole bar", name, last[name])
		}
	}
	if !strings.Contains(screen, "imgfs: GET http://"+reg.Host()) {
		t.Error("there are no messages of --verbose")
	}
	if screen = onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(args[:1:1], args[2:]...), &stdout, tty) }); screen != "" {
		t.Errorf("the second time, with all layers known: %q", screen)
	}
}

// TestBarsEnd has layers whose bars do not fill by themselves: an empty one,
// one that is not read to its end, and those beside a damaged one.
func TestBarsEnd(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	store := sourcetest.NewStore()
	good, bad := tarOf(t, tar.Header{Name: "a"}), tarOf(t, tar.Header{Name: "b"})
	name := publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}, {Content: []byte{}}}}))
	index := []string{"index", "--cache-dir", t.TempDir()}
	onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(index, name), io.Discard, tty) })

	publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}, {Content: bad}}}))
	reg.ReplaceBlob(digest.FromBytes(bad), bytes.ToUpper(bad))
	screen := onTerminal(t, func(tty *os.File) int {
		return run(t.Context(), append(index, name), io.Discard, tty) - cli.ExitFailure
	})
	if want := "imgfs: " + name + ": layer " + digest.FromBytes(bad).String() + ": "; !strings.Contains(screen, want) {
		t.Errorf("%q is not in %q", want, screen)
	}

	screen = onTerminal(t, func(tty *os.File) int {
		p := show.NewLayerBars(newEnv(io.Discard, tty), []digest.Digest{digest.FromString("x")})
		p.Update(show.LayerUpdate{Size: 1000})
		p.Update(show.LayerUpdate{Size: 1000, Read: 500})
		p.Finish()
		return cli.ExitOK
	})
	if want := "] 500 B / 1.0 kB\r\n"; !strings.Contains(screen, want) {
		t.Errorf("a layer read by half: %q is not in %q", want, screen)
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

// TestSingleBars looks at the bars of commands that have one bar for all layers.
func TestSingleBars(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	dir := t.TempDir()
	succeed(t, "index", "-q", "--cache-dir", dir, image)
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		label string
		args  []string
	}{{"fetching", []string{"index", "--fetch", image}}, {"verifying", []string{"cache", "verify"}}} {
		args := append(c.args, "--cache-dir", dir)
		screen := onTerminal(t, func(tty *os.File) int { return run(t.Context(), args, io.Discard, tty) })
		last := ""
		for line := range strings.SplitSeq(escapes.ReplaceAllString(screen, ""), "\n") {
			if line = strings.Trim(line, "\r"); strings.HasPrefix(line, c.label+" ") {
				last = line
			} else if line != "" && !strings.HasPrefix(line, "imgfs: ") {
				t.Errorf("imgfs %q: a line that is neither the bar nor a message: %q", args, line)
			}
		}
		if counts := regexp.MustCompile(`([0-9.]+ \w+) / ([0-9.]+ \w+)$`).FindStringSubmatch(last); counts == nil || counts[1] != counts[2] || strings.Contains(last, "-]") {
			t.Errorf("imgfs %q: the last state is %q, want a whole bar", args, last)
		}
		quiet := onTerminal(t, func(tty *os.File) int { return run(t.Context(), append(args, "-q"), io.Discard, tty) })
		if quiet != "" {
			t.Errorf("imgfs %q -q: got %q, want nothing", args, quiet)
		}
	}
}
