//go:build linux

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// readScript reads a file from the server, not from what the kernel has kept, until there is
// /run/enough. It prints what was wrong, and at last how often it has read.
const readScript = `n=0
until [ -e /run/enough ]; do
	got=$(dd if="$1" iflag=direct bs=4096 status=none 2>&1) && stat -f "$1" >/dev/null || echo "failed: $got"
	[ "$got" = NAME=small ] || echo "wrong: $got"
	n=$((n + 1))
done
echo "$n times"`

// readers begins to read a file of a mount. end waits for them, and reports what was wrong.
func (m *manager) readers(path string) (end func()) {
	m.t.Helper()
	const count = 3
	m.well("rm", "-f", "/run/enough")
	said := make(chan result, count)
	for range count {
		cmd := m.within(10*time.Minute, "sh", "-c", readScript, "sh", path)
		s := newSandbox(m.t)
		go func() { said <- s.finish(cmd) }()
	}
	return func() {
		m.t.Helper()
		m.well("touch", "/run/enough")
		for range count {
			if r := <-said; r.code != 0 || strings.Count(r.stdout, "\n") != 1 || strings.HasPrefix(r.stdout, "0 ") {
				m.t.Errorf("a reader: exit code %d: %s%s", r.code, r.stdout, r.stderr)
			}
		}
	}
}

// shown returns a property of a unit.
func (m *manager) shown(unit, property string) string {
	m.t.Helper()
	return m.well("systemctl", "show", "-p", property, "--value", unit)
}

// recovery is what stats say of a mount.
func (m *manager) recovery(dir string) serve.RecoveryState {
	m.t.Helper()
	var s serve.Stats
	if err := json.Unmarshal([]byte(m.well("/mnt/lab/imgfs", "stats", "--json", dir)), &s); err != nil {
		m.t.Fatal(err)
	}
	return s.Recovery
}

// mountID returns the number of the mount on a directory, "" if there is none.
func (m *manager) mountID(dir string) string {
	m.t.Helper()
	for line := range strings.Lines(m.well("cat", "/proc/self/mountinfo")) {
		if f := strings.Fields(line); f[4] == dir {
			return f[0]
		}
	}
	return ""
}

// again waits until a unit has another main process than before, which is ready.
func (m *manager) again(unit, before string) {
	m.t.Helper()
	if !eventually(30*time.Second, func() bool {
		now := m.does("systemctl", "show", "-p", "MainPID,ActiveState", unit).stdout
		return strings.Contains(now, "ActiveState=active") && !strings.Contains(now, "MainPID="+before+"\n")
	}) {
		m.t.Fatalf("%s does not come again: %s", unit, m.well("tail", "-n", "20", "/var/lib/imgfs.log"))
	}
}

// settled is how long a server must have served for its death not to count as one of many.
const settled = 1100 * time.Millisecond

// TestSystemdKeeps: systemd keeps the mount of a unit while its server is killed, by whomever,
// or restarted, and readers do not notice. Stopping the unit leaves nothing.
func TestSystemdKeeps(t *testing.T) {
	testenv.Slow(t)
	m := newManager(t)
	const unit, dir = "imgfs@mnt-unit", "/mnt/unit"
	m.well("systemctl", "start", unit)
	mount, end := m.mountID(dir), m.readers(dir+"/etc/os-release")
	kills := 3
	if os.Getenv(killsEnv) != "" {
		kills = killCount(t) / 10
	}
	for range kills {
		pid := m.shown(unit, "MainPID")
		m.well("kill", "-9", pid)
		m.again(unit, pid)
		time.Sleep(settled)
	}
	pid := m.shown(unit, "MainPID")
	m.well("sh", "-c", `echo 1 >/sys/fs/cgroup$(systemctl show -p ControlGroup --value imgfs@mnt-unit)/cgroup.kill`)
	m.again(unit, pid)
	m.well("cp", "/mnt/lab/imgfs", "/mnt/lab/imgfs.new")
	m.well("mv", "/mnt/lab/imgfs.new", "/mnt/lab/imgfs")
	m.well("systemctl", "restart", unit)
	if exe := m.well("readlink", "/proc/"+m.shown(unit, "MainPID")+"/exe"); exe != "/mnt/lab/imgfs" {
		t.Errorf("after a restart %s serves", exe)
	}
	end()
	if got := m.mountID(dir); got != mount {
		t.Errorf("the mount was %s, and is %s", mount, got)
	}
	if r := m.recovery(dir); r.State != "on" || r.Unit != unit+".service" || r.Holder != 0 || r.Restarts != kills+2 {
		t.Errorf("stats have %+v", r)
	}
	m.well("systemctl", "stop", unit)
	if got := m.mountID(dir); got != "" || m.shown(unit, "NFileDescriptorStore") != "0" || m.shown(unit, "Result") != "success" {
		t.Errorf("the unit is stopped; mount %q, result %s", got, m.shown(unit, "Result"))
	}

	t.Run("otherwise", m.otherwise)
	t.Run("unmounted", m.unmounted)
	t.Run("nothing kept", m.nothingKept)
}

