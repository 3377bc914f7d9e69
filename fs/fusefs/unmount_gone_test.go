//go:build linux

package fusefs

import (
	"errors"
	"testing"
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
