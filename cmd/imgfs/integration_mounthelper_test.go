//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A machine is a mount namespace in which mount(8) has helpers for imgfs, and in which
// /etc/fstab is a file of the test.
type machine struct {
	*sandbox
	shell *exec.Cmd // keeps the namespace
	table string    // the file that is /etc/fstab there
}

// newMachine makes a machine, on which a user works.
func newMachine(t *testing.T, who account) *machine {
	t.Helper()
	needRoot(t)
	need(t, "unshare", "nsenter", "mount", "findmnt", "setpriv")
	m := &machine{sandbox: sandboxOf(t, who)}
	m.table = filepath.Join(m.dir, "fstab")
	writeFile(t, m.table, "")
	// mount(8) looks for helpers in /sbin alone.
	script := fmt.Sprintf(`set -e
umount -a -l -t fuse.imgfs || : # what others have mounted
cd %[1]s && mkdir over && mount -t tmpfs over over && mkdir over/up over/work
mount -t overlay over -o lowerdir=/usr/sbin,upperdir=$PWD/over/up,workdir=$PWD/over/work /usr/sbin
for name in mount.fuse.imgfs mount.imgfs; do ln -s %[2]s /usr/sbin/$name; done
test -e /etc/fstab || : >/etc/fstab
mount --bind %[3]s /etc/fstab
echo ready
exec cat`, m.dir, imgfsBinary(t), m.table)
	m.shell = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	in, err := m.shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.shell.Stderr = os.Stderr
	if err := m.shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range m.mounts() {
			m.does("umount", "-l", dir)
		}
		in.Close()
		if err := m.shell.Wait(); err != nil {
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		missing(t, "no mount namespace with a /usr/sbin of its own: %v", err)
	}
	return m
}

// does runs a program there as the user, with nothing in its environment, as at boot.
func (m *machine) does(args ...string) result {
	m.t.Helper()
	words := []string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", m.shell.Process.Pid), "--wd=/"}
	if m.uid != 0 {
		words = append(words, "setpriv", fmt.Sprintf("--reuid=%d", m.uid), fmt.Sprintf("--regid=%d", m.gid), "--clear-groups")
	}
	cmd := exec.Command("nsenter", append(words, args...)...)
	cmd.Env = []string{"IMGFS_CACHE_DIR=" + m.cache}
	cmd.Dir = "/"
	return m.finish(cmd)
}

// well is does for what must succeed, and say nothing.
func (m *machine) well(args ...string) {
	m.t.Helper()
	if r := m.does(args...); r.code != 0 || r.stdout != "" || onlyRoot.ReplaceAllString(r.stderr, "") != "" {
		m.t.Errorf("%q: exit code %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
}

// onlyRoot is what root is told of a directory without allow_other.
var onlyRoot = regexp.MustCompile(`(?m)^imgfs: /.*: only root can read it; --allow-other lets others in\n`)

// mounts are the images that are mounted there.
func (m *machine) mounts() (dirs []string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", m.shell.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); slices.Contains(f, "fuse.imgfs") && strings.HasPrefix(f[4], m.dir+"/") {
			dirs = append(dirs, strings.ReplaceAll(f[4], `\040`, " "))
		}
	}
	return dirs
}

