//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestBadMountpoints(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	file := writeFile(t, filepath.Join(s.dir, "file"), "")
	busy := s.mount(image)
	reg.Forget()
	for _, c := range []struct{ name, dir, says, hint string }{
		{"missing", filepath.Join(s.dir, "no such"), "no such: mountpoint does not exist", "mkdir '" + filepath.Join(s.dir, "no such") + "'"},
		{"a file", file, file + ": mountpoint is not a directory", ""},
		{"below a file", file + "/x", "mountpoint is not a directory", ""},
		{"mounted", busy, busy + ": already a mount point: " + image, "imgfs umount " + busy},
		{"holds the cache", s.dir, s.dir + " holds the cache directory " + s.cache, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkRefusal(t, s.run("mount", image, c.dir), cli.ExitFailure, []string{c.says}, c.hint)
		})
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("the registry got %d requests before the mountpoint was looked at", n)
	}
	if got := mountsBelow(s.dir); len(got) != 1 {
		t.Errorf("mounted are %v, want only %s", got, busy)
	}
	s.umount(busy)
	for _, c := range []struct{ dir, says string }{
		{busy, busy + ": not an imgfs mount"},
		{file, file + ": "},
		{s.dir + "/nothing", s.dir + "/nothing: mountpoint does not exist"},
		{"/proc", "/proc: not an imgfs mount"},
	} {
		checkRefusal(t, s.run("umount", c.dir), cli.ExitFailure, []string{"unmount " + c.says}, "")
	}
}

// TestMountNotPermitted has an ordinary user and a directory of root.
func TestMountNotPermitted(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "fusermount3")
	s := newSandbox(t)
	dir := "/usr"
	if os.Geteuid() == 0 {
		s = sandboxOf(t, otherUser(t))
		dir = t.TempDir()
		openUp(t, dir)
	}
	checkRefusal(t, s.run("mount", "127.0.0.1:1/app", dir), cli.ExitFailure, []string{"mount " + dir + ": no permission"}, "choose a directory of your own")
	if mounted(dir) {
		t.Errorf("%s is mounted", dir)
	}
}

// openUp lets others enter the directories of the test.
func openUp(t *testing.T, dir string) {
	t.Helper()
	for ; dir != runDir; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWithoutFUSE hides the device, or the helper of ordinary users, from
// imgfs, in a mount namespace of its own.
func TestWithoutFUSE(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "setpriv", "fusermount3")
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		missing(t, "unshare -m: %v: %s", err, out)
	}
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	user := sandboxOf(t, otherUser(t))
	root := newSandbox(t)
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		t.Fatal(err)
	}
	const hideDevice = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"
	for _, c := range []struct {
		name       string
		s          *sandbox
		prepare    string
		says, hint string
	}{
		{"no device", root, hideDevice, "/dev/fuse is missing", "modprobe fuse"},
		{"no device, user", user, hideDevice, "/dev/fuse is missing", "modprobe fuse"},
		{"no helper, user", user, "for f in fusermount3 fusermount; do for d in /bin /usr/bin " + filepath.Dir(helper) +
			"; do if test -e $d/$f; then mount --bind /dev/null $d/$f; fi; done; done", "fusermount3 is not installed", "install the package fuse3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.s.mountpoint()
			script := c.prepare + ` && exec setpriv --reuid "$1" --regid "$2" --clear-groups "$3" mount "$4" "$5"`
			cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-ec", script, "sh", strconv.Itoa(c.s.uid), strconv.Itoa(c.s.gid), imgfsBinary(t), image, dir)
			cmd.Env, cmd.Dir = c.s.env, c.s.dir
			checkRefusal(t, c.s.finish(cmd), cli.ExitFailure, []string{"mount " + dir + ": " + c.says}, c.hint)
			if mounted(dir) {
				t.Errorf("%s is mounted", dir)
			}
		})
	}
}

// TestGlobalFlagsReachTheMount has flags before the command and paths that
// are relative, which the process in the background must understand too.
func TestGlobalFlagsReachTheMount(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	auth := strings.TrimPrefix(credentials(t, reg.Host(), "u", "p"), "--authfile=")
	text, err := os.ReadFile(auth)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "auth.json"), string(text))
	writeFile(t, filepath.Join(s.dir, "empty"), "")
	for _, c := range []struct {
		name  string
		env   []string
		flags []string
		cache string // where the cache must be afterwards
	}{
		{"flags", nil, []string{"--cache-dir=one", "--authfile", "auth.json", "--quiet", "--tls-verify=false"}, "one"},
		{"environment", []string{"IMGFS_CACHE_DIR=two", "REGISTRY_AUTH_FILE=auth.json", "CONTAINERS_REGISTRIES_CONF=empty", "CONTAINERS_REGISTRIES_CONF_OVERRIDE=empty"},
			[]string{"-q"}, "two"},
		{"XDG", []string{"IMGFS_CACHE_DIR=", "XDG_CACHE_HOME=" + s.dir + "/three", "REGISTRY_AUTH_FILE=auth.json"}, []string{"-q"}, "three/imgfs"},
		{"home", []string{"IMGFS_CACHE_DIR=", "XDG_CACHE_HOME=", "REGISTRY_AUTH_FILE=auth.json"}, []string{"-q"}, ".cache/imgfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := s.mountpoint()
			cmd := s.command(append(c.flags, "mount", image, filepath.Base(dir))...)
			cmd.Env = append(cmd.Env, c.env...)
			r := s.finish(cmd)
			if r.code != 0 || r.stdout+r.stderr != "" {
				t.Fatalf("got exit code %d, want 0, and with --quiet no word:\n%s%s", r.code, r.stdout, r.stderr)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "etc/os-release")); err != nil || string(got) != "NAME=small\n" {
				t.Errorf("got %q and error %v", got, err)
			}
			s.umount(dir)
			if _, err := os.Stat(filepath.Join(s.dir, c.cache, "version")); err != nil {
				t.Errorf("the cache is not in its place: %v", err)
			}
		})
	}
}
