//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// findLayer is a layer of what find and tree have their cases for.
func findLayer(a *labimage.Archive) error {
	passwd := "root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n12:x:13:13::/:\n"
	group := "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\nmail:x:8:\n"
	now, old := time.Now(), labimage.ModTime(time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC))
	errs := []error{
		a.Dir("etc", old), a.File("etc/passwd", passwd, old), a.File("etc/group", group, old),
		a.Dir("kinds", old), a.Dir("kinds/dir", old), a.File("kinds/plain", "x", old), a.Fifo("kinds/fifo", old), a.Device("kinds/null", '3', 1, 3, old), a.Device("kinds/disk", '4', 259, 123456, old),
		a.Symlink("kinds/to-dir", "dir", old), a.Symlink("kinds/to-file", "plain", old), a.Symlink("kinds/to-null", "null", old), a.Symlink("kinds/dangling", "no where", old), a.Symlink("kinds/loop", "loop", old),
		a.Symlink("kinds/not-dir", "plain/x", old), a.Symlink("kinds/Upper", "Plain", old), a.Link("kinds/hard", "kinds/plain", old), a.Link("kinds/dir/hard too", "kinds/plain", old),
		a.Dir("modes", old), a.Dir("owners", old), a.File("owners/root", "", old), a.File("owners/daemon", "", old, labimage.Owner(1, 1)), a.File("owners/nobody", "", old, labimage.Owner(65534, 65534)),
		a.File("owners/none", "", old, labimage.Owner(123456, 7654321)), a.File("owners/half", "", old, labimage.Owner(1, 7654321)), a.File("owners/thirteen", "", old, labimage.Owner(13, 8)),
		a.Dir("times", old), a.Dir("sizes", old), a.Dir("names", old), a.Dir("void", old), a.Dir("deep", old), a.Dir("deep/a", old), a.Dir("deep/a/b", old), a.Dir("deep/a/b/c", old), a.File("deep/a/b/c/file", "x", old),
		a.Dir("deep/.git", old), a.File("deep/.git/config", "x", old), a.File("deep/a/.hidden", "x", old), a.File("deep/a/x.c", "x", old), a.File("deep/a/b/x.h", "x", old), a.File("deep/x.o", "x", old), a.File("deep/a/README.TXT", "x", old),
	}
	for _, mode := range []int64{0, 0o1, 0o4, 0o40, 0o100, 0o111, 0o222, 0o400, 0o444, 0o600, 0o644, 0o664, 0o666, 0o700, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6755, 0o7777} {
		errs = append(errs, a.File(fmt.Sprintf("modes/%04o", mode), "x", old, labimage.Mode(mode)), a.Dir(fmt.Sprintf("modes/dir%04o", mode), old, labimage.Mode(mode)))
	}
	for _, size := range []int{0, 1, 2, 511, 512, 513, 1023, 1024, 1025, 4096, 1 << 20, 1<<20 + 1, 2 << 20} {
		errs = append(errs, a.File(fmt.Sprintf("sizes/%d", size), strings.Repeat("s", size), old))
	}
	errs = append(errs, a.Sparse("sizes/sparse", 48<<20, labimage.Chunk{Off: 1 << 20, Data: "middle"}))
	for name, ago := range map[string]time.Duration{"now": 0, "half-minute": 30 * time.Second, "minutes": 90 * time.Second, "hour": time.Hour, "hours": 23*time.Hour + 30*time.Minute, "day": 25 * time.Hour, "days": 47*time.Hour + 30*time.Minute, "more": 49 * time.Hour,
		"week": 7*24*time.Hour + time.Hour, "months": 150 * 24 * time.Hour, "year": 400 * 24 * time.Hour, "soon": -30 * time.Minute, "tomorrow": -25 * time.Hour, "next-year": -400 * 24 * time.Hour} {
		errs = append(errs, a.File("times/"+name, "x", labimage.ModTime(now.Add(-ago))))
	}
	for name, sec := range map[string]int64{"epoch": 0, "before": -86400 * 400, "day-of-2024": 1706724000, "y2038": 1<<31 + 5, "y2106": 1<<32 + 5} {
		errs = append(errs, a.File("times/"+name, "x", labimage.ModTime(time.Unix(sec, 500))))
	}
	for _, name := range append(oddNames, "[x]", "x*", "q?", "it's", "a:b", "日本", "é", "É", " lead", "\x01\x02", "\a\b\f\v\r", "\x7f", "(", "!", "--name") {
		errs = append(errs, a.File("names/"+name, "", old))
	}
	return errors.Join(errs...)
}

