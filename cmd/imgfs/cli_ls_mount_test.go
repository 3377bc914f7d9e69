//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// Lists of access rights as the kernel has them: u::rw-,u:1:r--,g::r--,m::r--,o::r--, and
// what the mode 0644 says.
const (
	longACL  = "\x02\x00\x00\x00" + userRights + "\x02\x00\x04\x00\x01\x00\x00\x00" + groupRights + "\x10\x00\x04\x00\xff\xff\xff\xff" + otherRights
	shortACL = "\x02\x00\x00\x00" + userRights + groupRights + otherRights

	userRights  = "\x01\x00\x06\x00\xff\xff\xff\xff"
	groupRights = "\x04\x00\x04\x00\xff\xff\xff\xff"
	otherRights = "\x20\x00\x04\x00\xff\xff\xff\xff"
)

// lsLayer is a layer of what ls has its cases for.
func lsLayer(passwd, group string) labimage.Layer {
	now := time.Now()
	old := labimage.ModTime(time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC))
	return func(a *labimage.Archive) error {
		errs := []error{
			a.Dir("etc", old), a.File("etc/passwd", passwd, old), a.File("etc/group", group, old),
			a.Dir("times", old),
			a.File("times/hour", "x", labimage.ModTime(now.Add(-time.Hour))),
			a.File("times/months", "x", labimage.ModTime(now.AddDate(0, -5, 0))),
			a.File("times/year", "x", labimage.ModTime(now.AddDate(-1, 0, 0))),
			a.File("times/future", "x", labimage.ModTime(now.AddDate(0, 1, 0))),
			a.File("times/epoch", "x", labimage.ModTime(time.Unix(0, 0))), a.File("times/before", "x", labimage.ModTime(time.Unix(-86400*400, 5))),
			a.File("times/same-b", "x", labimage.ModTime(time.Unix(0, 0))), a.File("times/same-a", "x", labimage.ModTime(time.Unix(0, 0))),
			a.Dir("kinds", old), a.Dir("kinds/dir", old), a.Dir("kinds/sticky", old, labimage.Mode(0o1755)), a.Dir("kinds/tmp", old, labimage.Mode(0o1777)), a.Dir("kinds/open", old, labimage.Mode(0o777)),
			a.File("kinds/program", "x", old, labimage.Mode(0o755)), a.File("kinds/setuid", "x", old, labimage.Mode(0o4755)), a.File("kinds/setgid", "x", old, labimage.Mode(0o2755)),
			a.File("kinds/archive.tar.gz", "x", old), a.File("kinds/PICTURE.JPG", "x", old), a.File("kinds/plain", "x", old),
			a.Fifo("kinds/fifo", old), a.Device("kinds/null", '3', 1, 3, old), a.Device("kinds/disk", '4', 259, 123456, old),
			a.Symlink("kinds/to-dir", "dir", old), a.Symlink("kinds/to-program", "program", old), a.Symlink("kinds/dangling", "no where", old), a.Symlink("kinds/loop", "loop", old),
			a.Symlink("kinds/up", "..", old), a.Link("kinds/hard", "kinds/plain"),
			a.Dir("owners", old), a.File("owners/root", "", old), a.File("owners/daemon", "", old, labimage.Owner(1, 1)), a.File("owners/nobody", "", old, labimage.Owner(65534, 65534)),
			a.File("owners/none", "", old, labimage.Owner(123456, 7654321)), a.File("owners/mail", "", old, labimage.Owner(8, 12)),
			a.Dir("rights", old), a.File("rights/plain", "", old),
			a.File("rights/more", "", old, labimage.Xattr("system.posix_acl_access", longACL)),
			a.Dir("rights/dir", old, labimage.Xattr("system.posix_acl_default", shortACL)), a.Symlink("rights/link", "more", old), a.File("rights/labelled", "", old, labimage.Xattr("security.selinux", "system_u:object_r:bin_t:s0\x00")),
			a.Dir("sizes", old), a.Dir("versions", old), a.Dir("names", old), a.Dir("many", old), a.Dir("void", old), a.Dir("single", old), a.File("single/one", "x", old),
			a.Dir("a:b", old), a.File("a:b/c", "", old),
		}
		for _, size := range []int{0, 1, 9, 511, 512, 513, 999, 1000, 1001, 1023, 1024, 1025, 9999, 10137, 10138, 10239, 10240, 10241, 99_999, 102_399, 102_401, 999_999, 1_023_999, 1_047_553, 1 << 20, 1<<20 + 1} {
			errs = append(errs, a.File(fmt.Sprintf("sizes/%d", size), strings.Repeat("s", size), old))
		}
		for _, name := range []string{"a1", "a10", "a9", "a09", "a", "b.tar.gz", "b1.tar.gz", "b-1.tar.gz", "b1.2.tar", "b1.10.tar", ".hidden", ".hidden2", "c~", "c", "c.d~", "x.y.z", "x.1", "x.y1", "Upper", "lower", "1", "01", "001", "a.b", "a-b", "a_b", "é1", "0", ".1"} {
			errs = append(errs, a.File("versions/"+name, name, old))
		}
		for _, name := range append(oddNames, "$x", "#first", "not#first", "~first", "not~first", "{", "}", "{}", "it's", "it's $5", `"`, "a'b\"c", "back`tick", "semi;colon", "q?", "[x]", "^x", "!x", "p|q", "a@b", "a:b", "日本", "日本'", "comb e\u0301", " lead", "trail ", "two  spaces", "\x01\x02", "\a\b\f\v\r", "\x7f", "$'x'", "1\t2'3", "ünï code") {
			errs = append(errs, a.File("names/"+name, "", old))
		}
		for i := range 100 {
			errs = append(errs, a.File("many/"+strings.Repeat("n", i*i%23+1)+fmt.Sprint(i), strings.Repeat("x", i*37), old))
		}
		return errors.Join(errs...)
	}
}

