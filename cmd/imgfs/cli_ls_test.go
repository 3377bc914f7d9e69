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
	out, err := exec.Command("tar", "-C", r.dir, "--format=posix", "--numeric-owner", "--sort=name", "-cf", "-", ".").Output()
	check(err)
	store := sourcetest.NewStore()
	desc := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: out}}})
	check(store.WriteLayout(r.dir+".oci", sourcetest.Tagged(desc, "v1")))
	r.image = "oci:" + r.dir + ".oci:v1"
	return r
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

// imgfs runs imgfs ls.
func (r *realTree) imgfs(t *testing.T, flags []string, paths ...string) string {
	t.Helper()
	args := append([]string{"ls", r.cache}, flags...)
	return succeed(t, append(append(args, "--", r.image), paths...)...)
}

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
			flags := strings.Fields(c.flags)
			got := r.imgfs(t, flags, paths...)
			if len(paths) == 0 {
				// imgfs begins at the root.
				got = strings.ReplaceAll(strings.ReplaceAll("\n"+got, "\n/:\n", "\n.:\n"), "\n/", "\n./")[1:]
			}
			want := r.ls(t, append(strings.Fields(strings.ReplaceAll(c.flags, "-l", "-ln")), paths...)...)
			want = regexp.MustCompile(`(?m)^total \d+\n`).ReplaceAllString(want, "") // blocks on disk
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
	for _, flags := range []string{"-l", "-lA"} {
		want := regexp.MustCompile(`(?m)^total \d+\n`).ReplaceAllString(r.ls(t, flags+"n"), "")
		if got := r.imgfs(t, []string{flags}); same(got) != same(want) {
			t.Errorf("imgfs ls %s:\n%s\nls %sn:\n%s", flags, got, flags, want)
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

// TestLsOnTerminal has names that would change the colours of a terminal.
func TestLsOnTerminal(t *testing.T) {
	alone(t)
	r := newRealTree(t)
	screen := onTerminal(t, func(tty *os.File) int {
		return run(t.Context(), []string{"ls", r.cache, r.image, "odd"}, tty, &bytes.Buffer{})
	})
	for _, name := range []string{`$'esc\033[31m'`, `$'new\nline'`, `$'gr\374n'`, "grün-日本-😀", `$'tab\t'`, `back\slash`, "with space"} {
		if !strings.Contains(screen, name+"\r\n") {
			t.Errorf("%q is not in %q", name, screen)
		}
	}
	screen = onTerminal(t, func(tty *os.File) int {
		return run(t.Context(), []string{"ls", "-l", r.cache, r.image, "odd/link"}, tty, &bytes.Buffer{})
	})
	if !strings.HasSuffix(screen, "odd/link -> $'new\\nline'\r\n") {
		t.Errorf("got %q for a symlink to new\\nline", screen)
	}
}

func TestModeString(t *testing.T) {
	for _, c := range []struct {
		mode uint32
		want string
	}{
		{unix.S_IFREG | 0o644, "-rw-r--r--"},
		{unix.S_IFDIR | 0o1777, "drwxrwxrwt"},
		{unix.S_IFDIR | 0o1666, "drw-rw-rwT"},
		{unix.S_IFREG | 0o4755, "-rwsr-xr-x"},
		{unix.S_IFREG | 0o4644, "-rwSr--r--"},
		{unix.S_IFREG | 0o2755, "-rwxr-sr-x"},
		{unix.S_IFREG | 0o2000, "------S---"},
		{unix.S_IFLNK | 0o777, "lrwxrwxrwx"},
		{unix.S_IFCHR | 0o620, "crw--w----"},
		{unix.S_IFBLK, "b---------"},
		{unix.S_IFIFO | 0o1, "p--------x"},
		{unix.S_IFSOCK | 0o700, "srwx------"},
	} {
		if got := modeString(c.mode); got != c.want {
			t.Errorf("modeString(%#o): got %s, want %s", c.mode, got, c.want)
		}
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
	got := succeed(t, "ls", "-l", "--cache-dir", home+"/cache", "oci:"+home+"/dev:v1")
	const want = `brw-rw---- 1    0 6   7, 123456 2023-11-14 22:13:20 big-minor
-rw-r--r-- 1 1000 0           0 2023-11-14 22:13:20 file
crw-rw-rw- 1    0 0 259,      3 2023-11-14 22:13:20 null
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