// TestMountHelper: mount(8) mounts images by command line and by fstab, with nothing in
// the environment, and umount and mount -a do what they do with others.
func TestMountHelper(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, small)
	m := newMachine(t, thisUser())
	dir, other := m.mountpoint(), filepath.Join(m.dir, "a b,c")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	spaced := filepath.Join(m.dir, "lay out")
	if err := os.CopyFS(spaced, os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	m.ok("index", image) // which is not silent
	m.ok("index", "oci:"+spaced)
	has := func(want ...string) {
		t.Helper()
		if got := m.mounts(); !slices.Equal(got, want) {
			t.Errorf("mounted is %q, want %q", got, want)
		}
	}
	for _, kind := range []string{"fuse.imgfs", "imgfs"} {
		m.well("mount", "-t", kind, image, dir, "-o", "ro,allow_other,platform=linux/amd64")
		if out := m.does("findmnt", "-n", "-o", "SOURCE,FSTYPE", dir).stdout; strings.Join(strings.Fields(out), " ") != image+" fuse.imgfs" {
			t.Errorf("findmnt: %s", out)
		}
		if out := m.does("cat", dir+"/etc/os-release").stdout; out != "NAME=small\n" {
			t.Errorf("cat: %q", out)
		}
		if out := m.does("df", dir); out.code != 0 {
			t.Errorf("df: %s", out.stderr)
		}
		m.well("umount", dir)
		m.gone(dir)
	}
	if r := m.does("mount", "-v", "-t", "imgfs", "-o", "rw", image, dir); r.code != 0 || !strings.Contains(r.stderr, "read-only") || !strings.Contains(r.stdout, "mounted "+image) {
		t.Errorf("mount -v -o rw: %d: %s%s", r.code, r.stdout, r.stderr)
	}
	m.well("umount", dir)
	m.well("mount", "-s", "-t", "imgfs", "-o", "nonsense=1,suidx", image, dir)
	m.well("umount", dir)
	for options, want := range map[string]bool{"ro": true, "ro,allow_suid,allow_dev,layers=1": os.Geteuid() != 0, "ro,suid": true} {
		if r := m.does("mount", "-t", "imgfs", "-o", options, image, dir); r.code != 0 {
			t.Errorf("mount -o %s: %d: %s", options, r.code, r.stderr)
		} else if kept := strings.Contains(r.stderr, "mount(8) keeps the option suid to itself"); kept != (options == "ro,suid") && os.Geteuid() == 0 {
			t.Errorf("mount -o %s: %s", options, r.stderr)
		}
		if out := m.does("findmnt", "-n", "-o", "VFS-OPTIONS", dir).stdout; strings.Contains(out, "nosuid") != want || strings.Contains(out, "nodev") != want {
			t.Errorf("mount -o %s: mounted %s", options, out)
		}
		m.well("umount", dir)
		m.gone(dir)
	}

	writeFile(t, m.table, strings.Join([]string{
		"# images",
		image + " " + dir + " fuse.imgfs defaults,_netdev,nofail,x-systemd.automount,x-foo=bar,comment=mine,no_wait 0 0",
		"oci:" + strings.ReplaceAll(spaced, " ", `\040`) + " " + strings.ReplaceAll(other, " ", `\040`) + " fuse.imgfs noauto,rw,nodev,nosuid 0 0",
	}, "\n")+"\n")
	m.well("mount", "-a")
	m.well("mount", "-a") // adds nothing
	has(dir)
	m.well("mount", other)
	has(dir, other)
	m.well("umount", "-a", "-t", "fuse.imgfs")
	has()
	m.well("mount", "-a", "-f") // only looks
	has()

	m.well("mount", dir) // and its processes are killed
	kill9(dir)
	m.waitGone(dir)
	m.well("mount", "-a")
	has(dir)
	m.well("umount", dir)
	m.gone(dir)
}

// TestMountHelperErrors: what is wrong is said in a line or two, with mount(8)'s exit codes,
// and nothing is left.
func TestMountHelperErrors(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	m := newMachine(t, thisUser())
	dir, busy := m.mountpoint(), m.mountpoint()
	m.well("mount", "--bind", dir, busy)
	helper := "/usr/sbin/mount.fuse.imgfs"
	for _, test := range []struct {
		name  string
		code  int
		words string // of stderr
		args  []string
	}{
		{"typo", 1, "imgfs: " + dir + ": mount: there is no option platfrom\nimgfs: hint: -o platform", []string{"mount", "-t", "imgfs", "-o", "platfrom=linux/arm64", image, dir}},
		{"hyphen", 1, "there is no option allowother\nimgfs: hint: -o allow_other", []string{"mount", "-t", "imgfs", "-o", "allowother", image, dir}},
		{"value", 1, "the option grace: ", []string{"mount", "-t", "imgfs", "-o", "grace=soon", image, dir}},
		{"uid", 1, "the option uid is not possible", []string{"mount", "-t", "imgfs", "-o", "uid=1000", image, dir}},
		{"setuid", 1, "there is no user imgfs-no-such", []string{"mount", "-t", "imgfs", "-o", "setuid=imgfs-no-such", image, dir}},
		{"no directory", 32, "mountpoint does not exist", []string{helper, image, dir + "/missing"}},
		{"in use", 32, "already a mount point", []string{"mount", "-t", "imgfs", image, busy}},
		{"no image", 32, "app:nothing", []string{"mount", "-t", "imgfs", reg.Host() + "/app:nothing", dir}},
		{"no name", 32, "invalid reference", []string{"mount", "-t", "imgfs", "app:bad:tag", dir}},
		{"no file", 32, "no such file", []string{"mount", "-t", "imgfs", "docker-archive:/missing.tar", dir}},
		{"platform", 32, "linux/s390x", []string{"mount", "-t", "imgfs", "-o", "platform=linux/s390x", image, dir}},
		{"none", 1, "none is no directory\nimgfs: hint: imgfs mount", []string{helper, image, "none"}},
		{"one word", 1, "an image and a directory are needed", []string{helper, image}},
		{"flag", 1, "unknown shorthand flag: 'z' in -z\nimgfs: hint: mount.fuse.imgfs IMAGE DIR", []string{helper, "-z", image, dir}},
		{"namespace", 1, "nsenter", []string{helper, "-N", "/proc/1/ns/mnt", image, dir}},
		{"fake", 32, "mountpoint does not exist", []string{helper, "-f", image, dir + "/missing"}},
	} {
		r := m.does(test.args...)
		if r.code != test.code || !strings.Contains(r.stderr, test.words) || strings.Count(r.stderr, "\n") > 2 || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", test.name, r.code, test.code, test.words, r.stdout, r.stderr)
		}
	}
	if r := m.does(helper, "-h"); r.code != 0 || !strings.HasPrefix(r.stdout, "usage: mount.fuse.imgfs IMAGE DIR") || r.stderr != "" {
		t.Errorf("-h: got %+v", r)
	}
	// Lines of fstab. mount -a goes on after one that is wrong.
	other := m.mountpoint()
	m.ok("index", image)
	writeFile(t, m.table, image+" "+dir+" fuse.imgfs ro,alow_other,_netdev 0 0\n"+image+" "+other+" fuse.imgfs defaults 0 0\n")
	for _, test := range []struct {
		args []string
		code int
	}{{[]string{"mount", dir}, 1}, {[]string{"mount", "-a"}, 64}} {
		r := m.does(test.args...)
		said := onlyRoot.ReplaceAllString(r.stderr, "")
		if r.code != test.code || strings.Count(said, "\n") != 2 || !strings.Contains(r.stderr, "there is no option alow_other\nimgfs: hint: -o allow_other") {
			t.Errorf("%q: exit code %d, want %d\n%s%s", test.args, r.code, test.code, r.stdout, r.stderr)
		}
	}
	if left := m.mounts(); !slices.Equal(left, []string{other}) {
		t.Errorf("mounted is %q, want %s", left, other)
	}
	m.well("umount", other)
	m.gone(other)
	m.well("umount", busy)
}

