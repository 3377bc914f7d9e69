//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"golang.org/x/sys/unix"
)

// A realTree is a directory and an image of the same files.
type realTree struct {
	dir   string
	image string
	cache string // a flag
}

// oddNames are names that need care when they are printed.
var oddNames = []string{"with space", "new\nline", `back\slash`, "-dash", "tab\t", "esc\x1b[31m", "gr\xfcn", "\xff\xfe", "grün-日本-😀", `"quoted'`, "*", "~", "a=b"}

// newRealTree makes a tree on disk and has GNU tar make a layer of it.
func newRealTree(t *testing.T) *realTree {
	t.Helper()
	need(t, "tar")
	r := &realTree{dir: filepath.Join(t.TempDir(), "tree"), cache: "--cache-dir=" + t.TempDir()}
	at := func(name string) string { return filepath.Join(r.dir, name) }
	for _, name := range []string{"files/empty", ".dot/below", "plain", "dir/.hidden", "dir/b", "dir/a", "dir/sub/deep/x", "modes/setuid", "modes/setgid", "modes/closed", "modes/all", "modes/sticky"} {
		writeFile(t, at(name), strings.Repeat("x", len(name)*len(name)))
	}
	for _, name := range oddNames {
		writeFile(t, filepath.Join(at("odd"), name), name)
	}
	writeFile(t, at("files/big"), strings.Repeat("big", 1_000_000))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(at("void"), 0o700))
	check(os.Mkdir(at("tmp"), 0o755))
	closed := uint32(0)
	if os.Geteuid() != 0 {
		closed = 0o400 // for tar
	}
	for name, mode := range map[string]uint32{"modes/setuid": 0o4755, "modes/setgid": 0o2644, "modes/closed": closed, "modes/all": 0o7777, "modes/sticky": 0o1644, "tmp": 0o1777} {
		check(unix.Chmod(at(name), mode))
	}
	for name, target := range map[string]string{"to-dir": "dir", "to-file": "dir/a", "files/dangling": "no where", "files/loop": "loop", "absolute": "/dir", "odd/link": "new\nline"} {
		check(os.Symlink(target, at(name)))
	}
	check(os.Link(at("dir/a"), at("files/hard")))
	check(unix.Mkfifo(at("files/fifo"), 0o622))
	check(os.Chtimes(at("files/empty"), time.Time{}, time.Unix(86399, 0)))
	check(os.Chtimes(at("files/big"), time.Time{}, time.Unix(1<<32+5, 0)))
	if os.Geteuid() == 0 {
		check(unix.Mknod(at("files/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		check(unix.Mknod(at("files/tty"), unix.S_IFCHR|0o620, int(unix.Mkdev(4, 300))))
		check(os.Chown(at("files/big"), 4_000_000_000, 7))
	}
	r.pack(t)
	return r
}

// pack has GNU tar make an image of the directory.
func (r *realTree) pack(t *testing.T, flags ...string) {
	t.Helper()
	args := append([]string{"-C", r.dir, "--format=posix", "--numeric-owner", "--sort=name"}, flags...)
	out, err := exec.Command("tar", append(args, "-cf", "-", ".")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	store := sourcetest.NewStore()
	desc := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: out}}})
	if err := store.WriteLayout(r.dir+".oci", sourcetest.Tagged(desc, "v1")); err != nil {
		t.Fatal(err)
	}
	r.image = "oci:" + r.dir + ".oci:v1"
}

// ls runs ls(1) in the tree.
func (r *realTree) ls(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("ls", append([]string{"--time-style=+%Y-%m-%d %H:%M:%S"}, args...)...)
	cmd.Dir, cmd.Env = r.dir, []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ls %q: %v", args, err)
	}
	return string(out)
}

// imgfs runs imgfs ls, with times as ls prints them there.
func (r *realTree) imgfs(t *testing.T, flags []string, paths ...string) string {
	t.Helper()
	args := append([]string{"ls", r.cache, "--time-style=+%Y-%m-%d %H:%M:%S"}, flags...)
	return succeed(t, append(append(args, "--", r.image), paths...)...)
}

// totals are the lines that say how many blocks files take on a disk.
var totals = regexp.MustCompile(`(?m)^total \d+\n`)

