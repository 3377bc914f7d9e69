//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// managerScript becomes a system manager in namespaces of its own. It must not touch the
// machine: the units that systemd brings empty /tmp, among other things. So they are
// hidden, all that can be written is in memory, and the rest is read-only, which is checked
// before systemd starts. $1 is the directory of the test.
const managerScript = `set -e
umount -a -l -t fuse.imgfs || :
mount -t tmpfs lab /mnt
mkdir -p /mnt/lab /mnt/etc/up /mnt/etc/work /mnt/sbin/up /mnt/sbin/work /mnt/unit /mnt/auto
cp "$1"/imgfs "$1"/*imgfs@.service /mnt/lab
cp -a "$1"/layout /mnt/lab/layout
for dir in /tmp /run /var /root /usr/lib/systemd/system; do mount -t tmpfs lab $dir; done
for dir in etc sbin; do
	at=/$dir; [ $dir = etc ] || at=/usr/$dir
	mount -t overlay lab -o lowerdir=$at,upperdir=/mnt/$dir/up,workdir=/mnt/$dir/work $at
done
ln -s /mnt/lab/imgfs /usr/sbin/mount.fuse.imgfs
mkdir -p /run/lock /var/cache /var/lib /etc/imgfs /etc/systemd/system
rm -rf /etc/systemd/system/*
for unit in sysinit basic shutdown umount local-fs local-fs-pre remote-fs remote-fs-pre network-online network network-pre lab; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $unit >/usr/lib/systemd/system/$unit.target
done
sed 's|/usr/bin/imgfs|/mnt/lab/imgfs|; /^Type=/aStandardError=append:/var/lib/imgfs.log' /mnt/lab/imgfs@.service >/etc/systemd/system/imgfs@.service
echo 'IMAGE=oci:/mnt/lab/layout
OPTIONS=--allow-other --grace 20s' >/etc/imgfs/mnt-unit.conf
echo 'oci:/mnt/lab/layout /mnt/auto fuse.imgfs noauto,x-systemd.automount,allow_other 0 0' >/etc/fstab
for dir in /dev /proc/sys; do mount --bind $dir $dir; mount -o remount,bind,ro $dir; done
mount -o remount,bind,ro /sys
mount -t tmpfs none /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -o remount,bind,ro /
for dir in / /usr /home /opt /srv /dev; do
	if touch $dir/.probe-imgfs 2>/dev/null; then
		rm -f $dir/.probe-imgfs
		echo "$dir can be written"
		exit 1
	fi
done
[ -z "$(ls -A /tmp)" ]
echo ready
export container=lab
exec /lib/systemd/systemd --system --unit=lab.target --log-target=null --show-status=0`

// A manager is a system manager of a test.
type manager struct {
	t   *testing.T
	pid int
}

// cgroup2 returns where the machine has the unified hierarchy.
func cgroup2(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	missing(t, "there is no unified hierarchy of cgroups")
	return ""
}

// newManager starts systemd as the first process of namespaces of its own.
func newManager(t *testing.T) *manager {
	t.Helper()
	needRoot(t)
	needFUSE(t)
	need(t, "unshare", "nsenter", "mount", "pgrep", "/lib/systemd/systemd", "systemctl")
	dir := publicDir(t)
	if _, err := labimage.Write(filepath.Join(dir, "layout"), small); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Link(imgfsBinary(t), filepath.Join(dir, "imgfs")), copyInto(dir, "package/imgfs@.service", "imgfs@.service"), copyInto(dir, "package/user/imgfs@.service", "user-imgfs@.service")); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(cgroup2(t), fmt.Sprintf("imgfs-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		missing(t, "no cgroup for systemd: %v", err)
	}
	t.Cleanup(func() { removeGroups(t, group) })
	fd, err := unix.Open(group, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A shell that goes into the group before it unshares that of its namespace.
	cmd := exec.Command("sh", "-c", `echo $$ >"$1"/cgroup.procs && exec unshare --pid --mount --fork --cgroup --mount-proc --propagation private --kill-child sh -c "$2" sh "$3"`,
		"sh", group, managerScript, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and with it goes systemd
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		missing(t, "no system manager: %q %v", line, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t}
	if m.pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool { return strings.TrimSpace(m.does("systemctl", "is-system-running").stdout) == "running" }) {
		missing(t, "systemd does not run in a container here")
	}
	return m
}

// copyInto copies a file of the source into a directory, under a name.
func copyInto(dir, path, name string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}

// removeGroups removes a cgroup and those in it, when all of their processes are gone.
func removeGroups(t *testing.T, top string) {
	t.Helper()
	if !eventually(10*time.Second, func() bool {
		var all []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(all) {
			_ = unix.Rmdir(dir)
		}
		_, err := os.Stat(top)
		return errors.Is(err, os.ErrNotExist)
	}) {
		t.Errorf("the cgroup %s is left", top)
	}
}

// command returns a program that is to run beside the manager, for a minute at most.
func (m *manager) command(args ...string) *exec.Cmd { return m.within(time.Minute, args...) }

// within is command with another limit.
func (m *manager) within(limit time.Duration, args ...string) *exec.Cmd {
	seconds := strconv.Itoa(int(limit.Seconds()))
	return exec.CommandContext(m.t.Context(), "nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--cgroup", "--wd=/", "timeout", seconds}, args...)...)
}

// does runs a program beside the manager.
func (m *manager) does(args ...string) result {
	m.t.Helper()
	return newSandbox(m.t).finish(m.command(args...))
}