// unpacked has umoci unpack an image of a layout.
func unpacked(t *testing.T, layout string) (rootfs string) {
	t.Helper()
	bundle := filepath.Join(publicDir(t), "bundle")
	tool(t, "umoci", "unpack", "--image", layout+":"+labimage.Tag, bundle)
	return filepath.Join(bundle, "rootfs")
}

// findExpressions are compared with find(1): words that spaces separate. Sizes and links
// of directories are those of whatever holds them, and so are numbers of inodes.
var findExpressions = strings.Split(strings.TrimSpace(`

-name x.*
-name *.[ch]
-iname readme*
-iname É
-name ?
-name [[:upper:]]*
-name [!a-z]*
-name [^a-z]*
-name *\**
-name \[x\]
-name [x]
-name [
-name .*
-name deep -prune
-name --name
-path ./deep/*/x*
-path *deep*a*
-ipath */A/*
-wholename ./deep/a
-iwholename ./DEEP/a
-not -path */.git* -type f
-regex .*/x\.[ch]
-regex .*/\(x\|y\)\.[cho]
-regex .*/x.[ch]+
-regex ./deep/a/?b?/.*
-iregex .*/README\.txt
-regextype posix-extended -regex .*/(x|y)\.[cho]
-regextype posix-extended -regex .*/[0-9]{4}
-regextype posix-basic -regex .*/[0-9]\{4\}
-regextype egrep -regex .*/dir[[:digit:]]+
-regex ./names/new.line
-regextype findutils-default -regex ./names/new.line
-regextype posix-extended -regex ./names/new.line
-regextype posix-basic -regex ./names/new.line
-regextype egrep -regex ./names/new.line
-regextype awk -regex ./names/new.line
-regextype gnu-awk -regex ./names/new.line
-regextype posix-awk -regex ./names/new.line
-regextype sed -regex ./names/new.line
-regextype grep -regex ./names/new.line
-regextype posix-egrep -regex ./names/new.line
-regextype ed -regex ./names/new.line
-regex */x.c
-type f
-type d
-type l
-type c,b,p
-type s
-type f,d -name *a*
-type f -size 0
-type f -size 1
-type f -size -1
-type f -size +1
-type f -size 2c
-type f -size 1w
-type f -size -2k
-type f -size 2k
-type f -size +1k
-type f -size 1M
-type f -size -1M
-type f -size +1M
-type f -size 1G
-type f -size +40M
-type f -size +4096c
-type f -size 1b
-type l -size 4c
-newer times/epoch
-newer times/day -type f
! -newer times/epoch
-newermt 2024-01-31
-newermt @1706724000
-newermt @1706724000.0000004
-newermt @1706724000.0000005
-newermt 2024-01-31T18:00:00Z
-newermt 20240131
-newermt yesterday
-newermt -1day
-newermt tomorrow
-newermm times/hour
-mtime 0
-mtime 1
-mtime -1
-mtime +1
-mtime 2
-mtime -2
-mtime +300
-mtime -8 -mtime +1
-mtime 0.5
-mtime +0.5
-mtime 999999999999
-mtime -999999999999999
-daystart -mtime 0
-daystart -mtime 1
-daystart -mtime -1
-daystart -mtime +1
-daystart -mmin -60
-daystart -mmin +60
-mmin 1
-mmin 2
-mmin 60
-mmin 61
-mmin -60
-mmin +60
-mmin -1
-mmin 0
-perm 644
-perm 0644
-perm -644
-perm /222
-perm /000
-perm -000
-perm /7000
-perm -4000
-perm -u+w
-perm -u+rw,g+w
-perm /u+x,g+x
-perm u=rw,go=r
-perm a=rwx
-perm -a+x -type f
-perm -g=u
-perm /+x
-perm -u=rwxs,g=rx
-perm +x
-perm -t
-perm -1000
-perm u=rwx,g=u-w,o=g
-perm /a+X
-perm -ug+s
-user root -maxdepth 1
-user 1
-user daemon
-group mail
-group 7654321
-uid 1
-uid +1
-uid -1
-uid 0 -maxdepth 1
-gid +65533
-links 3
-links +1 -type f
-links -2 -type f
-samefile kinds/plain
-samefile kinds/to-file
-lname d*
-lname *
-ilname PLAIN
-lname no*where
-empty
-empty -type d
-empty -type f
-executable
-executable -type f
-maxdepth 0
-maxdepth 1
-mindepth 2 -maxdepth 2
-mindepth 4
-mindepth 1 -maxdepth 0
-depth
-depth -maxdepth 1
-d -name a
-name .git -prune -o -print
-name .git -prune -o -type f -print
-depth -name .git -prune -o -print
-path ./deep -prune -o -path ./names -prune -o -print0
-type d ! -name deep -prune -o -name x.c -print
-quit
-true
-false
-false -o -true
-true -a -false
! -true
-not -false
-name x.c -o -name x.h
-name x.c -o -name x.h -print
( -name x.c -o -name x.h ) -print
( -name x.c -or -name x.h ) -and -path *b*
! ( -name x.c -o -type d )
! ! -name x.c
-name x.c , -name x.h
-name x.c -print , -name x.h -print0
-name x.c -print -print
-type f -a -name x.c -a -print
-xdev -noleaf -name x.c
-mount -warn -name x.c
-print0
-name x.c -printf %p\n
-printf %f\n
-printf %h\n
-printf %P\n
-printf %H|%p\n
-type f -printf %s\t%p\n
-printf %m|%M|%p\n
-printf %#m|%5m|%-5m|%05m|%p\n
-printf %U:%G|%p\n
-printf %d|%05d|%+d|%-3d|\n
-printf %y|%l|%p\n
-type f -printf %n|%p\n
-printf %t|%p\n
-printf %T@|%p\n
-printf %TY-%Tm-%Td|%TH:%TM:%TS|%p\n
-printf %T+|%TT|%TX|%Tr|%TD|%TF|%TR|%p\n
-printf %Tc|%Tx|%Ta|%TA|%Tb|%TB|%Th|%Te|%Tj|%Tk|%Tl|%TI|%Tp|%TZ|%Tz|%Ts|%Tu|%Tw|%Ty|%TG|%TV|%Tg|%TU|%TW|%TC\n
-printf %10p|%-20p|%.3p|%20.5f|%5d|%010U|\n
-printf 100%%\a\b\f\v\r\t\101\0x\\\n
-printf %p\n\chidden
-printf %p\n%f\n
`), "\n")