// TestLsIsLs compares imgfs ls with ls(1) of coreutils, byte for byte.
func TestLsIsLs(t *testing.T) {
	alone(t)
	need(t, "ls")
	r := newRealTree(t)
	for _, c := range []struct{ flags, paths string }{
		{"", ""}, {"-A", ""}, {"-a", ""}, {"-R", ""}, {"-AR", ""}, {"-aR", ""}, {"-A", "odd"}, {"", "odd"},
		{"", "dir"}, {"", "dir/"}, {"", "dir/a"}, {"", "to-dir"}, {"", "to-dir/"}, {"", "to-file"}, {"-A", "dir files"}, {"", "files dir plain to-dir to-file"},
		{"", "void"}, {"-R", "void"}, {"-R", "dir void/"}, {"-a", "void"}, {"", "dir/../plain"}, {"", "dir dir"}, {"", ".dot"}, {"-R", ".dot to-dir"},
		{"", "files/dangling"}, {"", "./dir//sub"}, {"-A", "void plain"},
		{"-l", "files"}, {"-l", "dir/a"}, {"-l", "to-dir"}, {"-l", "to-file plain"}, {"-lA", "modes"}, {"-l", "files/loop"}, {"-l", "odd"},
	} {
		t.Run(c.flags+" "+c.paths, func(t *testing.T) {
			paths := strings.Fields(c.paths)
			flags := strings.Fields(strings.ReplaceAll(c.flags, "-l", "-ln"))
			got := totals.ReplaceAllString(r.imgfs(t, flags, paths...), "")
			if len(paths) == 0 {
				// imgfs begins at the root.
				got = strings.ReplaceAll(strings.ReplaceAll("\n"+got, "\n/:\n", "\n.:\n"), "\n/", "\n./")[1:]
			}
			want := totals.ReplaceAllString(r.ls(t, append(flags, paths...)...), "")
			if got != want {
				t.Errorf("imgfs ls:\n%s\nls:\n%s", got, want)
			}
		})
	}
}

// TestLsLongDirectories compares lines about directories, whose size and
// number of links are the file system's own.
func TestLsLongDirectories(t *testing.T) {
	alone(t)
	need(t, "ls")
	r := newRealTree(t)
	columns := regexp.MustCompile(`(?m)^(d\S+) +\d+ +(\d+) +(\d+) +\d+ `)
	spaces := regexp.MustCompile(`(?m)^(\S+) +(\d+) +(\d+) +(\d+) +(\d+) `)
	same := func(text string) string {
		return spaces.ReplaceAllString(columns.ReplaceAllString(text, "$1 0 $2 $3 0 "), "$1 $2 $3 $4 $5 ")
	}
	for _, flags := range []string{"-ln", "-lAn"} {
		want := totals.ReplaceAllString(r.ls(t, flags), "")
		if got := totals.ReplaceAllString(r.imgfs(t, []string{flags}), ""); same(got) != same(want) {
			t.Errorf("imgfs ls %s:\n%s\nls:\n%s", flags, got, want)
		}
	}
}

func TestLsMissing(t *testing.T) {
	alone(t)
	r := newRealTree(t)
	got := invoke(t, "ls", r.cache, r.image, "nothing", "dir", "plain/below", "files/loop/", "plain")
	if want := "plain\n\ndir:\na\nb\nsub\n"; got.code != cli.ExitFailure || got.stdout != want {
		t.Errorf("got exit code %d and %q, want %d and %q", got.code, got.stdout, cli.ExitFailure, want)
	}
	want := "imgfs: IMG: nothing: no such file or directory\nimgfs: IMG: plain/below: not a directory\nimgfs: IMG: files/loop/: too many levels of symbolic links\n"
	if said := progressLine.ReplaceAllString(got.stderr, ""); said != strings.ReplaceAll(want, "IMG", r.image) {
		t.Errorf("got on stderr\n%s\nwant\n%s", said, want)
	}
}