// well is does for what must succeed. It returns what is printed.
func (m *manager) well(args ...string) string {
	m.t.Helper()
	r := m.does(args...)
	if r.code != 0 {
		m.t.Fatalf("%q: exit code %d: %s%s", args, r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// about is what is known of a unit, for messages.
func (m *manager) about(unit string) string {
	m.t.Helper()
	return m.does("systemctl", "status", "--no-pager", unit).stdout + m.does("tail", "-n20", "/var/lib/imgfs.log").stdout
}

// reader begins to read a file, and reads it to its end a second later.
func (m *manager) reader(path string) (end func() string) {
	m.t.Helper()
	cmd := m.command("sh", "-c", `exec 3<"$1" && echo open && sleep 1 && cat <&3`, "sh", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "open\n" {
		m.t.Fatalf("the reader: %q %v", line, err)
	}
	return func() string {
		line, _ := lines.ReadString('\n') // what is wrong shows in it
		_ = cmd.Wait()
		return line
	}
}

// writable: a directory with a hyphen, which systemd writes with a backslash, is made where
// others can go, and its writable view gives files away.
func (m *manager) writable() {
	m.t.Helper()
	const dir = "/mnt/new/my-unit"
	unit := "imgfs@" + m.well("systemd-escape", "-p", dir)
	m.well("sh", "-c", "mkdir -p /etc/imgfs/mnt/new && echo 'IMAGE=oci:/mnt/lab/layout\nOPTIONS=--overlay /var/lib/upper' >/etc/imgfs"+dir+".conf")
	m.well("systemctl", "start", unit)
	if mode := m.well("stat", "-c", "%a", "/mnt/new"); mode != "755" {
		m.t.Errorf("the directory above has the mode %s", mode)
	}
	m.well("chown", "1:2", dir+"/etc/os-release")
	m.well("rm", dir+"/etc/os-release")
	m.well("systemctl", "stop", unit)
	if what := m.well("stat", "-c", "%F", "/var/lib/upper/upper/etc/os-release"); what != "character special file" {
		m.t.Errorf("what was removed is noted as a %s", what)
	}
}

const content = "NAME=small\n"

// TestSystemd: imgfs@.service is ready when the image is there, its stop lets readers end,
// and it starts again when it is killed; a line of fstab with x-systemd.automount mounts
// when somebody looks.
func TestSystemd(t *testing.T) {
	m := newManager(t)
	const unit, file = "imgfs@mnt-unit", "/mnt/unit/etc/os-release"
	m.well("systemctl", "start", unit)
	if got := m.well("cat", file); got+"\n" != content {
		t.Errorf("once the unit is ready: %q", got)
	}
	if status := m.well("systemctl", "show", "-p", "StatusText", "--value", unit); !strings.HasPrefix(status, "mounted oci:/mnt/lab/layout") {
		t.Errorf("the status of the unit: %q", status)
	}
	read := m.reader(file)
	m.well("systemctl", "stop", unit)
	if got := read(); got != content {
		t.Errorf("who has a file open when the unit is stopped reads %q", got)
	}
	if r := m.does("findmnt", "/mnt/unit"); r.code == 0 {
		t.Errorf("it is mounted though the unit is stopped: %s", r.stdout)
	}
	if state := m.well("systemctl", "show", "-p", "Result", "--value", unit); state != "success" {
		t.Errorf("the result of the unit: %s", state)
	}

	m.well("sh", "-c", "mkdir -p /etc/systemd/system/imgfs@.service.d && printf '[Service]\nRestartSec=100ms\n' >/etc/systemd/system/imgfs@.service.d/soon.conf && systemctl daemon-reload")
	m.well("systemctl", "start", unit)
	m.well("systemctl", "kill", "--signal=KILL", unit)
	if !eventually(20*time.Second, func() bool { return m.does("cat", file).stdout == content }) {
		t.Errorf("the unit was killed, and does not start again: %s", m.about(unit))
	}
	m.well("systemctl", "stop", unit)
	m.writable()
	if r := m.does("systemctl", "start", "imgfs@mnt-nothing"); r.code == 0 || m.well("systemctl", "show", "-p", "ExecMainStatus", "--value", "imgfs@mnt-nothing") != "2" {
		t.Errorf("a unit without a file: %+v", r)
	}
	m.well("sh", "-c", "echo IMAGE=app:bad:tag >/etc/imgfs/mnt-unit.conf")
	if r := m.does("systemctl", "start", unit); r.code == 0 {
		t.Error("a unit with the name of no image starts")
	}
	m.well("systemctl", "stop", unit)

	const auto = "/mnt/auto/etc/os-release"
	m.well("systemctl", "start", "mnt-auto.automount")
	if got := m.well("cat", auto); got+"\n" != content {
		t.Errorf("automount: %q", got)
	}
	read = m.reader(auto)
	if r := m.does("systemctl", "stop", "mnt-auto.mount"); r.code == 0 {
		t.Error("a mount unit stops while a file is open")
	}
	if got := read(); got != content {
		t.Errorf("who has a file open when the mount unit is to stop reads %q", got)
	}
	m.well("systemctl", "stop", "mnt-auto.mount")
	if got := m.well("cat", auto); got+"\n" != content {
		t.Errorf("automount again: %q", got)
	}
	m.well("systemctl", "stop", "mnt-auto.automount", "mnt-auto.mount")
	if !eventually(5*time.Second, func() bool { return m.does("pgrep", "-f", "[-]-detached").code != 0 }) {
		t.Error("the process of the automount is left")
	}
}
