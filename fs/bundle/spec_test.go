package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCommand(t *testing.T) {
	for _, test := range []struct {
		name                  string
		entrypoint, cmd       []string // the image's
		ownEntrypoint, ownCmd []string
		want                  string
	}{
		{name: "cmd", cmd: []string{"sh", "-l"}, want: `["sh" "-l"]`},
		{name: "entrypoint", entrypoint: []string{"sh"}, want: `["sh"]`},
		{name: "both", entrypoint: []string{"sh", "-c"}, cmd: []string{"a"}, want: `["sh" "-c" "a"]`},
		{name: "own command", entrypoint: []string{"sh"}, cmd: []string{"a"}, ownCmd: []string{"b"}, want: `["sh" "b"]`},
		{name: "own entrypoint takes the image's command away", entrypoint: []string{"x"}, cmd: []string{"a"}, ownEntrypoint: []string{"sh"}, want: `["sh"]`},
		{name: "own entrypoint and command", entrypoint: []string{"x"}, ownEntrypoint: []string{"sh"}, ownCmd: []string{"b"}, want: `["sh" "b"]`},
		{name: "no entrypoint", entrypoint: []string{"x"}, cmd: []string{"a"}, ownEntrypoint: []string{""}, ownCmd: []string{"sh"}, want: `["sh"]`},
		{name: "no entrypoint and no command", entrypoint: []string{"x"}, cmd: []string{"a"}, ownEntrypoint: []string{""}, want: "no command: the image names none, and none is given"},
		{name: "nothing", want: "no command: the image names none, and none is given"},
		{name: "empty", cmd: []string{""}, ownCmd: []string{"", "x"}, want: "no command: the name of the program is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := shell()
			config.Config.Entrypoint, config.Config.Cmd = test.entrypoint, test.cmd
			spec, err := Spec(t.Context(), config, treeOf(t, smallRoot()...), &Options{Entrypoint: test.ownEntrypoint, Args: test.ownCmd})
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprintf("%q", spec.Process.Args)
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name  string
		image []string
		own   []string
		opts  Options
		want  string
	}{
		{name: "none", want: "PATH=" + defaultPath + " TERM=xterm container=imgfs HOME=/root HOSTNAME=imgfs"},
		{name: "image's", image: []string{"A=1", "PATH=/bin", "A=2", "EMPTY=", "BARE", "HOME=/srv"}, want: "PATH=/bin TERM=xterm container=imgfs A=2 EMPTY= BARE= HOME=/srv HOSTNAME=imgfs"},
		{name: "own", image: []string{"A=1"}, own: []string{"A=2=3", "container=x"}, opts: Options{Hostname: "h"}, want: "PATH=" + defaultPath + " TERM=xterm container=x A=2=3 HOME=/root HOSTNAME=h"},
		{name: "not in passwd", opts: Options{User: "1234", Workdir: "/srv"}, want: "PATH=" + defaultPath + " TERM=xterm container=imgfs HOME=/srv HOSTNAME=imgfs"},
		{name: "without a name", image: []string{"=\x1b[2J"}, want: `variable without a name: $'=\033[2J'`},
		{name: "NUL", image: []string{"A=\x00"}, want: "variable A has a NUL byte"},
		{name: "long", image: []string{"A=" + strings.Repeat("x", 128<<10)}, want: "variable A has 131074 bytes: Linux takes 131071 at most"},
		{name: "much", image: slices.Collect(func(yield func(string) bool) {
			for i := range 100 {
				yield(fmt.Sprintf("A%d=%s", i, strings.Repeat("x", 100_000)))
			}
		}), want: "arguments and variables have more than 6 MiB: Linux takes no more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := shell()
			config.Config.Env = test.image
			test.opts.Env = test.own
			spec, err := Spec(t.Context(), config, treeOf(t, smallRoot()...), &test.opts)
			got := fmt.Sprint(err)
			if err == nil {
				got = strings.Join(spec.Process.Env, " ")
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestUser(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, test := range []struct {
		image, user   string
		passwd, group layertest.Member
		want          string // uid:gid groups home
	}{
		{user: "", want: "0:0 [0 10] /root"},
		{user: "root", want: "0:0 [0 10] /root"},
		{image: "bob", want: "1000:1001 [1001 2000 10] /home/bob"},
		{image: "bob", user: "0", want: "0:0 [0 10] /root"},
		{user: "1000", want: "1000:1001 [1001 2000 10] /home/bob"},
		{user: "bob:wheel", want: "1000:10 [10] /home/bob"},
		{user: "bob:77", want: "1000:77 [77] /home/bob"},
		{user: "1234", want: "1234:0 [0] -"},
		{user: "1234:5678", want: "1234:5678 [5678] -"},
		{user: "homeless", want: "1003:1003 [1003] "},
		{user: "2147483647", want: "2147483647:0 [0] -"},
		{user: "nobody", want: "user nobody: it is not in the image's /etc/passwd"},
		{user: "no body\n", want: `user $'no body\n': it is not in the image's /etc/passwd`},
		{user: "bob:nogroup", want: "group nogroup: it is not in the image's /etc/group"},
		{user: "-1", want: "user -1: ids are numbers from 0 to 2147483647"},
		{user: "4294967296", want: "user 4294967296: ids are numbers from 0 to 2147483647"},
		{user: "bob", passwd: layertest.File("etc/passwd", "bob:x:-5:0::/:\n"), want: "user bob: the image gives it id -5, which Linux does not have"},
		{user: "bob", passwd: layertest.File("etc/passwd", "bob:x:8589934592:0::/:\n"), want: "user bob: the image gives it id 8589934592, which Linux does not have"},
		{user: "bob", passwd: layertest.File("etc/passwd", "bob:x:5:6::/b:/sh"), want: "5:6 [6 2000 10] /b"},
		{user: "bob", passwd: layertest.File("etc/passwd", "\r\nbob:x:5:6::/b:/sh\r\n"), want: "5:6 [6 2000 10] /b"},
		{user: "bob", passwd: layertest.File("etc/passwd", ":::\n\xff\x00\n#\nbob\n"), want: "0:0 [0 2000 10] "},
		{user: "bob", passwd: layertest.File("etc/passwd", long), want: "user bob: the image's /etc/passwd or /etc/group: unable to find user bob: bufio.Scanner: token too long"},
		{user: "bob", passwd: layertest.Dir("etc/passwd"), want: "user bob: it is not in the image's /etc/passwd"},
		{user: "5", passwd: layertest.Fifo("etc/passwd"), want: "5:0 [0] -"},
		{user: "5", passwd: layertest.Symlink("etc/passwd", "../../../../../etc/passwd"), want: "5:0 [0] -"},
		{user: "bob", passwd: layertest.Symlink("etc/passwd", "../../../srv/p"), want: "9:9 [9 2000 10] /"},
		{user: "7", passwd: layertest.Sparse("etc/passwd", 1<<40, "", nil), want: "7:0 [0] -"},
		{user: "bob", group: layertest.Dir("etc/group"), want: "1000:1001 [1001] /home/bob"},
	} {
		t.Run(test.image+" "+test.user, func(t *testing.T) {
			members := smallRoot(layertest.File("srv/p", "bob:x:9:9::/:\n"))
			for _, m := range []layertest.Member{test.passwd, test.group} {
				if m.Name != "" {
					members = append(members, m)
				}
			}
			a, err := lookupUser(t.Context(), treeOf(t, members...), &ocispec.ImageConfig{User: test.image}, &Options{User: test.user})
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprintf("%d:%d %d %s", a.uid, a.gid, a.groups, a.home("-"))
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestCheckCommand(t *testing.T) {
	tree := treeOf(t, smallRoot(
		layertest.File("data", "x"),
		layertest.File("script", "#! /no/such -x\n", layertest.Mode(0o755)),
		layertest.File("usr/bin/data", "x", layertest.Mode(0o755)),
		layertest.Symlink("bin/loop", "loop"),
		layertest.Symlink("bin/link", "../../../../bin/sh"),
		layertest.Dir("bin/dir"),
	)...)
	for _, test := range []struct {
		name, want string
		status     int
	}{
		{name: "sh"},
		{name: "/bin/sh"},
		{name: "./sh"},
		{name: "link"},
		{name: "/proc/self/exe"},
		{name: "nosuch", want: "command nosuch: no directory of PATH has it in the image", status: 127},
		{name: "/nosuch", want: "command /nosuch: it is not in the image", status: 127},
		{name: "loop", want: "command loop: no directory of PATH has it in the image", status: 127},
		{name: "dir", want: "command dir: it is a directory", status: 126},
		{name: "/data", want: "command /data: it is not executable", status: 126},
		{name: "../script", want: "command ../script: its interpreter /no/such is not in the image", status: 127},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Spec(t.Context(), shell(), tree, &Options{Args: []string{test.name}, Workdir: "/bin"})
			var e *Error
			switch {
			case err == nil && test.want == "":
			case !errors.As(err, &e) || e.Error() != test.want || e.Status() != test.status:
				t.Errorf("got %v, want %s (%d)", err, test.want, test.status)
			}
		})
	}
}

// TestNoLinks: what is mounted in every container is mounted on no symlink, wherever it leads.
func TestNoLinks(t *testing.T) {
	for _, name := range []string{"proc", "dev", "sys"} {
		for _, target := range []string{"/tmp", "srv", "../../tmp", name} {
			tree := treeOf(t, smallRoot(layertest.Symlink(name, target))...) // in place of the directory
			_, err := Spec(t.Context(), shell(), tree, &Options{})
			var refused *Error
			if !errors.As(err, &refused) || refused.Reason != NoMountpoint || !strings.Contains(err.Error(), "/"+name) {
				t.Errorf("%s leads to %s: got %v", name, target, err)
			}
		}
	}
}
