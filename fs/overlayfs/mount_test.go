//go:build linux

package overlayfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

func forEachWay(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// TestOverlay: what is written in an overlay is there, is there again after the next
// mount, and the image is as it was.
func TestOverlay(t *testing.T) {
	forEachWay(t, func(t *testing.T, w way) {
		k := place(t, w)
		c := mounted(t, w, k)
		c.check(`stat -c %a "$T"`, "1755")
		c.check(`cat "$T/dir/a" "$T/link"`, "aaaaaaaaaa")
		c.check(`printf b >>"$T/dir/a" && cat "$T/dir/a"`, "aaaaab")
		c.check(`printf b | dd of="$T/big" bs=1 seek=1048576 conv=notrunc status=none && tr -d a <"$T/big" && stat -c %s "$T/big"`, "b3145728")
		c.check(`chmod 600 "$T/dir/sub/b" && stat -c '%a %Y' "$T/dir/sub/b"`, "600 1700000000")
		c.check(`rm "$T/emptied/x" && ls "$T/emptied" && rmdir "$T/emptied" && mkdir "$T/emptied" && ls "$T/emptied"`, "")
		c.check(`touch "$T/caps" && getfattr --absolute-names --only-values -n user.note "$T/caps"`, "kept")
		c.check(`truncate -s 1G "$T/sparse" && du -k "$T/sparse" | cut -f1`, "0")
		c.check(`cp /bin/true "$T/program" && "$T/program" && echo ran`, "ran")
		c.check(`mv "$T/dir" "$T/moved" && cat "$T/moved/sub/b" && ls "$T"`, "aaaaabig\ncaps\nemptied\nhard\nlink\nmoved\nprogram\nsetuid\nsparse")
		c.check(`umask 022; touch "$T/new"; stat -c %a "$T/new"; rm "$T/new"`, "644")
		c.check(`ln "$T/caps" "$T/same" && echo more >>"$T/same" && tail -n 1 "$T/caps" && stat -c %h "$T/caps" && rm "$T/same"`, "aaaaaaaaaamore\n2")
		c.check(`cat "$L/dir/a"; ls "$L"`, "aaaaabig\ncaps\ndir\nemptied\nhard\nlink\nsetuid")
		c.check(`grep -cF " - overlay " /proc/self/mountinfo >/dev/null; findmnt -no OPTIONS -M "$T" | tr , '\n' | grep -cx -e nosuid -e nodev`, "2")
		c.unmount()
		again := mounted(t, w, k)
		again.check(`cat "$T/moved/a"; ls "$T/emptied"; ls "$T/moved"; stat -c %a "$T/moved/sub/b"`, "aaaaaba\nsub\n600")
		again.unmount()
		if entries, err := os.ReadDir(k.Target); err != nil || len(entries) > 0 {
			t.Errorf("the target has %v, %v", entries, err)
		}
	})
}

// TestCopyUpFails: a line that is cut while a file is copied is an error of that write,
// and leaves nothing of the file in the upper directory.
func TestCopyUpFails(t *testing.T) {
	forEachWay(t, func(t *testing.T, w way) {
		c := mounted(t, w, place(t, w))
		c.send("cut")
		c.expect("done")
		if out, err := c.sh(`printf b >>"$T/big"`); err == nil || !strings.Contains(out, "Input/output error") {
			t.Errorf("appending: %q, %v", out, err)
		}
		c.check(`ls -A "$U"`, "")
		c.send("mend")
		c.expect("done")
		c.check(`printf b >>"$T/big" && tail -c 2 "$T/big"`, "ab")
		c.unmount()
	})
}

// TestUnmountBusy: an overlay in use is not unmounted but lazily, and then serves its user.
func TestUnmountBusy(t *testing.T) {
	forEachWay(t, func(t *testing.T, w way) {
		c := mounted(t, w, place(t, w))
		go func() {
			_, _ = c.sh(`cd "$T"; : >"$U/../held"; while [ -e "$U/../held" ]; do sleep 0.05; done; cat dir/a >"$U/../result"`)
		}()
		held := filepath.Join(c.task.Upper, "held")
		waitFor(t, func() bool { _, err := os.Stat(held); return err == nil })
		c.send("unmount")
		if got := c.next(); !strings.Contains(got, "in use") {
			t.Errorf("unmounting: %q", got)
		}
		c.send("lazy")
		said := map[string]bool{c.next(): true, c.next(): true}
		if !said["done"] || !said["overlay gone"] {
			t.Errorf("unmounting lazily: %v", said)
		}
		if err := os.Remove(held); err != nil {
			t.Fatal(err)
		}
		c.expect("image gone")
		result := filepath.Join(c.task.Upper, "result")
		if text, err := os.ReadFile(result); string(text) != "aaaaa" {
			t.Errorf("the user read %q, %v", text, err)
		}
		_ = os.Remove(result)
	})
}

// TestReopen: another process goes on with an overlay whose process was killed: it is still
// there, the Upper still locked, and all ends when it unmounts.
func TestReopen(t *testing.T) {
	forEachWay(t, func(t *testing.T, w way) {
		k := place(t, w)
		k.Image, k.Manifest = "sample", "sha256:1"
		c := mounted(t, w, k)
		c.check(`printf b >>"$T/dir/a" && cat "$T/dir/a"`, "aaaaab")
		c.send("succeed")
		again := fmt.Sprintf("again %d sample sha256:1", w.kind)
		if said := map[string]bool{c.next(): true, c.next(): true}; !said["done"] || !said[again] {
			t.Fatalf("the child and the next one say %v", said)
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// Until all of its threads are gone one of them may read what is for the next one.
		if err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		c.send("unmount")
		c.expect("all gone")
		if text, err := os.ReadFile(filepath.Join(k.Upper, "upper", "dir", "a")); string(text) != "aaaaab" {
			t.Errorf("what was written is %q, %v", text, err)
		}
	})
}

// TestReopenGone: what was unmounted, and whose fuse-overlayfs has ended, while there was no
// process that knew it is no error.
func TestReopenGone(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	began, err := beganAt(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The number of the process is that of another one by now.
	described := fmt.Sprintf(`{"kind":2,"upper":%q,"at":{"id":"999999","device":"0:1","type":"fuse.fuse-overlayfs","dir":%[1]q},"server":%d,"began":"1%s"}`, dir, os.Getpid(), began)
	u, m, err := Reopen([]byte(described), lock)
	if err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := m.Unmount(t.Context(), false); err != nil {
		t.Error(err)
	}
	m.Abandon() // which must not end this process
	u.Close()
	if _, _, err := Reopen([]byte("{"), nil); err == nil {
		t.Error("half a description is one")
	}
}

// TestFiles: programs can do with files of the image what they do on a disk.
func TestFiles(t *testing.T) {
	if os.Geteuid() != 0 || fusefs.InUserNamespace() {
		t.Skip("the mounts of others are not for this process")
	}
	for _, w := range []way{{name: "root", kind: Kernel}, {name: "root by fuse-overlayfs", kind: Fuse}} {
		t.Run(w.name, func(t *testing.T) {
			c := mounted(t, w, place(t, w))
			dir := c.task.Target
			f, err := os.OpenFile(filepath.Join(dir, "big"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			page, err := unix.Mmap(int(f.Fd()), 4096, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			copy(page, "mapped")
			if err := errors.Join(unix.Msync(page, unix.MS_SYNC), unix.Munmap(page), f.Close()); err != nil {
				t.Error(err)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || string(text[4090:4104]) != "aaaaaamappedaa" {
				t.Errorf("the file has %q, %v", text[4090:4104], err)
			}
			capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
			value := make([]byte, 64)
			name := filepath.Join(dir, "caps")
			if err := unix.Setxattr(name, "security.capability", []byte(capability), 0); err != nil {
				t.Error(err)
			} else if n, err := unix.Getxattr(name, "security.capability", value); err != nil || string(value[:n]) != capability {
				t.Errorf("the capability is %q, %v", value[:max(n, 0)], err)
			}
			if err := os.Lchown(filepath.Join(dir, "dir", "a"), 7, 8); err != nil {
				t.Error(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(c.task.Upper, "upper", "dir", "a"), &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mtim.Sec != 1_700_000_000 {
				t.Errorf("what was copied is %+v, %v", st, err)
			}
			if w.kind == Kernel {
				fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
				if err != nil {
					t.Fatalf("a file without a name: %v", err)
				}
				unix.Close(fd)
			}
			c.unmount()
		})
	}
}