// otherwise: a unit whose file says something else is mounted anew when it is restarted.
func (m *manager) otherwise(t *testing.T) {
	const unit, dir = "imgfs@mnt-unit", "/mnt/unit"
	m.well("systemctl", "start", unit)
	m.well("sed", "-i", "s/--grace 20s/--grace 21s/", "/etc/imgfs/mnt-unit.conf")
	m.well("systemctl", "restart", unit)
	if r := m.recovery(dir); r.Restarts != 0 {
		t.Errorf("stats have %+v", r)
	}
	if got := m.well("cat", dir+"/etc/os-release"); got+"\n" != content {
		t.Errorf("mounted anew: %q", got)
	}
}

// unmounted: who unmounts ends the unit; and if nobody serves at that moment the next server
// does not go on with what is gone.
func (m *manager) unmounted(t *testing.T) {
	const unit, dir = "imgfs@mnt-unit", "/mnt/unit"
	m.well("umount", dir)
	if !eventually(10*time.Second, func() bool { return m.shown(unit, "ActiveState") == "inactive" }) {
		t.Errorf("it is unmounted, and the unit is %s", m.shown(unit, "ActiveState"))
	}
	m.well("sh", "-c", "mkdir -p /etc/systemd/system/imgfs@.service.d && printf '[Service]\nRestartSec=3\n' >/etc/systemd/system/imgfs@.service.d/lab.conf && systemctl daemon-reload")
	m.well("systemctl", "start", unit)
	pid := m.shown(unit, "MainPID")
	m.well("sh", "-c", "kill -9 $0 && umount -l /mnt/unit", pid)
	m.again(unit, pid)
	if got := m.well("cat", dir+"/etc/os-release"); got+"\n" != content {
		t.Errorf("after a kill and an unmount: %q", got)
	}
	m.well("systemctl", "stop", unit)
}

// nothingKept: a unit without a store goes without, says so, and is mounted anew.
func (m *manager) nothingKept(t *testing.T) {
	const unit, dir = "imgfs@mnt-unit", "/mnt/unit"
	m.well("sh", "-c", "printf '[Service]\nFileDescriptorStoreMax=0\n' >/etc/systemd/system/imgfs@.service.d/lab.conf && systemctl daemon-reload")
	m.well("systemctl", "start", unit)
	if r := m.recovery(dir); r.State != "off" || !strings.Contains(r.Why, "FileDescriptorStoreMax") {
		t.Errorf("stats have %+v", r)
	}
	pid := m.shown(unit, "MainPID")
	m.well("kill", "-9", pid)
	m.again(unit, pid)
	if got := m.well("cat", dir+"/etc/os-release"); got+"\n" != content {
		t.Errorf("after a kill: %q", got)
	}
	m.well("systemctl", "stop", unit)
}

// TestSystemdLogout: a mount of a login, which systemd has in a scope, is unmounted when the
// scope is stopped, as at a logout with KillUserProcesses=yes. Who kills all of the scope at
// once leaves a dead mount, on which can be mounted again.
func TestSystemdLogout(t *testing.T) {
	testenv.Slow(t)
	if os.Getenv("IMGFS_KILLS") == "" {
		t.Skip("it takes long: make nightly runs it")
	}
	m := newManager(t)
	const dir, group = "/mnt/login", "/sys/fs/cgroup/system.slice/login.scope"
	m.well("mkdir", dir)
	begin := func() {
		t.Helper()
		m.well("systemd-run", "--quiet", "--scope", "--unit=login", "/mnt/lab/imgfs", "mount", "-q", "oci:/mnt/lab/layout", dir)
	}
	begin()
	if r := m.recovery(dir); r.State != "on" || r.Holder == 0 {
		t.Errorf("stats have %+v", r)
	}
	if n := len(strings.Fields(m.well("cat", group+"/cgroup.procs"))); n != 2 {
		t.Errorf("the scope has %d processes", n)
	}
	m.well("systemctl", "stop", "login.scope")
	if got := m.mountID(dir); got != "" {
		t.Error("the scope is stopped, and it is mounted")
	}
	begin()
	m.well("sh", "-c", "echo 1 >"+group+"/cgroup.kill")
	if !eventually(10*time.Second, func() bool { return m.does("systemctl", "is-active", "login.scope").code != 0 }) {
		t.Fatal("the scope is killed, and lives")
	}
	if r := m.does("cat", dir+"/etc/os-release"); !strings.Contains(r.stderr, "not connected") {
		t.Errorf("who reads when server and holder were killed gets %+v", r)
	}
	begin()
	if got := m.well("cat", dir+"/etc/os-release"); got+"\n" != content {
		t.Errorf("mounted again: %q", got)
	}
	m.well("systemctl", "stop", "login.scope")
}
