//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/explore"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// exploredLayers are those of the image that the test of explore looks around in.
func exploredLayers() []labimage.Layer {
	text := strings.Repeat("a line of text\n", 5000)
	base := func(a *labimage.Archive) error {
		err := errors.Join(a.Dir("etc"), a.File("etc/passwd", "root:x:0:0::/root:/bin/sh\n"), a.File("etc/group", "root:x:0:\n"), a.File("etc/long", "begin\n"+text+"end\n"),
			a.File("etc/wide", strings.Repeat("0123456789", 20)+"\n"), a.File("etc/binary", "\x00\x01\x7fELF"+strings.Repeat("\xff", 100)), a.Dir("srv"), a.File("srv/gone", "what was here\n"+strings.Repeat("g", 30000)),
			a.File("srv/evil\x1b[31m\u202e", "x"), a.File("srv/\u5bbd\u5bbd.txt", "wide"), a.Symlink("link", "etc/passwd"))
		for i := range 60 {
			err = errors.Join(err, a.File(fmt.Sprintf("many/file-%02d", i), strings.Repeat("m", i)))
		}
		return err
	}
	return []labimage.Layer{base, func(a *labimage.Archive) error {
		return errors.Join(a.File("etc/passwd", "root:x:0:0::/root:/bin/sh\nother:x:1000:1000::/:/bin/sh\n"), a.Whiteout("srv/gone"), a.File("opt/new", "new\n"))
	}, func(a *labimage.Archive) error { return a.File("opt/newer", "newer\n") }}
}

// A screenTest drives imgfs in tmux.
type screenTest struct {
	*tmux
}

// newScreenTest runs a command line in a shell in tmux.
func newScreenTest(s *sandbox, cols, rows int, command string) *screenTest {
	s.t.Helper()
	x := newTmux(s, cols, rows, command)
	return &screenTest{tmux: x}
}

// screen returns what is shown.
func (x *screenTest) screen() string { return x.run("capture-pane", "-p") }

// sees waits until the screen matches.
func (x *screenTest) sees(what, pattern string) {
	x.s.t.Helper()
	re := regexp.MustCompile(`(?m)` + pattern)
	last := ""
	if !eventually(30*time.Second, func() bool { last = x.screen(); return re.MatchString(last) }) {
		x.s.t.Fatalf("%s: the screen does not match %q:\n%s", what, pattern, last)
	}
}

// tmuxKeys are what tmux calls keys, if it is not what explore does.
var tmuxKeys = map[string]string{"PgUp": "PageUp", "PgDn": "PageDown", "Esc": "Escape", "Shift-Tab": "BTab", "Backspace": "BSpace", " ": "Space"}

// press presses keys.
func (x *screenTest) press(keys ...string) {
	x.s.t.Helper()
	for _, key := range keys {
		if name, ok := tmuxKeys[key]; ok {
			x.run("send-keys", name)
		} else if c, ok := strings.CutPrefix(key, "Ctrl-"); ok {
			x.run("send-keys", "C-"+strings.ToLower(c))
		} else if len(key) > 1 && strings.ToLower(key) == key {
			x.run("send-keys", "-l", key)
		} else {
			x.run("send-keys", key)
		}
	}
}

// mouse sends what a terminal does for a button of the mouse: 0 is the first one, 64 and
// 65 are the wheel. Columns and rows are counted from 1.
func (x *screenTest) mouse(button, col, row int) {
	x.s.t.Helper()
	x.run("send-keys", "-l", fmt.Sprintf("\x1b[<%d;%d;%dM\x1b[<%d;%d;%dm", button, col, row, button, col, row))
}

