//go:build linux

package fusefs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnmountTakesLong: umount(2) that does not return, since the kernel has much to
// forget, has unmounted what is not in the mount table any more.
func TestUnmountTakesLong(t *testing.T) {
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	there, gone := attached{entry: table[0]}, attached{entry: table[0]}
	gone.entry.id = "0"
	if err := there.unlessGone(ErrNoAnswer); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("of a mount that is there: %v, want %v", err, ErrNoAnswer)
	}
	if err := gone.unlessGone(ErrNoAnswer); err != nil {
		t.Errorf("of a mount that is gone: %v", err)
	}
}

// TestNumbersOfGone: what has the numbers of a mount that is gone, and the same source, is
// another one, and stays, wherever it is.
func TestNumbersOfGone(t *testing.T) {
	if !HasSysAdmin() {
		t.Skip("needs the right to mount")
	}
	mount := func(dir string) mountEntry {
		t.Helper()
		if err := unix.Mount("same", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		table, err := mountTable()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range table {
			if m.dir == dir {
				return m
			}
		}
		t.Fatalf("%s is not in the mount table", dir)
		return mountEntry{}
	}
	for name, at := range map[string]string{"elsewhere": t.TempDir(), "there": ""} {
		t.Run(name, func(t *testing.T) {
			first, second := t.TempDir(), at
			if second == "" {
				second = first
			}
			for range 100 {
				a := newAttached(t.Context(), mount(first), "")
				if a.unique == 0 {
					t.Skip("this kernel has no numbers of mounts that are not used again")
				}
				if err := a.unmountNow(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				m := mount(second)
				same := m.id == a.entry.id && m.device == a.entry.device
				if err := a.unmount(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				b := newAttached(t.Context(), m, "")
				if _, there := b.find(); !there {
					t.Fatal("another mount was unmounted")
				}
				if err := b.unmount(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				if same {
					return
				}
			}
			t.Skip("no other mount got the same numbers")
		})
	}
}
