//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestExploreRefuses has explore where it cannot draw.
func TestExploreRefuses(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.fails(1, []string{"explore: stdout is no terminal", "hint: imgfs tree IMAGE, imgfs du --layers IMAGE and imgfs diff"}, "explore", "oci:x")
	s.fails(2, []string{"explore: no image named"}, "explore")
	s.fails(2, []string{"it takes one image, or two"}, "explore", "a", "b", "c")
	s.fails(2, []string{"it takes a whole image"}, "explore", "a:/etc")
	need(t, "tmux")
	s.env = append(s.env, "LC_ALL=C.UTF-8")
	x := newScreenTest(s, 120, 24, fmt.Sprintf("sh -c 'TERM=dumb %[1]s explore oci:x; TERM=linux %[1]s explore oci:missing; echo left with $?; sleep 100'", imgfsBinary(t)))
	x.sees("a dumb terminal", `^imgfs: explore: nothing can be drawn on this terminal, TERM=dumb`)
	x.sees("no image", `missing`)
	x.sees("no image", `left with 1`)
}

// explored starts explore in tmux, in a shell that goes on behind it.
func explored(t *testing.T, s *sandbox, image string) (x *screenTest, pid int) {
	t.Helper()
	need(t, "tmux")
	s.env = append(s.env, "LC_ALL=C.UTF-8", "PAGER=less")
	x = newScreenTest(s, 80, 24, "env PS1='ready> ' sh")
	x.sees("a shell", `^ready>`)
	return x, x.explore(image)
}

// explore types the command into the shell, and returns the process.
func (x *screenTest) explore(image string) (pid int) {
	t := x.s.t
	t.Helper()
	x.run("send-keys", "-l", "clear; "+imgfsBinary(t)+" explore "+image+"; echo left with $?; stty -a | tr ' ' '\\n' | grep '^echo;*$'")
	x.press("Enter")
	x.sees("explore", `help q quit`)
	if !eventually(30*time.Second, func() bool {
		for _, p := range processes("") {
			if strings.Contains(strings.Join(cmdline(p), " "), "explore "+image) {
				pid = p
			}
		}
		return pid != 0
	}) {
		t.Fatal("there is no process")
	}
	return pid
}

// TestExploreEnds ends explore in all ways but its keys. The terminal is as it was, and no
// process stays.
func TestExploreEnds(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, exploredLayers()...); err != nil {
		t.Fatal(err)
	}
	x, pid := explored(t, s, "oci:"+layout)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		x.sees("explore", `all of the image`)
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		x.sees(sig.String(), `left with [1-9]\d*\necho`)
		pid = x.explore("oci:" + layout)
	}
	x.sees("explore", `all of the image`)
	x.press("Ctrl-C")
	x.sees("Ctrl-C", `left with 0\necho`)
	x.explore("oci:" + layout)
	x.sees("explore", `all of the image`)
	x.press("/", "etc/long", "Enter")
	x.sees("search", `1 of 1 match`)
	x.press("v")
	x.sees("the pager", `^a line`)
	x.run("kill-server") // the terminal goes
	s.waitGone(layout)
}

// TestExploreStops stops explore by Ctrl-Z, and has it go on.
func TestExploreStops(t *testing.T) {
	t.Parallel()
	need(t, "bash")
	s := newSandbox(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, exploredLayers()...); err != nil {
		t.Fatal(err)
	}
	need(t, "tmux")
	s.env = append(s.env, "LC_ALL=C.UTF-8")
	x := newScreenTest(s, 80, 24, "env PS1='ready> ' HISTFILE= bash --norc -i")
	x.sees("a shell", `^ready>`)
	x.run("send-keys", "-l", imgfsBinary(t)+" explore oci:"+layout)
	x.press("Enter")
	x.sees("explore", `all of the image`)
	for range 2 {
		x.press("Ctrl-Z")
		x.sees("stopped", `Stopped(.*\n)*ready> *$`)
		x.run("send-keys", "-l", "fg")
		x.press("Enter", "/", "etc/long", "Enter") // before it has the terminal again
		x.sees("it goes on", `1 of 1 match`)
	}
	x.press("q")
	x.sees("left", `ready> *\s*\z`)
}

