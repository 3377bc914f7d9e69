//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// unused is how long nobody must use a mount in the tests below.
const unused = 500 * time.Millisecond

// copyOfMounts runs a program in a mount namespace of its own, which has a copy
// of all mounts that later changes do not reach, and waits for its first line.
func copyOfMounts(t *testing.T, script, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestCopyInAnotherNamespace: what another mount namespace has of a mount does
// not keep the server, and who uses it there does.
func TestCopyInAnotherNamespace(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	for _, c := range []struct {
		name, script string
		used         bool
	}{
		{"unused", `echo; exec sleep 100`, false},
		{"a directory", `cd "$1"; echo; exec sleep 100`, true},
		{"a file", `exec 7<"$1/srv/index"; echo; exec sleep 100`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, dir := serve(t, who{}, task{Tree: "plain", Unused: unused})
			other := copyOfMounts(t, c.script, dir)
			if err := Unmount(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if c.used {
				// Longer than it would take to find it unused.
				select {
				case line := <-d.events:
					t.Fatalf("the server says %q while the tree is in use", line)
				case <-time.After(4 * unused):
				}
				if out, err := exec.Command("nsenter", "-m", "-t", fmt.Sprint(other.Process.Pid), "cat", filepath.Join(dir, "srv/index")).CombinedOutput(); len(out) != 4097 || err != nil {
					t.Errorf("reading the copy: %d bytes, %v", len(out), err)
				}
				_ = other.Process.Kill()
				d.ended() // the kernel tells, as the last copy is gone
				return
			}
			d.orphaned()
			if len(d.logs) != 1 || !strings.Contains(d.logs[0], "nobody uses") {
				t.Errorf("the log is %q, want the reason", d.logs)
			}
		})
	}
}

// orphaned waits for a server that ends though the kernel might ask again.
func (c *child) orphaned() {
	c.t.Helper()
	c.expect("orphaned")
	for c.next() != "" { // the mount goes, which may be told before the process ends
	}
}

// alone starts a server in a mount namespace of its own, after a script that
// starts the process pid.
func alone(t *testing.T, before string) (c *child, pid int, dir string) {
	t.Helper()
	dir = mountDir(t, 0)
	wrap := []string{"unshare", "-m", "--propagation", "private", "sh", "-c", before + ` exec "$@"`, "sh"}
	c = startBy(t, 0, wrap, task{Role: "serve", Tree: "plain", Dir: dir, EndAlone: true})
	t.Cleanup(func() { c.stop(dir) })
	if before != "" {
		if _, err := fmt.Sscan(c.next(), &pid); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	}
	c.expect("ready")
	return c, pid, dir
}

// TestEndAlone: a server ends when nobody else is in its mount namespace.
func TestEndAlone(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	t.Run("from the start", func(t *testing.T) {
		c, _, _ := alone(t, "")
		c.orphaned()
	})
	t.Run("company goes", func(t *testing.T) {
		c, pid, _ := alone(t, `sleep 100 >/dev/null & echo $!;`)
		select {
		case line := <-c.events:
			t.Fatalf("the server says %q, though somebody is there", line)
		case <-time.After(time.Second):
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.orphaned()
	})
	t.Run("unmounted by company", func(t *testing.T) {
		c, pid, dir := alone(t, `sleep 100 >/dev/null & echo $!;`)
		if out, err := exec.Command("nsenter", "-m", "-t", fmt.Sprint(pid), "umount", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c.ended()
	})
}

// TestNotAlone: there is no company to look after in the namespace of the first
// process, nor where others may have got the mount from here.
func TestNotAlone(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	m := table[0]
	m.shared = false
	if c := newCompany(m); c != nil {
		t.Errorf("%+v in the namespace of process 1", c)
	}
	w := who{wrap: []string{"unshare", "-m", "--propagation", "shared"}}
	c := startBy(t, 0, w.wrap, task{Role: "serve", Tree: "plain", Dir: mountDir(t, 0), EndAlone: true})
	t.Cleanup(func() { c.stop("") })
	c.expect("ready")
	select {
	case line := <-c.events:
		t.Errorf("the server says %q, though its mount went to other namespaces", line)
	case <-time.After(time.Second):
	}
	c.send("unmount")
	c.ended()
}

// TestHangingRequest: a request that does not end keeps the server for a moment
// when the mount is gone.
func TestHangingRequest(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	w := mounters(t)[0]
	w.IOUring = Off
	c, dir := serve(t, w, task{Tree: "faulty"})
	c.send("hang") // which does not look at its context
	c.expect("hanging")
	cat := exec.Command("cat", filepath.Join(dir, "slow"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("blocked")
	if err := errors.Join(cat.Process.Kill(), UnmountLazy(t.Context(), dir)); err != nil {
		t.Fatal(err)
	}
	_ = cat.Wait()
	c.orphaned()
}
