//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// userScript adds a user with a manager of its own to the machine of a test, as logind and
// user@.service do.
const userScript = `set -e
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
mkdir -p /mnt/home/images /run/user/4711 /mnt/home/.config/imgfs/mnt/home
echo 'lab:x:4711:4711::/mnt/home:/bin/sh' >>/etc/passwd
echo 'lab:x:4711:' >>/etc/group
mkdir -p /etc/systemd/user
printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/user/lab.target
sed 's|/usr/bin/imgfs|/mnt/lab/imgfs|' /mnt/lab/user-imgfs@.service >/etc/systemd/user/imgfs@.service
echo 'IMAGE=oci:/mnt/lab/layout' >/mnt/home/.config/imgfs/mnt/home/images.conf
chown -R lab:lab /mnt/home /run/user/4711
chmod 700 /run/user/4711
cat >/etc/systemd/system/user@.service <<END
[Service]
User=%i
Type=notify
ExecStart=/lib/systemd/systemd --user --unit=lab.target --log-target=null
Environment=HOME=/mnt/home XDG_RUNTIME_DIR=/run/user/%i
Delegate=yes
KillMode=mixed
TimeoutStopSec=30
END
systemctl daemon-reload
systemctl start user@4711`

// asUser is the beginning of commands of the user.
var asUser = []string{"setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "env", "HOME=/mnt/home", "XDG_RUNTIME_DIR=/run/user/4711"}

// TestSystemdUser: the manager of a user mounts as that user, by fusermount3, and keeps the
// mount while its server is killed. The end of the manager, as at the last logout of a user
// without linger, unmounts. kill -9 -1 as that user takes the manager too, and what it keeps.
func TestSystemdUser(t *testing.T) {
	testenv.Slow(t)
	if os.Getenv("IMGFS_KILLS") == "" {
		t.Skip("it takes long: make nightly runs it")
	}
	need(t, "setpriv", "fusermount3")
	m := newManager(t)
	m.well("sh", "-c", userScript)
	as := func(args ...string) string { t.Helper(); return m.well(append(asUser, args...)...) }
	const unit, dir, file = "imgfs@mnt-home-images", "/mnt/home/images", "/mnt/home/images/etc/os-release"
	read := func(when string) {
		t.Helper()
		if got := as("dd", "if="+file, "iflag=direct", "status=none"); got+"\n" != content {
			t.Errorf("%s: %q", when, got)
		}
	}
	as("systemctl", "--user", "start", unit)
	read("once the unit is ready")
	mount := m.mountID(dir)
	as("sh", "-c", "kill -9 $(systemctl --user show -p MainPID --value "+unit+")")
	read("its server killed")
	as("systemctl", "--user", "restart", unit)
	read("restarted")
	if got := m.mountID(dir); got != mount {
		t.Errorf("the mount was %s, and is %s", mount, got)
	}
	m.well("systemctl", "stop", "user@4711")
	if got := m.mountID(dir); got != "" {
		t.Error("the manager has ended, and it is mounted")
	}
	m.well("systemctl", "start", "user@4711")
	as("systemctl", "--user", "start", unit)
	m.does(append(asUser, "sh", "-c", "kill -9 -1")...)
	if !eventually(10*time.Second, func() bool { return strings.Contains(m.does(append(asUser, "cat", file)...).stderr, "not connected") }) {
		t.Error("all processes of the user were killed, and something serves")
	}
	as("/mnt/lab/imgfs", "umount", dir)
}
