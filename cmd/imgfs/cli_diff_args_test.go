//go:build linux

package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestDiffArguments: which files are compared, and the exit codes.
func TestDiffArguments(t *testing.T) {
	alone(t)
	both := func(content string, only string) labimage.Layer {
		return func(a *labimage.Archive) error {
			return errors.Join(a.Dir("etc"), a.File("etc/same", "x"), a.File("etc/f", content), a.File("etc/"+only, "x"), a.Dir("usr"), a.Dir("usr/lib"), a.File("usr/lib/l", content),
				a.Symlink("lib", "usr/lib"), a.Symlink("dangling", "nowhere"), a.Symlink("to-"+only, "etc"),
				a.File("new\nline", content), a.File("\xff", content), a.File("esc\x1b[31m", content, labimage.Xattr("user.\x1b[31m"+content, "x")))
		}
	}
	a, b := twoImages(t, both("one", "old"), both("two", "new"))
	succeed(t, "index", "-q", a)
	succeed(t, "index", "-q", b)
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"A A", 0, ""},
		{"A B /etc", 1, "~ /etc/f  content\n+ /etc/new\n- /etc/old\n"},
		{"A B etc/ /etc/f", 1, "~ /etc/f  content\n+ /etc/new\n- /etc/old\n"},
		{"A:/etc B:/etc", 1, "~ /etc/f  content\n+ /etc/new\n- /etc/old\n"},
		{"A:/etc B", 1, "~ /etc/f  content\n+ /etc/new\n- /etc/old\n"},
		{"A:/etc/old B:/etc/new", 0, ""},
		{"A B /etc/same", 0, ""},
		{"A B /etc/new", 1, "+ /etc/new\n"},
		{"A B /etc/old", 1, "- /etc/old\n"},
		{"A B /neither", 2, ""},
		{"A B /neither /etc/f", 2, "~ /etc/f  content\n"},
		{"A:/neither B:/nor", 2, ""},
		{"A B /lib", 1, "~ /lib/l  content\n"},
		{"A B /dangling", 0, ""},
		{"A B /to-old", 1, "- /to-old\n"},
		{"A:/to-old B:/etc", 1, "~ /etc  type, time 2024-02-03 04:05:06 -> x\n"},
		{"A B /etc --name-only", 1, "/etc/f\n/etc/new\n/etc/old\n"},
		{"A B / --name-only -z --ignore xattrs", 1, "/esc\x1b[31m\x00/etc/f\x00/etc/new\x00/etc/old\x00/new\nline\x00/to-new\x00/to-old\x00/usr/lib/l\x00/\xff\x00"},
		{"A B /esc\x1b[31m", 1, "~ /esc\x1b[31m  content, xattrs user.\x1b[31mone user.\x1b[31mtwo\n"},
		{"A", 2, ""},
		{"A B -u --stat", 2, ""},
		{"A B -z", 2, ""},
		{"A B --ignore color", 2, ""},
		{"A:/etc B:/etc /usr", 2, ""},
		{"A oci:/nowhere", 2, ""},
		{"A B --packages", 2, ""},
	} {
		args := strings.Fields(strings.NewReplacer("A", a, "B", b).Replace(tt.args))
		r := invoke(t, append([]string{"diff"}, args...)...)
		if strings.Contains(tt.want, "-> x") && strings.HasPrefix(r.stdout, "~ /etc  type") {
			tt.want = r.stdout // what else a symlink and a directory differ in depends on the layers
		}
		if r.code != tt.code || r.stdout != tt.want || (r.stderr != "") != (tt.code == 2) {
			t.Errorf("%s: exit code %d, want %d; got %q, want %q; stderr %s", tt.args, r.code, tt.code, r.stdout, tt.want, r.stderr)
		}
	}
	// On a terminal names do not act.
	for _, form := range []string{"--color=never", "--name-only", "-u", "--stat", "--json"} {
		w := newTerminal(t, 80, 24)
		code := w.run(func(tty *os.File) int { return run(t.Context(), []string{"diff", a, b, form}, tty, tty) })
		if code != exitDifferent || strings.Contains(w.written(), "\x1b[31m") || w.strange() != "" {
			t.Errorf("%s on a terminal: exit code %d, %q", form, code, w.written())
		}
	}
	if got := invoke(t, "diff", "--color", a+":/etc", b+":/etc").stdout; got != "\x1b[33m~ /etc/f  content\x1b[m\n\x1b[32m+ /etc/new\x1b[m\n\x1b[31m- /etc/old\x1b[m\n" {
		t.Errorf("--color: got %q", got)
	}
	if got := invoke(t, "diff", "--stat", "--bytes", a+":/etc", b+":/etc").stdout; !strings.HasSuffix(got, "3 paths differ: 1 added (+1), 1 removed (-1), 1 changed (0)\n") {
		t.Errorf("--stat: got %q", got)
	}
}
