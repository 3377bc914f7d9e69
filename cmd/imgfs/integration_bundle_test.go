//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// hideUnified runs what follows in a mount namespace of its own, with cgroups of one
// version: crun gives up where there are both.
const hideUnified = `umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"`

// runBundle has a runtime run a bundle of a sandbox.
func (s *sandbox) runBundle(runtime, dir string) result {
	s.t.Helper()
	state := filepath.Join(s.dir, "state")
	args := []string{runtime, "--root", state, "run", "-b", dir, "imgfs-test-" + filepath.Base(s.dir)}
	if runtime == "crun" {
		args = append([]string{"crun", "--cgroup-manager=disabled"}, args[1:]...)
	}
	cmd := s.program(args[0], args[1:]...)
	if os.Geteuid() == 0 {
		as := []string{"setpriv", fmt.Sprintf("--reuid=%d", s.uid), fmt.Sprintf("--regid=%d", s.gid), "--clear-groups"}
		cmd = exec.CommandContext(s.t.Context(), "unshare", append(append([]string{"--mount", "sh", "-c", hideUnified, "sh"}, as...), args...)...)
		cmd.Env, cmd.Dir = s.env, s.dir
	}
	return s.finish(cmd)
}

// needRuntime is for tests that run bundles.
func needRuntime(t testing.TB, runtime string) {
	t.Helper()
	need(t, runtime, "unshare", "setpriv")
	if _, err := os.Stat("/sys/fs/cgroup/unified"); runtime == "crun" && err == nil && os.Geteuid() != 0 {
		missing(t, "crun does not run where there are cgroups of both versions")
	}
}

// TestBundle: runc and crun run what imgfs bundle makes, as root and as an ordinary user,
// and nothing is left.
func TestBundle(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	images := runnables(t)
	sandboxes := map[string]*sandbox{"user": ordinary(t)}
	if os.Geteuid() == 0 {
		openDevice(t)
		sandboxes["root"] = newSandbox(t)
	}
	const script = `id -u; id -G; pwd; echo "$GREETING $A $HOME"; hostname; (echo > /written) 2>/dev/null; echo $?; exit 7`
	for _, test := range []struct {
		name, who string // all of them: ""
		image     string
		flags     []string
		command   []string
		want      string
		code      int
	}{
		{"script", "", "busybox", []string{"--entrypoint=", "-e", "A=b c"}, []string{"sh", "-c", script}, "0\n0 4\n/srv/app\nhello world b c /root\nname\n1\n", 7},
		{"image's own", "", "busybox", []string{"--entrypoint=[\"sh\", \"-c\"]", "-w", "/tmp"}, []string{"pwd"}, "/tmp\n", 0},
		{"network", "", "busybox", []string{"--network=host", "--entrypoint="}, []string{"sh", "-c", "test -d /sys/class/net/lo && echo net"}, "net\n", 0},
		{"user by name", "root", "named", []string{"-w", "/home/worker", "--entrypoint="}, []string{"sh", "-c", "id -u; id -G; pwd; echo $HOME"}, "2000\n2001 2010 2011 2012\n/home/worker\n/home/worker\n", 0},
		{"owners", "", "busybox", []string{"--entrypoint="}, []string{"sh", "-c", "stat -c %u:%g /etc/passwd; cd /root && pwd"}, "0:0\n/root\n", 0},
		{"overlay", "", "busybox", []string{"--entrypoint=", "--overlay=written"}, []string{"sh", "-c", "cd /root && echo a >> /etc/passwd && stat -c %u:%g /etc/passwd"}, "0:0\n", 0},
		{"no mountpoints", "", "static", nil, []string{"say", "it runs"}, "it runs\n", 0},
		{"working directory", "root", "named", nil, []string{"pwd"}, "/does/not/exist yet\n", 0},
		{"user", "root", "busybox", []string{"-u", "nobody", "--entrypoint="}, []string{"sh", "-c", "id; pwd; echo $HOME"}, "uid=65534(nobody) gid=65534(nogroup) groups=4(adm),65534(nogroup)\n/srv/app\n/nonexistent\n", 0},
		{"volumes", "root", "script", nil, []string{"cat", "/data/kept"}, "entry: first, 3 arguments\nkept\n", 0},
	} {
		for who, s := range sandboxes {
			if test.who != "" && who != test.who {
				continue
			}
			for _, runtime := range []string{"runc", "crun"} {
				t.Run(strings.Join([]string{test.name, who, runtime}, " "), func(t *testing.T) {
					needRuntime(t, runtime)
					if test.name == "overlay" && who != "root" {
						need(t, "fuse-overlayfs")
					}
					s := s.in(t)
					want := test.want
					if who != "root" { // it has no other groups
						want = strings.Replace(want, "0\n0 4\n", "0\n0\n", 1)
					}
					dir := filepath.Join(s.dir, "name")
					s.ok(append(append([]string{"bundle"}, test.flags...), append([]string{"oci:" + images[test.image], "name"}, test.command...)...)...)
					r := s.runBundle(runtime, dir)
					if r.stdout != want || r.code != test.code {
						t.Errorf("got exit code %d, stdout\n%sstderr\n%swant %d and\n%s", r.code, r.stdout, r.stderr, test.code, want)
					}
					s.umount(dir)
					s.gone(filepath.Join(dir, "rootfs"))
					if err := errors.Join(os.Remove(filepath.Join(dir, "config.json")), os.Remove(filepath.Join(dir, "rootfs")), os.Remove(dir)); err != nil {
						t.Errorf("what is left of the bundle: %v", err)
					}
				})
			}
		}
	}
}

