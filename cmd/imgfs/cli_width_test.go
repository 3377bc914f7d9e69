//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestTablesFit has tables of long names on terminals of several widths: no line is
// wider than they are. Elsewhere all is there.
func TestTablesFit(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	t.Parallel()
	s, reg := newSandbox(t), registrytest.New(t, nil)
	long := strings.Repeat("directory/", 15) + "日本語"
	image, _ := publish(t, reg, small, func(a *labimage.Archive) error { return a.File(long, seededNoise(1, 1<<20)) })
	dir := filepath.Join(s.mountpoint(), strings.Repeat("mountpoint-", 15))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.ok("index", image)
	s.dropBlobs() // so that a file has waited for the network
	s.ok("mount", image, dir)
	if _, err := os.ReadFile(filepath.Join(dir, long)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.cache, strings.Repeat("foreign-", 20)), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"stats", "--layers", "--files", dir}, {"stats", "--paths", dir}, {"ps"}, {"cache", "ls"}, {"index", image}, {"cache", "verify"}} {
		narrow := s.command(args...)
		narrow.Env = append(narrow.Env, "COLUMNS=")
		checkFits(t, args, s.finish(narrow).stdout, 80)
		for _, cols := range []int{200, 80, 40} {
			w := newTerminal(t, cols, 100)
			cmd := s.command(args...)
			cmd.Stdout = w.tty
			if code := w.run(func(*os.File) int { return exitCode(cmd.Run()) }); code != 0 {
				t.Fatalf("imgfs %q: %s", args, w.written())
			}
			checkFits(t, args, w.written(), cols)
			if cols == 80 && args[0] == "stats" && args[1] == "--layers" {
				for _, want := range []string{"…", "LAYER ", "FETCHED", "VERIFIED", "日本語", "no room for "} {
					if !strings.Contains(w.written(), want) {
						t.Errorf("imgfs %q on %d columns: there is no %q:\n%s", args, cols, want, w.written())
					}
				}
			}
		}
		if r := s.run(args...); r.code != 0 || strings.Contains(r.stdout, "…") || strings.Contains(r.stdout, "no room") {
			t.Errorf("imgfs %q leaves something out, and has no end of room:\n%s", args, r.stdout)
		}
	}
	if text := s.ok("stats", "--layers", "--files", dir).stdout; !strings.Contains(text, "/"+long+"\n") || !strings.Contains(text, dir) || !strings.Contains(text, "P99") {
		t.Errorf("something is missing: %s", text)
	}
	s.umount(dir)
}

// checkFits checks that no line of what imgfs printed takes more columns than there are.
// Sentences are as long as they are in a pipe.
func checkFits(t *testing.T, args []string, text string, cols int) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if n := len([]rune(line)) + strings.Count(line, "日") + strings.Count(line, "本") + strings.Count(line, "語"); n > cols && !strings.Contains(line, " on disk, ") && !strings.HasPrefix(line, "verified ") && !strings.Contains(line, "left alone: ") {
			t.Errorf("imgfs %q on %d columns: a line of %d: %q", args, cols, n, line)
		}
	}
}