// TestExploreTypedAhead types everything before it can be done.
func TestExploreTypedAhead(t *testing.T) {
	t.Parallel()
	need(t, "tmux", "less")
	s := newSandbox(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, exploredLayers()...); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "LC_ALL=C.UTF-8", "PAGER=less")
	x := newScreenTest(s, 80, 24, "env PS1='ready> ' sh")
	x.sees("a shell", `^ready>`)
	x.run("send-keys", "-l", "clear; "+imgfsBinary(t)+" explore oci:"+layout+"\r/etc/long\r\r")
	x.sees("the file", `^begin(.*\n)*q back`)
	x.press("v")
	x.sees("the pager", `^:`)
	x.press("G")
	x.sees("the pager", `^end\n\(END\)`)
	x.run("send-keys", "-l", "qG")
	x.sees("the end", `^end(.*\n)*q back`)
	x.run("send-keys", "-l", "qq")
	x.sees("left", `ready> *\s*\z`)
}

// TestExploreSlow opens a file of a registry that does not answer, and leaves.
func TestExploreSlow(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, exploredLayers()...)
	s.ok("index", "-q", image)
	if err := os.RemoveAll(filepath.Join(s.cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	x, _ := explored(t, s, image)
	x.sees("explore", `all of the image`)
	reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		<-r.Context().Done()
	}))
	x.press("/", "etc/long", "Enter")
	x.sees("search", `1 of 1 match`)
	x.press("Enter")
	x.sees("fetching", `fetching.*Esc ends it`)
	x.press("Esc")
	x.sees("ended", `all of the image`)
	x.press("q")
	x.sees("left", `left with 0`)
}

// peakMemory returns the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no peak in\n%s", text)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// imageOfMany writes an image of so many files, and returns its name.
func imageOfMany(t *testing.T, dir string, files int) (image string) {
	t.Helper()
	var layers []labimage.Layer
	for i := range 10 {
		layers = append(layers, labimage.Many(i, files/10))
	}
	if _, err := labimage.Write(dir, layers...); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// exploreLarge explores an image of so many files, and returns when the first screen and the
// tree were there.
func exploreLarge(t *testing.T, files int) (first, tree time.Duration) {
	s := newSandbox(t)
	layout := imageOfMany(t, filepath.Join(s.dir, "layout"), files)
	s.ok("index", "-q", layout)
	begun := time.Now()
	x, pid := explored(t, s, layout)
	x.sees("the layers", `^ 10 #`)
	first = time.Since(begun)
	if !eventually(2*time.Minute, func() bool { return strings.Contains(x.screen(), "usr/") }) {
		t.Fatalf("there is no tree:\n%s", x.screen())
	}
	tree = time.Since(begun)
	x.press("/", "module-30", "Enter")
	x.sees("search", `1 of \d+ matches`)
	x.press("n", "N", "t")
	x.sees("a layer", `what layer 10 changed`)
	x.press("w")
	x.sees("waste", `wasted files`)
	const limit = 100_000_000
	peak := peakMemory(t, pid)
	t.Logf("%d files: %.1f MB of memory; the first screen after %v, the tree after %v", files, float64(peak)/1e6, first, tree)
	if peak > limit {
		t.Errorf("explore has %.1f MB, more than %d", float64(peak)/1e6, limit)
	}
	x.press("q")
	x.sees("left", `left with 0`)
	return first, tree
}

// TestExploreLarge explores an image of 100,000 files, and in the nightly run one of a
// million.
func TestExploreLarge(t *testing.T) {
	files, limit := 100_000, 5*time.Second // a machine that does nothing else needs half a second
	if os.Getenv("IMGFS_STACKS") != "" {
		files, limit = 1_000_000, 20*time.Second // a quiet one needs less than two
	}
	first, tree := exploreLarge(t, files)
	if first > time.Second && os.Getenv("CI") == "" || tree > limit {
		t.Errorf("the first screen took %v, the tree %v", first, tree)
	}
}