// TestBundleRefuses: what cannot be run is told before anything is made.
func TestBundleRefuses(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	images := runnables(t)
	s := newSandbox(t)
	busybox, named := "oci:"+images["busybox"], "oci:"+images["named"]
	full, old := filepath.Join(s.dir, "full"), filepath.Join(s.dir, "old")
	writeFile(t, filepath.Join(s.dir, "file"), "")
	for _, name := range []string{filepath.Join(full, "x"), filepath.Join(old, "config.json")} {
		if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, "")
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{busybox, cli.ExitUsage, "bundle: an image is needed, and a directory for the bundle"},
		{"- new", cli.ExitUsage, "imgfs bundle FILE new"},
		{busybox + " full", cli.ExitFailure, "full: it is not empty"},
		{busybox + " old", cli.ExitFailure, "imgfs mount IMAGE old/rootfs mounts the image of a bundle again"},
		{busybox + " file", cli.ExitFailure, "file: not a directory"},
		{busybox + " no/such", cli.ExitFailure, "mkdir no/such: no such file or directory"},
		{"--entrypoint= " + busybox + " new nosuch", cli.ExitFailure, "command nosuch: no directory of PATH has it in the image"},
		{"--entrypoint= " + busybox + " new", cli.ExitFailure, "no command: the image names none, and none is given"},
		{"--entrypoint= " + busybox + " new /etc/passwd", cli.ExitFailure, "command /etc/passwd: it is not executable"},
		{"--rootless=false -u who " + busybox + " new", cli.ExitFailure, "user who: it is not in the image's /etc/passwd"},
		{"--rootless -u nobody " + busybox + " new", cli.ExitFailure, "user nobody has id 65534, which the user namespace does not have"},
		{"-w /no/such " + busybox + " new", cli.ExitFailure, "working directory /no/such: it is not in the image"},
		{"-w srv " + busybox + " new", cli.ExitFailure, "working directory srv: not an absolute path"},
		{"--rootless=false -v " + filepath.Join(s.dir, "file") + ":/srv/new " + named + " new", cli.ExitFailure, "imgfs bundle --overlay UPPER"},
		{"--network bridge " + busybox + " new", cli.ExitUsage, "it is one of none and host: imgfs makes no networks"},
		{"--hostname a_b " + busybox + " new", cli.ExitUsage, "--hostname a_b"},
		{"-v name:/x " + busybox + " new", cli.ExitUsage, "-v ./name:/x"},
		{"--platform windows/amd64 " + busybox + " new", cli.ExitFailure, "windows"},
		{"-p 80:80 " + busybox + " new", cli.ExitUsage, "--network host: imgfs forwards no ports"},
	} {
		s.fails(test.code, []string{test.want}, append([]string{"bundle"}, strings.Fields(test.args)...)...)
		if _, err := os.Lstat(filepath.Join(s.dir, "new")); err == nil {
			t.Fatalf("bundle %s fails and leaves a directory", test.args)
		}
	}
	if on, err := os.ReadFile("/sys/module/fuse/parameters/enable_uring"); err == nil && string(on) != "Y\n" {
		needFUSE(t)
		s.fails(cli.ExitFailure, []string{"io_uring"}, "bundle", "--io-uring=on", busybox, "new")
		if _, err := os.Lstat(filepath.Join(s.dir, "new")); err == nil {
			t.Error("a mount that fails leaves a directory")
		}
	}
	if entries, err := os.ReadDir(old); err != nil || len(entries) != 1 {
		t.Errorf("a directory that was refused has %d entries now: %v", len(entries), err)
	}
}
