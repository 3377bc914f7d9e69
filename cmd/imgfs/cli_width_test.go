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
	for _, args := range [][]string{{"stats", dir}, {"cache", "ls"}, {"index", image}, {"cache", "verify"}} {
		plain := s.ok(args...).stdout
		for _, cols := range []int{200, 80, 40} {
			w := newTerminal(t, cols, 100)
			cmd := s.command(args...)
			cmd.Stdout = w.tty
			if code := w.run(func(*os.File) int { return exitCode(cmd.Run()) }); code != 0 {
				t.Fatalf("imgfs %q: %s", args, w.written())
			}
			for line := range strings.Lines(w.written()) {
				line = strings.TrimRight(line, "\r\n")
				if n := len([]rune(line)) + strings.Count(line, "日") + strings.Count(line, "本") + strings.Count(line, "語"); n > cols {
					t.Errorf("imgfs %q on %d columns: a line of %d: %q", args, cols, n, line)
				}
			}
			if cols == 80 && args[0] == "stats" {
				for _, want := range []string{"…", "LAYER ", "FETCHED", "VERIFIED", "日本語", "no room for "} {
					if !strings.Contains(w.written(), want) {
						t.Errorf("imgfs %q on %d columns: there is no %q:\n%s", args, cols, want, w.written())
					}
				}
			}
		}
		if strings.Contains(plain, "…") || strings.Contains(plain, "no room") {
			t.Errorf("imgfs %q leaves something out, and prints to no terminal:\n%s", args, plain)
		}
	}
	if text := s.ok("stats", dir).stdout; !strings.Contains(text, "/"+long+"\n") || !strings.Contains(text, dir) || !strings.Contains(text, "P99") {
		t.Errorf("something is missing: %s", text)
	}
	s.umount(dir)
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
