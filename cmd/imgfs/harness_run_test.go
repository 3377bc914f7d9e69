//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// runtimes are those that imgfs run knows.
var runtimes = []string{"crun", "runc", "bwrap"}

// needRun is for tests that run containers.
func needRun(t testing.TB) {
	t.Helper()
	needFUSE(t)
	need(t, runtimes...)
	// Plain users of this machine may be kept from having namespaces.
	if os.Geteuid() != 0 {
		if out, err := exec.Command("unshare", "-U", "-r", "true").CombinedOutput(); err != nil {
			missing(t, "this user may not have a user namespace: %s", bytes.TrimSpace(out))
		}
	}
}

// makeRangedUser adds a user to the machine that has ranges of ids in /etc/subuid and
// /etc/subgid, for this run of the tests.
var makeRangedUser = sync.OnceValues(func() (account, error) {
	name := fmt.Sprintf("imgfs-test-r%d", os.Getpid())
	// Ranges that nobody else has: those of useradd lie far below.
	first := 1_000_000_000 + os.Getpid()%10_000*65_536
	ids := fmt.Sprintf("%d-%d", first, first+65_535)
	if out, err := exec.Command("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", name).CombinedOutput(); err != nil {
		return account{}, fmt.Errorf("useradd: %w: %s", err, bytes.TrimSpace(out))
	}
	afterAllTests(func() error {
		if out, err := exec.Command("userdel", "--force", name).CombinedOutput(); err != nil {
			return fmt.Errorf("userdel: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
	if out, err := exec.Command("usermod", "--add-subuids", ids, "--add-subgids", ids, name).CombinedOutput(); err != nil {
		return account{}, fmt.Errorf("usermod: %w: %s", err, bytes.TrimSpace(out))
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, err := strconv.Atoi(u.Gid)
	return account{"ranged", uid, gid}, err
})

// rangedUser returns a user that is not root, can mount and has ranges of ids. Only
// root can ask for one.
func rangedUser(t testing.TB) account {
	t.Helper()
	need(t, "fusermount3", "useradd", "usermod", "userdel", "newuidmap", "setpriv")
	who, err := makeRangedUser()
	if err != nil {
		missing(t, "%v", err)
	}
	openDevice(t)
	return who
}

// whoRun returns those who run containers: root and a plain user with ranges of ids, or
// without root whoever this is.
func whoRun(t testing.TB) []account {
	t.Helper()
	if os.Geteuid() != 0 {
		return []account{thisUser()}
	}
	return []account{thisUser(), rangedUser(t)}
}

// A podman is podman with a store of its own, in namespaces of its own: it leaves neither
// mounts nor processes.
type podman struct {
	sandbox *sandbox
	dir     string // short: podman takes no long path
	run     string // XDG_RUNTIME_DIR

	mu   sync.Mutex // podman's own processes mind each other within one namespace alone
	ids  map[string]string
	kept map[string]result
}

// podmen are the stores by their users, until the end of all tests.
var podmen struct {
	mu sync.Mutex
	m  map[string]*podman
}

// podmanOf returns the podman of a user. Only root can have it.
func podmanOf(t testing.TB, who account) *podman {
	t.Helper()
	need(t, "podman", "crun", "setpriv", "unshare")
	needRoot(t)
	podmen.mu.Lock()
	defer podmen.mu.Unlock()
	if p := podmen.m[who.name]; p != nil {
		return p
	}
	dir, err := os.MkdirTemp("/tmp", "imgfs-test-pm")
	if err != nil {
		t.Fatal(err)
	}
	afterAllTests(func() error { return os.RemoveAll(dir) })
	p := &podman{dir: dir, run: filepath.Join(dir, "x"), ids: map[string]string{}, kept: map[string]result{}}
	p.sandbox = &sandbox{account: who, dir: dir}
	conf := filepath.Join(dir, "conf")
	// Without CAP_SYS_RESOURCE no limit can be raised, and podman tries.
	err = os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nlog_driver = \"none\"\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	p.sandbox.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "XDG_RUNTIME_DIR=" + p.run, "CONTAINERS_CONF=" + conf}
	for _, d := range []string{dir, p.run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, who.uid, who.gid); err != nil {
			t.Fatal(err)
		}
	}
	if podmen.m == nil {
		podmen.m = map[string]*podman{}
	}
	podmen.m[who.name] = p
	return p
}

// command returns a run of podman that has yet to be started: its process is process 1
// of a namespace.
func (p *podman) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	become := ""
	if p.sandbox.uid != 0 {
		become = fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups", p.sandbox.uid, p.sandbox.gid)
	}
	// crun does not take version 2 of cgroups beside version 1. The process that holds a
	// plain user's namespace is gone with the podman before, and what ran then, if that was
	// killed: without the file alive podman looks, as after a boot. Its locks go as well.
	script := `mount --make-rprivate / && mount -t proc proc /proc || exit 120
		mount -t tmpfs -o mode=1777 none /dev/shm || exit 120
		if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
		rm -f "$XDG_RUNTIME_DIR/libpod/tmp/pause.pid" "$XDG_RUNTIME_DIR/libpod/tmp/alive"
		exec ` + become + ` podman "$@"`
	all := append([]string{"-c", script, "sh", "--root", p.dir + "/r", "--runroot", p.run + "/c", "--storage-driver", "overlay",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none", "--log-level", "error", "--runtime", "crun"}, args...)
	cmd := exec.CommandContext(t.Context(), "sh", all...)
	cmd.Env, cmd.Dir = p.sandbox.env, p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	return cmd
}

// id returns the ID of a layout's image, which podman has from then on.
func (p *podman) id(t testing.TB, layout string) string {
	t.Helper()
	if id := p.ids[layout]; id != "" {
		return id
	}
	r := p.sandbox.in(t).finish(p.command(t, "pull", "-q", "oci:"+layout))
	if r.code != 0 {
		t.Fatalf("podman pull: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	p.ids[layout] = strings.TrimSpace(r.stdout)
	return p.ids[layout]
}

// runCommand is command for podman run, without a network. flags are podman's.
func (p *podman) runCommand(t testing.TB, flags []string, layout string, args ...string) *exec.Cmd {
	t.Helper()
	all := append([]string{"run", "--rm", "--network=none", "--cgroups=disabled"}, flags...)
	return p.command(t, append(append(all, p.id(t, layout)), args...)...)
}

// ran returns what becomes of podman run; a second time it is not run.
func (p *podman) ran(t testing.TB, flags []string, layout, stdin string, args ...string) result {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	key := fmt.Sprintf("%q %q %q %q", flags, layout, stdin, args)
	if r, ok := p.kept[key]; ok {
		return r
	}
	var r result
	// Now and then podman has lost the output, of which there always is some.
	for range 3 {
		cmd := p.runCommand(t, flags, layout, args...)
		if stdin != "" {
			cmd.Stdin = strings.NewReader(stdin)
		}
		if r = p.sandbox.in(t).finish(cmd); r.stdout != "" || r.code != 0 && r.stderr != "" {
			break
		}
	}
	p.kept[key] = r
	return r
}

// runSandbox is sandboxOf for imgfs run: images and their layouts can be read by all.
func runSandbox(t testing.TB, who account) *sandbox {
	t.Helper()
	needRun(t)
	if who.uid != os.Geteuid() {
		testenv.OthersCanEnter(t, runDir)
	}
	return sandboxOf(t, who)
}
