package registry_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// A nameServer answers for names with the addresses that they have.
type nameServer struct {
	mu    sync.Mutex
	names map[string][]string
}

// newNameServer serves at 127.0.0.1, port 53.
func newNameServer(t *testing.T, names map[string][]string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &nameServer{names: names}
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return s
}

func (s *nameServer) set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = addrs
}

// answer makes the answer to a query of one question. RFC 1035, 4.1.
func (s *nameServer) answer(query []byte) []byte {
	if len(query) < 12 {
		return nil
	}
	var labels []string
	end := 12
	for end < len(query) && query[end] != 0 {
		n := int(query[end])
		if end+1+n >= len(query) {
			return nil
		}
		labels = append(labels, string(query[end+1:end+1+n]))
		end += 1 + n
	}
	if end += 5; end > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	s.mu.Lock()
	addrs, known := s.names[strings.ToLower(strings.Join(labels, "."))]
	s.mu.Unlock()
	flags, count := uint16(0x8180), uint16(0)
	if !known {
		flags |= 3
	}
	var records []byte
	for _, text := range addrs {
		addr := netip.MustParseAddr(text)
		if addr.Is4() != (kind == 1) || kind != 1 && kind != 28 {
			continue
		}
		count++
		records = append(records, 0xc0, 12)
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0)
		records = binary.BigEndian.AppendUint16(records, uint16(addr.BitLen()/8))
		records = append(records, addr.AsSlice()...)
	}
	out := append([]byte(nil), query[:2]...)
	for _, field := range []uint16{flags, 1, count, 0, 0} {
		out = binary.BigEndian.AppendUint16(out, field)
	}
	return append(append(out, query[12:end]...), records...)
}