// TestMountHelperUser: a line of fstab with "user" lets an ordinary user mount, by the
// rights of that user; and with setuid root mounts for one.
func TestMountHelperUser(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	needRoot(t)
	need(t, "fusermount3")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	m := newMachine(t, otherUser(t))
	dir := m.mountpoint()
	writeFile(t, m.table, image+" "+dir+" fuse.imgfs user,noauto,exec 0 0\n")
	if err := os.Chmod(m.table, 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(how string) {
		t.Helper()
		if r := m.does("cat", dir+"/etc/os-release"); r.stdout != "NAME=small\n" {
			t.Errorf("%s: cat: %s%s", how, r.stdout, r.stderr)
		}
		if out := m.does("findmnt", "-n", "-o", "FS-OPTIONS", dir).stdout; !strings.Contains(out, fmt.Sprintf("user_id=%d,", m.uid)) {
			t.Errorf("%s: %s", how, out)
		}
		m.well("umount", dir)
		m.gone(dir)
	}
	m.ok("index", image)
	m.well("mount", dir)
	check("user")
	writeFile(t, m.table, image+" "+dir+" fuse.imgfs user,noauto,exec,suid 0 0\n")
	if r := m.does("mount", dir); r.code != 0 || !strings.Contains(r.stderr, "the option suid does nothing: the mount is not root's") {
		t.Errorf("suid: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	check("suid")
	root := *m
	rooted := *m.sandbox
	rooted.account, root.sandbox = thisUser(), &rooted
	if err := os.WriteFile(m.table, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root.well("mount", "-t", "imgfs", "-o", "setuid="+fmt.Sprint(m.uid), image, dir)
	check("setuid")
}

// TestNoHome: without HOME, PATH and a working directory the cache of root is where it is
// otherwise, or where the unit of systemd has it.
func TestNoHome(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, env, want string }{
		{"XDG_CACHE_HOME", "XDG_CACHE_HOME=/x/cache", "/x/cache/imgfs"},
		{"CACHE_DIRECTORY", "CACHE_DIRECTORY=/var/cache/unit:/var/cache/other", "/var/cache/unit"},
		{"relative", "XDG_CACHE_HOME=x", homeOf(t) + "/.cache/imgfs"},
		{"HOME", "HOME=/somewhere", "/somewhere/.cache/imgfs"},
		{"passwd", "HOME=", homeOf(t) + "/.cache/imgfs"},
		{"init", "HOME=/", homeOf(t) + "/.cache/imgfs"},
	} {
		cmd := exec.Command(imgfsBinary(t), "config", "--json")
		cmd.Env, cmd.Dir = []string{test.env}, "/"
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"`+test.want+`"`) {
			t.Errorf("%s: %v, want %s in\n%s", test.name, err, test.want, out)
		}
	}
}

// homeOf is the home directory that the machine knows of the user who runs the tests.
func homeOf(t *testing.T) string {
	t.Helper()
	u, err := user.LookupId(fmt.Sprint(os.Geteuid()))
	if err != nil {
		missing(t, "%v", err)
	}
	return u.HomeDir
}