// TestLayersFit has what layers do on narrow terminals: the bars and the beginnings of the
// commands stay, and digests and the time go before them.
func TestLayersFit(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	long := strings.Repeat("word ", 40) + "end"
	steps := []step{{"created": "2024-01-02T03:04:05Z", "created_by": "FIRST " + long}, {"created": "2024-01-02T03:04:06Z", "created_by": "SECOND " + long}}
	image := layersImage(t, steps, tarFiles(t, "etc/passwd", "", "old", strings.Repeat("x", 1<<20)), tarFiles(t, "old", "1", ".wh.etc", ""))
	for _, c := range []struct {
		args    string
		columns int
		want    []string
		without []string
	}{
		{"history", 80, []string{" SHARE ", "\n1 ", " ########  ", " CREATED ", " FIRST word wor", "…", "no room for DIGEST, DIFFID:"}, []string{"end"}},
		{"history", 60, []string{" SHARE ", " FIRST word", "…\n", "no room for DIGEST, DIFFID, CREATED:"}, nil},
		{"history", 50, []string{" FIRST word", "…\n", "no room for SHARE, DIGEST, DIFFID, CREATED:"}, nil},
		{"du --layers", 80, []string{" HIDES ", " FIRST word", "…\n"}, []string{"no room", "end"}},
		{"du --layers", 60, []string{" HIDES ", " USELESS ", " FIRST word", "…\n", "no room for REPLACES:"}, nil},
		{"stat", 80, []string{"\n Layer: 2 ", " (SECOND word word", "…\n", "  FIRST word", "  SECOND word"}, []string{"Layer: 2 sha256:", "end"}},
		{"stat", 40, []string{"\n Layer: 2 ", "…\n"}, []string{"Layer: 2 sha256:"}},
	} {
		args := append(strings.Fields(c.args), "-q", image)
		if c.args == "stat" {
			args = append(args, "/old")
		}
		w := newTerminal(t, c.columns, 100)
		cmd := s.command(args...)
		cmd.Stdout = w.tty
		if code := w.run(func(*os.File) int { return exitCode(cmd.Run()) }); code != 0 {
			t.Fatalf("imgfs %s: %s", c.args, w.written())
		}
		text := strings.ReplaceAll(w.written(), "\r\n", "\n")
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			own := strings.Contains(line, "word") || c.args != "stat"
			if n := len([]rune(line)); n > c.columns && own || strings.HasSuffix(line, " ") {
				t.Errorf("imgfs %s on %d columns: a line of %d, or one with blanks at its end: %q", c.args, c.columns, n, line)
			}
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("imgfs %s on %d columns: there is no %q:\n%s", c.args, c.columns, want, text)
			}
		}
		for _, not := range c.without {
			if strings.Contains(text, not) {
				t.Errorf("imgfs %s on %d columns: there is %q:\n%s", c.args, c.columns, not, text)
			}
		}
	}
}

// exitCode returns the exit code of a command that has run.
func exitCode(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// TestNamesInLines has names in the terminal's lines that could act on it, wherever imgfs
// prints lines: the report of a mount, its log, messages, tables and bars.
func TestNamesInLines(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	t.Parallel()
	s, reg := newSandbox(t), registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	name := "a\nimgfs: b\x1b[31m\tc\u009b32m\u202ed\xff" + strings.Repeat("e", 100)
	dir := filepath.Join(s.mountpoint(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(what, text string, lines int) {
		t.Helper()
		if n := strings.Count(text, "\n"); n != lines && lines > 0 {
			t.Errorf("%s has %d lines, want %d: %q", what, n, lines, text)
		}
		for _, bad := range []string{"\x1b[31m", "\x1b]", "\u009b", "\u202e", "\t", "\xff"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q: %q", what, bad, text)
			}
		}
	}
	for _, foreground := range []bool{false, true} {
		w := newTerminal(t, 80, 24)
		cmd := s.command("mount", fmt.Sprintf("--foreground=%v", foreground), "--verbose", image, dir)
		cmd.Env = append(cmd.Env, "TERM=xterm")
		cmd.Stdout, cmd.Stderr = w.tty, w.tty
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.shows("mounted ")
		check("the terminal", w.written(), 0)
		if lines := strings.Join(w.lines(), ""); !strings.Contains(strings.ReplaceAll(lines, " ", ""), "fetched") || strings.Contains(lines, "\nimgfs: b") {
			t.Errorf("the report is cut: %q", w.written())
		}
		check("cache ls", s.ok("cache", "ls").stdout, 3)
		check("stats", s.ok("stats", dir).stdout, 0)
		check("an error", s.run("mount", image, dir).stderr, 0)
		s.ok("umount", dir)
		_ = cmd.Wait() // it may have ended by itself
		s.waitGone(dir)
	}
	for _, args := range [][]string{{"mount", name, dir}, {"mount", image, name}, {"ls", image, name}, {"cat", image, name}, {"stats", name}, {"umount", name},
		{"index", "oci:" + name}, {"ls", reg.Host() + "/app:" + name}, {"ls", reg.Host() + "/app@" + name}, {"ls", name + ":80/app"}, {name}, {"ls", "--" + name}} {
		r := s.run(args...)
		if r.code == 0 {
			t.Errorf("imgfs %q works", args)
		}
		check(fmt.Sprintf("imgfs %q", args), r.stdout+r.stderr, 0)
		for line := range strings.Lines(r.stderr) {
			if strings.HasPrefix(line, "imgfs: b") {
				t.Errorf("imgfs %q: a line of a stranger's: %q", args, r.stderr)
			}
		}
	}

}