// onTerminalOf runs a program whose output is a terminal of some columns, and returns
// what it printed there.
func onTerminalOf(t *testing.T, cmd *exec.Cmd, columns int) string {
	t.Helper()
	return onTerminal(t, func(tty *os.File) int {
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = tty
		_ = cmd.Run() // both programs' exit codes are compared elsewhere
		return 0
	})
}

// parent is a line about .. of the root, which is another directory in a mount.
var parent = regexp.MustCompile(`(?m)^d.* \.\.\r?\n`)

// TestLsIsLsOfMount compares imgfs ls with ls(1) in a mount of the same image, byte for
// byte, in a pipe and on a terminal. So owners, links, blocks, inodes and access rights
// are the same, too.
func TestLsIsLsOfMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "ls")
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		missing(t, "%v", err)
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		missing(t, "%v", err)
	}
	s := newSandbox(t)
	layout := filepath.Join(s.dir, "layout")
	if _, err := labimage.Write(layout, lsLayer(string(passwd), string(group))); err != nil {
		t.Fatal(err)
	}
	image := "oci:" + layout
	dir := s.mount(image)
	colors := "LS_COLORS=rs=0:di=01;34:ln=01;36:mh=00:pi=40;33:so=01;35:bd=40;33;01:cd=40;33;01:or=40;31;01:mi=01;37;41:su=37;41:sg=30;43:tw=30;42:ow=34;42:st=37;44:ex=01;32:*.tar=01;31:*.gz=01;31:*.jpg=01;35"
	for _, c := range []struct{ flags, paths, env string }{
		{"", "", ""}, {"", "names", ""}, {"-l", "names", ""}, {"-C", "names", ""}, {"-x", "names", ""}, {"-m", "names", ""}, {"-F", "names", ""}, {"-Q", "names", ""}, {"-b", "names", ""}, {"-N", "names", ""},
		{"-lQ", "names", ""}, {"-CQ", "names", ""}, {"-Cb", "names", ""}, {"-CF", "names", ""}, {"-lF", "names", ""}, {"-bF", "names", ""}, {"--hide-control-chars", "names", ""},
		{"--quoting-style=shell", "names", ""}, {"--quoting-style=shell-always", "names", ""}, {"--quoting-style=shell-escape", "names", ""}, {"--quoting-style=shell-escape-always", "names", ""},
		{"", "names", "QUOTING_STYLE=c"},
		{"-l", "", ""}, {"-la", "", ""}, {"-lA", "", ""}, {"-lah", "kinds", ""}, {"-ltr", "times", ""}, {"-lt", "times", ""}, {"-t", "times", ""}, {"-tr", "times", ""}, {"-1t", "times", ""}, {"-1R", "", ""}, {"-R", "", ""}, {"-lR", "", ""}, {"-lhS", "sizes", ""},
		{"-lh", "sizes", ""}, {"-lhs", "sizes", ""}, {"-sh", "sizes", ""}, {"-s", "sizes", ""}, {"-ls", "sizes", ""}, {"-l --si", "sizes", ""}, {"-s1", "sizes", ""}, {"-Ss", "sizes", ""}, {"-S", "sizes", ""}, {"-Sr", "sizes", ""}, {"-lk", "sizes", ""},
		{"-l --block-size=1", "sizes", ""}, {"-ls --block-size=K", "sizes", ""}, {"-ls --block-size=kB", "sizes", ""}, {"-ls --block-size=KiB", "sizes", ""}, {"-ls --block-size=M", "sizes", ""}, {"-ls --block-size=512", "sizes", ""}, {"-ls --block-size=2K", "sizes", ""}, {"-l --block-size=si", "sizes", ""},
		{"-l", "owners", ""}, {"-n", "owners", ""}, {"-g", "owners", ""}, {"-o", "owners", ""}, {"-lG", "owners", ""}, {"-go", "owners", ""}, {"-G", "owners", ""}, {"-l", "rights", ""}, {"-lA", "rights/plain rights/more", ""},
		{"-l", "times", "TZ=America/New_York"}, {"-l", "times", "TZ=Asia/Kolkata"}, {"--full-time", "times", ""}, {"--full-time", "times", "TZ=Asia/Kolkata"}, {"-l --time-style=long-iso", "times", ""}, {"-l --time-style=iso", "times", ""}, {"-l --time-style=locale", "times", ""},
		{"-l --time-style=+%Y/%m/%d:%H,%M,%S-%j-%e-%s-%y-%I%p-%A-%B-%Z-%z-%D-%T-%R-%F-%u-%V-%G-%k-%l-%C-%n%t%%-%-d-%_m-%^a", "times", ""}, {"-l", "times", "TIME_STYLE=full-iso"}, {"-l", "times", "TIME_STYLE=+%s"}, {"-lc", "times", ""}, {"-lu", "times", ""}, {"-c", "times", ""}, {"-ltu", "times", ""}, {"-l --time=ctime", "times", ""},
		{"-i", "names", ""}, {"-li", "kinds", ""}, {"-iC", "many", ""}, {"-is", "many", ""}, {"-im", "many", ""}, {"-sm", "many", ""},
		{"-C", "many", ""}, {"-x", "many", ""}, {"-m", "many", ""}, {"-Cs", "many", ""}, {"-CF", "kinds", ""}, {"-C -w40", "many", ""}, {"-C -w0", "many", ""}, {"-x -w0", "many", ""}, {"-m -w0", "many", ""}, {"-C -w1", "many", ""}, {"-C -T0", "many", ""}, {"-C -T4", "many", ""}, {"-C", "many", "COLUMNS=60"}, {"-x", "many", "COLUMNS=200"}, {"-C --width=77", "many single", ""},
		{"-C", "versions", ""}, {"-v1", "versions", ""}, {"--sort=version", "versions", ""}, {"-X", "versions", ""}, {"--sort=width", "versions", ""}, {"-U", "void", ""}, {"-r", "versions", ""}, {"-A", "versions", ""}, {"-aR", "versions", ""}, {"-B", "versions", ""}, {"-I *a*", "versions", ""}, {"--hide=*a*", "versions", ""}, {"-a --hide=*a*", "versions", ""}, {"--ignore=[!ab]*", "versions", ""}, {"-Ar", "versions", ""},
		{"-F", "kinds", ""}, {"-p", "kinds", ""}, {"--file-type", "kinds", ""}, {"--indicator-style=classify", "kinds", ""}, {"-lF", "kinds", ""}, {"-lp", "kinds", ""}, {"-F --group-directories-first", "kinds", ""}, {"-l --group-directories-first", "kinds", ""}, {"-r --group-directories-first", "kinds", ""}, {"-St --group-directories-first", "kinds", ""},
		{"--classify=auto", "kinds", ""}, {"--classify=never", "kinds", ""},
		{"-d", "", ""}, {"-d", "kinds", ""}, {"-ld", "kinds kinds/to-dir kinds/to-dir/", ""}, {"-dF", "kinds/to-dir kinds/dir", ""}, {"-dR", "kinds", ""}, {"-l", "kinds/to-dir", ""}, {"-l", "kinds/to-dir/", ""}, {"", "kinds/to-dir", ""}, {"-F", "kinds/to-dir", ""}, {"-H", "kinds/to-dir", ""}, {"-lH", "kinds/to-dir", ""}, {"-lH", "kinds/to-program", ""}, {"-dH", "kinds/to-dir", ""},
		{"-lL", "kinds", ""}, {"-L", "kinds", ""}, {"-LF", "kinds", ""}, {"-RL", "kinds", ""}, {"-lLi", "kinds", ""}, {"-l --dereference-command-line-symlink-to-dir", "kinds/to-dir kinds/to-program", ""},
		{"", "single void", ""}, {"-l", "single void", ""}, {"-l", "void", ""}, {"-s", "void", ""}, {"-R", "void", ""}, {"-R", "single/ void", ""}, {"-l", "single/one void times/hour", ""}, {"-m", "single/one void times/hour", ""}, {"", "times/hour kinds/plain single sizes", ""}, {"-r", "times/hour kinds/plain single void", ""}, {"-t", "times/hour times/year void single", ""}, {"-U", "times/year times/hour void single", ""}, {"-S", "sizes/9 sizes/999 sizes/1", ""},
		{"-R", "a:b", ""}, {"-RQ", "a:b", ""}, {"-Rb", "a:b", ""}, {"", "a:b void", ""}, {"--format=across", "many", ""}, {"--format=single-column", "many", ""}, {"-l1", "single", ""}, {"-1l", "single", ""}, {"-lC", "single", ""}, {"-1C", "many", ""}, {"-aA", "versions", ""}, {"-Aa", "versions", ""}, {"-hk", "sizes", ""}, {"-lh --block-size=1", "sizes", ""},
		{"-ltrh", "times", ""}, {"-lahF", "kinds", ""}, {"-lahS", "sizes", ""}, {"-laht", "times", ""}, {"-1aF", "kinds", ""}, {"-AlhFi", "kinds", ""}, {"-lrS", "sizes", ""}, {"-lXr", "versions", ""}, {"-f", "versions", ""}, {"-Ur", "versions", ""}, {"-aU", "versions", ""}, {"--zero", "names", ""}, {"--zero -R", "versions kinds", ""}, {"--zero -l", "kinds", ""}, {"-l --zero", "kinds", ""}, {"-C --zero", "kinds", ""}, {"-sC", "sizes", ""}, {"-sx", "sizes", ""}, {"-shF", "sizes", ""},
		{"", "none", ""}, {"-l", "none kinds/plain", ""}, {"-L", "kinds/dangling", ""}, {"-H", "kinds/loop", ""}, {"", "kinds/plain/", ""}, {"-d", "kinds/plain/x void", ""}, {"-l", "kinds/loop/ void", ""},
		{"--color=always", "kinds", ""}, {"--color=always", "kinds", colors}, {"--color", "kinds", colors}, {"--color=auto", "kinds", colors}, {"--color=never", "kinds", colors}, {"-l --color=always", "kinds", colors}, {"-lF --color=always", "kinds", colors}, {"-C --color=always", "names", colors}, {"-l --color=always", "names", colors}, {"-R --color=always", "", colors}, {"-lL --color=always", "kinds", colors}, {"-lR --color=always -w 40", "names", colors},
		{"--color=always", "kinds", "LS_COLORS=ln=target:or=31:mi=32:*.gz=\\e[5m\\x41\\101^A\\_"}, {"--color=always", "kinds", "LS_COLORS=lc=<:rc=>:ec=[end]:di=D"}, {"-l --color=always", "kinds", "LS_COLORS=ln=target:ex=00:di=0:fi=33:ca=0"}, {"--color=always", "kinds", "LS_COLORS=*.gz=1:*.tar.gz=2:*.GZ=1"}, {"--color=always", "", "LS_COLORS=ow=0:tw=0:st=0:su=0:sg=0"},
	} {
		flags := strings.Fields(c.flags)
		for _, columns := range []int{0, 80, 37} {
			if columns > 0 && strings.Contains(c.flags, "--zero") {
				continue // names do not act on a terminal
			}
			t.Run(fmt.Sprintf("%s %s %s %d", c.flags, c.paths, c.env, columns), func(t *testing.T) {
				output := func(cmd *exec.Cmd) string {
					cmd.Env = append(cmd.Env, "TZ=UTC", "LC_ALL=C.UTF-8", "TERM=xterm")
					if c.env != "" {
						cmd.Env = append(cmd.Env, c.env)
					}
					cmd.Stderr = io.Discard
					if columns > 0 {
						return onTerminalOf(t, cmd, columns)
					}
					out, err := cmd.Output()
					return fmt.Sprintf("%sand it failed: %t\n", out, err != nil)
				}
				theirs := flags
				if !strings.Contains(c.flags, "--color") {
					theirs = append([]string{"--color=never"}, flags...)
				}
				ls := s.program("ls", append(append(theirs, "--"), strings.Fields(c.paths)...)...)
				ls.Dir = dir
				want := output(ls)
				args := append([]string{"ls", "-q"}, theirs...)
				if c.flags == "-v1" {
					args = []string{"ls", "-q", "--color=never", "--sort=version", "-1"} // -v is what it is in all commands
				}
				got := output(s.command(append(append(args, "--", image), strings.Fields(c.paths)...)...))
				if c.paths == "" {
					// imgfs begins at the root.
					eol := "\n"
					if columns > 0 {
						eol = "\r\n"
					}
					got = strings.ReplaceAll(strings.ReplaceAll(eol+got, eol+"/:"+eol, eol+".:"+eol), eol+"/", eol+"./")[len(eol):]
					got = strings.ReplaceAll(got, "'/a:b':", "'./a:b':")
				}
				if strings.HasPrefix(c.flags, "-d") && c.paths == "" {
					got = strings.Replace(got, "./", ".", 1)
				}
				got, want = parent.ReplaceAllString(got, ""), parent.ReplaceAllString(want, "")
				if strings.Contains(c.flags, "-l") {
					// ls counts where a line is broken from behind the owners on.
					got, want = strings.ReplaceAll(got, "\x1b[K", ""), strings.ReplaceAll(want, "\x1b[K", "")
				}
				if got != want {
					t.Errorf("imgfs ls and ls differ:\n%s", differing(got, want))
				}
			})
		}
	}
}

// differing returns the lines in which two texts differ, one below the other.
func differing(got, want string) string {
	var b strings.Builder
	ours, theirs := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range max(len(ours), len(theirs)) {
		var x, y string
		if i < len(ours) {
			x = ours[i]
		}
		if i < len(theirs) {
			y = theirs[i]
		}
		if x != y {
			fmt.Fprintf(&b, "%q\n%q\n", x, y)
		}
	}
	return b.String()
}
