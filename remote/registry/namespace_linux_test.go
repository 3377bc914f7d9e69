package registry_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs a test again in a process with a network of its own, whose
// only device is lo: it has addresses that stand for others, and no packet to
// them leaves. It tells whether this is that process.
func inNamespace(t *testing.T, addrs ...string) bool {
	t.Helper()
	const mark = "IMGFS_TEST_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		setUpNamespace(t, addrs)
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the program ip is needed for a network namespace")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name(), "GODEBUG=netdns=go", "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=")
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Skipf("no network namespace to be had here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
			return strings.Contains(line, "--- PASS") || strings.HasPrefix(line, "=== ")
		})
		t.Errorf("in the namespace: %v\n%s", err, strings.Join(lines, "\n"))
	}
	return false
}

// setUpNamespace gives lo addresses, and this process a resolver of its own.
func setUpNamespace(t *testing.T, addrs []string) {
	t.Helper()
	run := func(args ...string) {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	run("link", "set", "lo", "up")
	for _, addr := range addrs {
		bits := netip.MustParseAddr(addr).BitLen()
		if bits == 128 {
			run("addr", "add", fmt.Sprintf("%s/%d", addr, bits), "dev", "lo", "nodad")
			continue
		}
		run("addr", "add", fmt.Sprintf("%s/%d", addr, bits), "dev", "lo")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"resolv.conf": "nameserver 127.0.0.1\noptions timeout:5\n", "hosts": "127.0.0.1 localhost\n"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(file, "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount("/etc/"+name, unix.MNT_DETACH) })
	}
}