// TestLsOnTerminal has names that would change the colours of a terminal, or turn and
// hide what stands beside them.
func TestLsOnTerminal(t *testing.T) {
	home := alone(t)
	unsafe := []string{"esc\x1b[31m", "new\nline", "gr\xfcn", "tab\t", "turned\u202e", "zero\u200bwidth", "\u2066isolated", "c1\u009b31m", "del\x7f", "bell\a"}
	var headers []tar.Header
	for _, name := range append(unsafe, "plain", "日本") {
		headers = append(headers, tar.Header{Name: name}, tar.Header{Name: "links/" + name, Typeflag: tar.TypeSymlink, Linkname: "to" + name})
	}
	store := sourcetest.NewStore()
	if err := store.WriteLayout(home+"/odd", sourcetest.Tagged(store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: tarOf(t, headers...)}}}), "v1")); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-1", "-C", "-x", "-m", "-l", "-N", "-b", "-Q", "-lN", "-1RF", "--zero", "--quoting-style=shell", "--quoting-style=shell-always", "--quoting-style=literal -l", "-C -w0", "--color=always -lR"} {
		for _, path := range []string{"/", "links"} {
			args := append(append([]string{"ls", "-q", "--cache-dir", home + "/cache"}, strings.Fields(flags)...), "oci:"+home+"/odd", path)
			t.Setenv("LS_COLORS", "lc=<:rc=>:ec=<>") // these do nothing to a terminal
			screen := onTerminal(t, func(tty *os.File) int { return run(t.Context(), args, tty, &bytes.Buffer{}) })
			if flags == "--zero" {
				screen = strings.ReplaceAll(screen, "\x00", "\r\n")
			}
			for line := range strings.SplitSeq(strings.ReplaceAll(screen, "\t", ""), "\r\n") {
				if !printable.Harmless(line) {
					t.Errorf("imgfs ls %s %s printed %q", flags, path, line)
				}
			}
			if !strings.Contains(screen, "日本") || !strings.Contains(screen, "plain") || strings.Contains(screen, "gr\xfcn") {
				t.Errorf("imgfs ls %s %s: there are no names: %q", flags, path, screen)
			}
		}
	}
}

// TestLsDefaults has what is different on a terminal and in a pipe without any flag.
func TestLsDefaults(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	layer := tarOf(t, tar.Header{Name: "a dir/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "file"}, tar.Header{Name: "other"})
	if err := store.WriteLayout(home+"/some", sourcetest.Tagged(store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}}), "v1")); err != nil {
		t.Fatal(err)
	}
	args := func(flags ...string) []string {
		return append(append([]string{"ls", "-q", "--cache-dir", home + "/cache"}, flags...), "oci:"+home+"/some")
	}
	screen := func(flags ...string) string {
		return onTerminal(t, func(tty *os.File) int { return run(t.Context(), args(flags...), tty, &bytes.Buffer{}) })
	}
	const colored = "\x1b[0m\x1b[01;34m'a dir'\x1b[0m   file   other\r\n"
	t.Setenv("TERM", "xterm")
	for name, c := range map[string]struct{ got, want string }{
		"pipe":           {succeed(t, args()...), "a dir\nfile\nother\n"},
		"pipe, auto":     {succeed(t, args("--color=auto")...), "a dir\nfile\nother\n"},
		"pipe, always":   {succeed(t, args("--color")...), "\x1b[0m\x1b[01;34ma dir\x1b[0m\nfile\nother\n"},
		"terminal":       {screen(), "'a dir'   file\t other\r\n"},
		"terminal, auto": {screen("--color=auto"), colored},
		"terminal, -1":   {screen("-1"), "'a dir'\r\nfile\r\nother\r\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
	for _, variable := range [][2]string{{"NO_COLOR", "1"}, {"TERM", "dumb"}, {"TERM", ""}} {
		t.Run(variable[0]+"="+variable[1], func(t *testing.T) {
			t.Setenv(variable[0], variable[1])
			if got, want := screen("--color=auto"), "'a dir'   file\t other\r\n"; got != want {
				t.Errorf("auto: got %q, want %q", got, want)
			}
			if got := screen("--color=always"); got != colored {
				t.Errorf("always: got %q, want %q", got, colored)
			}
		})
	}
}

// TestLsLongDevices has the widths of columns that devices have, which only root
// could put on a disk.
func TestLsLongDevices(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	when := time.Unix(1_700_000_000, 0)
	layer := tarOf(t,
		tar.Header{Name: "big-minor", Typeflag: tar.TypeBlock, Devmajor: 7, Devminor: 123456, Mode: 0o660, Gid: 6, ModTime: when},
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 259, Devminor: 3, Mode: 0o666, ModTime: when},
		tar.Header{Name: "file", ModTime: when, Uid: 1000},
	)
	desc := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}})
	if err := store.WriteLayout(home+"/dev", sourcetest.Tagged(desc, "v1")); err != nil {
		t.Fatal(err)
	}
	got := succeed(t, "ls", "-l", "--time-style=+%F %T", "--cache-dir", home+"/cache", "oci:"+home+"/dev:v1")
	const want = `total 0
brw-rw---- 1    0 6   7, 123456 2023-11-14 22:13:20 big-minor
-rw-r--r-- 1 1000 0           0 2023-11-14 22:13:20 file
crw-rw-rw- 1    0 0 259,      3 2023-11-14 22:13:20 null
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
