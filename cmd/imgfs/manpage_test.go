//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestManualPages: mandoc and groff find nothing wrong with any page, and what man shows
// has every line of the help.
func TestManualPages(t *testing.T) {
	need(t, "mandoc", "groff")
	alone(t)
	for _, name := range append(strings.Split(strings.TrimSpace(succeed(t, "help", "--man-names")), "\n"), "") {
		args := append([]string{"help", "--man"}, strings.Fields(name)...)
		page := succeed(t, args...)
		file := writeFile(t, filepath.Join(t.TempDir(), "page.1"), page)
		out, _ := exec.Command("mandoc", "-T", "lint", "-W", "warning", file).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "missing date") {
				t.Errorf("%s: %s", name, line)
			}
		}
		if out, err := exec.Command("groff", "-ww", "-man", "-T", "utf8", "-z", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: groff: %v\n%s", name, err, out)
		}
		shown, err := exec.Command("mandoc", "-T", "ascii", "-O", "width=200", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		plain := strings.Join(strings.Fields(unstruck(string(shown))), " ")
		for line := range strings.Lines(goldenHelp(t, name)) {
			text := strings.Join(strings.Fields(strings.TrimPrefix(line, "usage: ")), " ")
			if text = strings.TrimPrefix(text, "example: "); text == "example:" {
				continue
			}
			for _, word := range strings.Fields(text) {
				if !strings.Contains(plain, word) {
					t.Errorf("the page of imgfs %s lacks %q of %q", name, word, text)
				}
			}
		}
	}
}

// unstruck removes what makes letters bold on a typewriter.
func unstruck(text string) string {
	for {
		i := strings.IndexByte(text, '\b')
		if i < 1 {
			return text
		}
		text = text[:i-1] + text[i+1:]
	}
}

// TestInstall: make install puts everything in its place.
func TestInstall(t *testing.T) {
	testenv.Slow(t)
	need(t, "make", "install")
	dir := t.TempDir()
	cmd := exec.Command("make", "-C", "../..", "install", "DESTDIR="+dir, "PREFIX=/usr")
	cmd.Env = append(os.Environ(), "IMGFS_CONFIG=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range []string{"bin/imgfs", "share/man/man1/imgfs.1", "share/man/man1/imgfs-mount.1", "share/man/man1/imgfs-cache-ls.1",
		"share/bash-completion/completions/imgfs", "share/zsh/site-functions/_imgfs", "share/fish/vendor_completions.d/imgfs.fish",
		"sbin/mount.fuse.imgfs", "sbin/mount.imgfs", "lib/systemd/system/imgfs@.service", "lib/systemd/user/imgfs@.service",
		"lib/systemd/system/imgfs-snapshotter.service", "lib/systemd/system/imgfs-snapshotter.socket"} {
		if info, err := os.Stat(filepath.Join(dir, "usr", file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
}