// followExpressions are compared where no symlink leads out of the tree.
var followExpressions = strings.Split(strings.TrimSpace(`
-xtype f
-xtype d
-xtype l
-xtype c
-type l -xtype f,d
-printf %y%Y|%p\n
-type l -printf %Y|%l|%p\n
-executable -type l
-L
-L -type d
-L -type l
-L -xtype l
-L -type f -size +1k
-L -samefile kinds/plain
-L -newer times/epoch -name *a*
-L -lname *where
-L -printf %y|%Y|%l|%p\n
-L -maxdepth 1
-L -depth -name hard*
-follow -name *hard*
-L -empty -type d
-H -type l
-P -type l
`), "\n")

// sortedOutput runs a find, and returns the lines or names that it printed in order, and
// whether it failed.
func sortedOutput(t *testing.T, cmd *exec.Cmd, env ...string) string {
	t.Helper()
	cmd.Env = append(append(cmd.Env, "LC_ALL=C.UTF-8"), env...)
	out, err := cmd.Output()
	list := strings.SplitAfter(strings.ReplaceAll(string(out), "\x00", "\x00\n"), "\n")
	slices.Sort(list)
	return fmt.Sprintf("%sand it failed: %t\n", strings.Join(list, ""), err != nil)
}

// TestFindIsFind compares imgfs find with find(1) in what umoci unpacks of the same image.
func TestFindIsFind(t *testing.T) {
	testenv.Slow(t)
	needRoot(t) // to unpack with owners and devices
	need(t, "find", "umoci")
	s := newSandbox(t)
	made, zoo := filepath.Join(s.dir, "made"), filepath.Join(s.dir, "zoo")
	if _, err := labimage.Write(made, findLayer); err != nil {
		t.Fatal(err)
	}
	if err := labimage.Zoo(zoo); err != nil {
		t.Fatal(err)
	}
	roots := map[string]string{made: unpacked(t, made), zoo: unpacked(t, zoo)}
	for layout, rootfs := range roots {
		s.ok("index", "oci:"+layout)
		for _, expression := range slices.Concat([]string{""}, findExpressions, followExpressions) {
			words := strings.Fields(expression)
			refers := slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "times/") || strings.HasPrefix(w, "kinds/") })
			if layout == zoo && (refers || slices.Contains(followExpressions, expression) || slices.Contains(words, "-user") || slices.Contains(words, "-group")) {
				continue
			}
			for _, zone := range []string{"UTC", "Asia/Kolkata"} {
				if zone != "UTC" && !strings.Contains(expression, "-newermt") && !strings.Contains(expression, "%T") && !strings.Contains(expression, "%t") && !strings.Contains(expression, "-daystart") {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %s", filepath.Base(layout), expression, zone), func(t *testing.T) {
					var options []string
					rest := words
					for len(rest) > 0 && slices.Contains([]string{"-H", "-L", "-P"}, rest[0]) {
						options, rest = append(options, rest[0]), rest[1:]
					}
					find := s.program("find", slices.Concat(options, []string{"."}, rest)...)
					find.Dir = rootfs
					want := sortedOutput(t, find, "TZ="+zone)
					got := sortedOutput(t, s.command(slices.Concat([]string{"find", "-q"}, options, []string{"oci:" + layout, "."}, rest)...), "TZ="+zone)
					if got != want {
						t.Errorf("imgfs find and find differ:\n%s", differing(got, want))
					}
				})
			}
		}
	}
}