// TestExploreKeys presses each key that explore knows, in tmux.
func TestExploreKeys(t *testing.T) {
	t.Parallel()
	need(t, "tmux", "less")
	s := newSandbox(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, exploredLayers()...); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if _, err := labimage.Write(other, append(exploredLayers(), func(a *labimage.Archive) error {
		return errors.Join(a.File("etc/long", "short\n"), a.File("added", "x"), a.Whiteout("opt"))
	})...); err != nil {
		t.Fatal(err)
	}
	s.ok("index", "-q", "oci:"+layout)
	s.env = append(s.env, "PAGER=less", "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	x := newScreenTest(s, 80, 24, fmt.Sprintf("sh -c '%s explore oci:%s; echo left with $?; sleep 100'", imgfsBinary(t), layout))
	lists, file, popup := explore.AllKeys()[0].Place, explore.AllKeys()[1].Place, explore.AllKeys()[2].Place
	pressed := make(map[string]bool)
	step := func(place, key, want string) {
		t.Helper()
		pressed[place+" "+key] = true
		x.press(key)
		x.sees(place+": "+key, want)
	}
	x.sees("start", `all of the image, by size`)
	x.sees("start", `^  3 #* .*labimage`)
	x.sees("start", `\? help q quit`)

	// The layers.
	step(lists, "Up", `adds .* in 2 `)
	step(lists, "k", `adds .* in 7\d`)
	step(lists, "j", `adds .* in 2 `)
	step(lists, "Home", `adds .* in 7\d`)
	step(lists, "End", `adds .* in 1 `)
	step(lists, "g", `adds .* in 7\d`)
	step(lists, "G", `adds .* in 1 `)
	step(lists, "PgUp", `adds .* in 7\d`)
	step(lists, "Down", `adds .* in 2 `)
	step(lists, "PgDn", `adds .* in 1 `)
	step(lists, "[", `adds .* in 2 `)
	step(lists, "Enter", `what layer 2 changed`)
	x.sees("the layer", `A .* opt/`)
	step(lists, "f", `after layer 2`)
	step(lists, "f", `what layer 2 changed`)
	step(lists, "]", `what layer 3 changed`)
	step(lists, "t", `all of the image`)

	// The files.
	step(lists, "o", `all of the image, by name`)
	step(lists, "Home", `^/?etc$|/etc$`)
	step(lists, "Right", `\+? +long`)
	step(lists, "j", `/etc/binary$`)
	step(lists, "Left", `^/etc$`)
	step(lists, "h", `^[^+]*\+ etc/`)
	step(lists, "l", ` - etc/`)
	step(lists, "c", ` \+ etc/`)
	step(lists, "/", `^search:`)
	x.press("LONG", "Enter")
	x.sees("search", `1 of 1 match`)
	step(lists, "n", `1 of 1 match`)
	x.press("/", "file-", "Enter")
	x.sees("search", `1 of 60 matches`)
	step(lists, "n", `2 of 60 matches`)
	step(lists, "N", `1 of 60 matches`)
	x.press("/", "etc/passwd", "Enter")
	x.sees("search for a path", `1 of 1 match`)
	step(lists, "i", `sha256`)
	x.sees("details", `root \(0\)`)
	x.sees("details", ` 2 +replaced`)
	step(popup, "Up", ` 1 +added`)
	step(popup, "Down", ` 2 +replaced`)
	step(popup, "k", ` 1 +added`)
	step(popup, "Enter", `passwd \(layer 1\)`)
	x.sees("the first version", `^root:x`)
	step(file, "q", `all of the image`)
	x.press("i")
	x.sees("details", `sha256`)
	step(popup, "j", ` 2 +replaced`)
	step(popup, "Esc", `all of the image`)

	// A file.
	x.press("/", "etc/long", "Enter")
	x.sees("search", `1 of 1 match`)
	step(lists, "Enter", `^begin`)
	step(file, "Down", `\A.*\na line`)
	step(file, "Up", `^begin`)
	step(file, "j", `\A.*\na line`)
	step(file, "k", `^begin`)
	step(file, "PgDn", `\A.*\na line`)
	step(file, "PgUp", `^begin`)
	step(file, " ", `\A.*\na line`)
	step(file, "b", `^begin`)
	step(file, "End", `^end`)
	step(file, "Home", `^begin`)
	step(file, "G", `100% of`)
	step(file, "g", `^begin`)
	step(file, "x", `^00000000  62 65`)
	step(file, "x", `^begin`)
	step(file, "Ctrl-Z", `^begin`) // nobody could let it go on: see TestExploreStops
	step(file, "v", `^:`)
	x.press("q")
	x.sees("after the pager", `hex`)
	step(file, "Esc", `all of the image`)
	x.press("/", "etc/wide", "Enter")
	x.sees("search", `1 of 1 match`)
	x.press("Enter")
	step(file, "Right", `^89012`)
	step(file, "Left", `^01234`)
	step(file, "l", `^89012`)
	step(file, "h", `^01234`)
	x.press("q")
	x.press("/", "binary", "Enter", "Enter")
	x.sees("bytes", `00000000  00 01 7f 45 4c 46`)
	x.press("q")

	// What else there is.
	step(lists, "v", `<FF>(.*\n)*\(END\)`)
	x.press("q")
	x.sees("after the pager", `help q quit`)
	step(lists, "w", `wasted files`)
	x.sees("waste", `D +30\.0 kB +1 +srv/gone +\(by layer 2\)`)
	x.press("o")
	x.sees("waste", `wasted files, by size`)
	x.press("Home", "Enter")
	x.sees("a hidden file", `^what was here`)
	x.press("q", "w")
	x.sees("all again", `all of the image`)
	step(lists, "d", `^compare with image:`)
	x.press("oci:"+other, "Enter")
	x.sees("the other image", `A .* added`)
	x.sees("the other image", `\+1 -3 ~`)
	x.press("d")
	x.sees("all again", `all of the image`)
	x.press("/", "many", "Enter")
	x.sees("search", `1 of 1 match`)
	step(lists, "s", `^save as: \./many`)
	x.press("Ctrl-U", "copied", "Enter")
	x.sees("save", `saved as copied`)
	if names, err := os.ReadDir(filepath.Join(s.dir, "copied")); err != nil || len(names) != 60 {
		t.Errorf("%d files were saved, error %v", len(names), err)
	}
	step(lists, "Tab", `help q quit`)
	x.press("i")
	x.sees("of a layer", `digest +sha256:`)
	x.press("q")
	step(lists, "Shift-Tab", `^/many$`)
	step(lists, "Esc", `help q quit`)
	step(lists, "Ctrl-L", `all of the image`)
	step(lists, "Ctrl-Z", `all of the image`)
	step(lists, "?", `layers and files:`)
	step(popup, "PgDn", `a file:`)
	step(popup, "PgUp", `layers and files:`)
	step(popup, " ", `a file:`)
	step(popup, "Ctrl-Z", `a file:`)
	step(popup, "q", `help q quit`)
	x.press("?")
	step(popup, "?", `help q quit`)

	// Names of strangers, the mouse, other sizes.
	x.press("c", "/", "evil", "Enter")
	x.sees("a name that acts", `evil\\033\[31m\\342\\200\\256`)
	x.sees("a wide name", "\u5bbd\u5bbd.txt")
	x.mouse(0, 10, 3)
	x.sees("a click on a layer", `adds .* in 7\d`)
	x.mouse(65, 60, 10)
	x.mouse(64, 60, 10)
	x.mouse(0, 60, 3)
	x.sees("a click on a file", `^/\w+$`)
	x.run("resize-window", "-x", "40", "-y", "10")
	x.sees("40 columns", `all of`)
	x.press("Tab")
	x.sees("40 columns, the other pane", `layer`)
	x.run("resize-window", "-x", "15", "-y", "5")
	x.sees("15 columns", `too small`)
	x.run("resize-window", "-x", "200", "-y", "50")
	x.sees("200 columns", `\? help .* v pager`)
	step(lists, "q", `left with 0`)

	for _, keys := range explore.AllKeys() {
		for _, k := range keys.Keys {
			for _, key := range k.Keys {
				if key != "Ctrl-C" && !pressed[keys.Place+" "+key] {
					t.Errorf("%s: nobody has pressed %q, %s", keys.Place, key, k.Does)
				}
			}
		}
	}
}
