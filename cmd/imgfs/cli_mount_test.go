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
	for _, none := range []string{dir + "/none", dir + "/none/two"} { // nor can that be made
		checkRefusal(t, s.run("mount", "127.0.0.1:1/app", none), cli.ExitFailure, []string{"mount " + none + ": mountpoint does not exist"}, "choose a directory of your own")
	}
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

// TestWithoutFUSE takes from imgfs what mounting needs, each thing by itself. Each is
// named with what helps, and nothing is asked of a registry before.
func TestWithoutFUSE(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "setpriv", "fusermount3", "python3")
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
	// In place of fusermount3 there is something else, wherever it is.
	inPlaceOfHelper := func(other string) string {
		return "for f in fusermount3 fusermount; do for d in /bin /usr/bin " + filepath.Dir(helper) +
			"; do if test -e $d/$f; then mount --bind " + other + " $d/$f; fi; done; done"
	}
	copied := filepath.Join(publicDir(t), "helper")
	asUser := "setpriv --reuid " + strconv.Itoa(user.uid) + " --regid " + strconv.Itoa(user.gid) + " --clear-groups "
	filter := "python3 " + writeFile(t, filepath.Join(publicDir(t), "filter.py"), filterMount) + " "
	const (
		hideDevice  = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"
		otherDevice = "mount --bind /dev/null /dev/fuse"
		closeDevice = hideDevice + " && mknod -m 600 /dev/fuse c 10 229"
		container   = "docker run --cap-add SYS_ADMIN --device /dev/fuse"
	)
	for _, c := range []struct {
		name         string
		s            *sandbox
		prepare, run string // before imgfs
		says, hint   string
	}{
		{"no device", root, hideDevice, "", "/dev/fuse is missing", "modprobe fuse"},
		{"no device, user", user, hideDevice, asUser, "/dev/fuse is missing", "docker run --device /dev/fuse"},
		{"another device", root, otherDevice, "", "/dev/fuse cannot be opened: what is there is not the FUSE device", "docker run --device /dev/fuse"},
		{"another device, user", user, otherDevice, asUser, "/dev/fuse cannot be opened", "docker run --device /dev/fuse"},
		{"closed device, user", user, closeDevice, asUser, "/dev/fuse cannot be opened: permission denied", "chmod 0666 /dev/fuse"},
		{"no helper, user", user, inPlaceOfHelper("/dev/null"), asUser, "fusermount3 is not installed", "apt-get install fuse3"},
		{"helper without setuid, user", user, "cp " + helper + " " + copied + " && chmod 755 " + copied + " && " + inPlaceOfHelper(copied), asUser,
			"fusermount3 cannot mount: ", "apt-get install --reinstall fuse3"},
		{"helper on nosuid, user", user, "mount --bind /usr/bin /usr/bin && mount -o remount,bind,nosuid /usr/bin", asUser, "fusermount3 cannot mount: ", "root needs no fusermount3"},
		{"no new privileges, user", user, "true", asUser + "--no-new-privs ", "no_new_privs is set", "no-new-privileges"},
		{"bounding set, user", user, "true", asUser + "--bounding-set -sys_admin ", "nobody here may mount: CAP_SYS_ADMIN is not in the bounding set", container},
		{"no capability", root, "true", "setpriv --bounding-set -sys_admin ", "this root may not mount: it has no CAP_SYS_ADMIN", container},
		{"no capability, no new privileges", root, "true", "setpriv --no-new-privs --bounding-set -sys_admin ", "this root may not mount: it has no CAP_SYS_ADMIN", container},
		{"another's mount namespace", root, "true", "unshare -Ur ", "this user namespace may not mount here", "unshare --user --map-root-user --mount"},
		{"filter", root, "true", filter, "a seccomp filter does not let this process mount", container},
		{"filter, user", user, "true", filter + asUser, "a seccomp filter does not let this process mount", container},
		{"allow_other, user", user, "mount --bind /dev/null /etc/fuse.conf && export ALLOW=--allow-other", asUser, "allow_other is not allowed by /etc/fuse.conf",
			"add the line user_allow_other to /etc/fuse.conf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.s.mountpoint()
			script := c.prepare + ` && exec ` + c.run + `"$1" mount $ALLOW "$2" "$3"`
			cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-ec", script, "sh", imgfsBinary(t), image, dir)
			cmd.Env, cmd.Dir = c.s.env, c.s.dir
			checkRefusal(t, c.s.in(t).finish(cmd), cli.ExitFailure, []string{"mount " + dir + ": " + c.says}, c.hint)
			if mounted(dir) {
				t.Errorf("%s is mounted", dir)
			}
		})
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("the registry got %d requests before it was clear that nothing can be mounted", n)
	}
}

// filterMount runs its arguments with a seccomp filter under which mount(2), number 165
// on amd64, is EPERM. Only root can have such a filter without no_new_privs.
const filterMount = `import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ops = [(0x20, 0, 0, 0), (0x15, 0, 1, 165), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *o) for o in ops))
prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(ops), ctypes.addressof(code)))
if libc.prctl(22, 2, prog) != 0:
    sys.exit("prctl: %d" % ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
`

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