// TestFindIsFindOfMount compares what depends on inodes, blocks and the image's own users
// with find(1) in a mount, where users have the names of this machine.
func TestFindIsFindOfMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "find")
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
	owners := func(a *labimage.Archive) error {
		return errors.Join(a.File("etc/passwd", string(passwd)), a.File("etc/group", string(group)))
	}
	if _, err := labimage.Write(layout, findLayer, owners); err != nil {
		t.Fatal(err)
	}
	dir := s.mount("oci:" + layout)
	for _, expression := range []string{
		// A user who is only a number makes the column of find 4.9 wider than it is.
		"-path ./owners -prune -o -ls", "names kinds -ls", "-L kinds -maxdepth 0 -ls", "-printf %i|%n|%b|%k|%s|%p\\n", "-size +1 -type d", "-links +2 -type d", "-inum +20", "-inum 1", "-samefile etc", "-atime +10000000", "-cmin -100", "-anewer times/hour", "-cnewer times/hour", "-newerac times/hour", "-newerct yesterday", "-printf %a|%c|%A@|%C+|%p\\n", "-printf %u:%g|%-10u|%p\\n",
		"-user root", "-nouser", "-nogroup", "-nouser -o -nogroup -ls", "etc deep -name x*", "etc/ -name etc", "./etc deep/ -printf %f|%h|%p|%P|%H\\n", "deep/a/../a -printf %f|%h|%p|%P\\n", "etc etc/passwd nowhere -print", "kinds/to-dir", "-H kinds/to-dir", "kinds/to-dir/", "-H kinds/dangling kinds/loop", "nowhere etc",
	} {
		t.Run(expression, func(t *testing.T) {
			words := strings.Fields(expression)
			i := slices.IndexFunc(words, func(w string) bool { return w[0] == '-' && w != "-H" && w != "-L" })
			if i == 0 {
				words = append([]string{"."}, words...)
			}
			var options []string
			if words[0] == "-H" || words[0] == "-L" {
				options, words = words[:1], words[1:]
			}
			find := s.program("find", append(options, words...)...)
			find.Dir = dir
			want := sortedOutput(t, find, "TZ=UTC")
			got := sortedOutput(t, s.command(slices.Concat([]string{"find", "-q"}, options, []string{"oci:" + layout}, words)...), "TZ=UTC")
			if got != want {
				t.Errorf("imgfs find and find differ:\n%s", differing(got, want))
			}
		})
	}
}

// output runs a program, and returns what it printed.
func (s *sandbox) output(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	out, err := cmd.Output()
	return string(out), err
}
