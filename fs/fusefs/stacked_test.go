//go:build linux

package fusefs

import (
	"strings"
	"testing"
)

// TestOverlayOf: views are known as the kernels of different ages show them, and others
// than imgfs's own are not taken for one.
func TestOverlayOf(t *testing.T) {
	const image = `50 20 0:40 / /run/imgfs/a\040,:\134b ro - fuse.imgfs reg/app:1 ro,user_id=1000,group_id=1000` + "\n"
	const end = ",upperdir=/u/upper,workdir=/u/work\n"
	for name, c := range map[string]struct {
		line string
		ours bool
	}{
		"lowerdir+":        {`60 20 0:41 / /mnt rw - overlay reg/app:1 rw,lowerdir+=/run/imgfs/a\040\054\072\134b` + end, true},
		"old kernel":       {`60 20 0:41 / /mnt rw - overlay reg/app:1 rw,lowerdir=/run/imgfs/a\040\134\054\134:\134\134b` + end, true},
		"by hand":          {`60 20 0:41 / /mnt rw - overlay overlay rw,lowerdir+=/run/imgfs/a\040\054\072\134b` + end, false},
		"another image":    {`60 20 0:41 / /mnt rw - overlay reg/app:2 rw,lowerdir+=/run/imgfs/a\040\054\072\134b` + end, false},
		"another below":    {`60 20 0:41 / /mnt rw - overlay reg/app:1 rw,lowerdir+=/run/imgfs/b` + end, false},
		"two below":        {`60 20 0:41 / /mnt rw - overlay reg/app:1 rw,lowerdir+=/run/imgfs/a\040\054\072\134b,lowerdir+=/x` + end, false},
		"fuse-overlayfs":   {`60 20 0:41 / /mnt rw - fuse.fuse-overlayfs /run/imgfs/a\040,:\134b rw,user_id=1000,group_id=1000` + "\n", true},
		"by root":          {`60 20 0:41 / /mnt rw - fuse.fuse-overlayfs /run/imgfs/a\040,:\134b rw,user_id=0,group_id=0` + "\n", true},
		"by somebody else": {`60 20 0:41 / /mnt rw - fuse.fuse-overlayfs /run/imgfs/a\040,:\134b rw,user_id=1001,group_id=1001` + "\n", false},
		"another program":  {`60 20 0:41 / /mnt rw - fuse.sshfs /run/imgfs/a\040,:\134b rw,user_id=1000,group_id=1000` + "\n", false},
	} {
		table := parseMountinfo(image + c.line)
		if len(table) != 2 {
			t.Fatalf("%s: %d lines are understood", name, len(table))
		}
		view, ok := overlayOf(table, table[0])
		if ok != c.ours || ok && view.dir != "/mnt" {
			t.Errorf("%s: %+v, %v, want %v", name, view, ok, c.ours)
		}
		below, ok := imageBelow(table, table[1])
		if ok != c.ours || ok && !strings.HasPrefix(below.dir, "/run/imgfs/") {
			t.Errorf("%s: below is %+v, %v, want %v", name, below, ok, c.ours)
		}
	}
}

// Numbers of mounts that are gone are given to others: a mount that has one is a new one.
func TestIsNew(t *testing.T) {
	const root = "30 1 0:20 / / rw - ext4 /dev/vda rw\n"
	before := parseMountinfo(root + "90 30 0:40 / /mnt/a rw - tmpfs none rw\n")
	after := parseMountinfo(root + "90 30 0:40 / /mnt/b rw - overlay none rw\n91 30 0:41 / /mnt/c rw - overlay none rw\n")
	for i, want := range []bool{false, true, true} {
		if got := isNew(before, after[i]); got != want {
			t.Errorf("%s is new: %v, want %v", after[i].dir, got, want)
		}
	}
}
