//go:build linux

package main

import (
	"github.com/imgfs/imgfs/testdata/testenv"
	"strings"
	"testing"
)

// TestMountShowsCapabilities: getcap finds a file capability of an image in
// its mount, for root and for a user.
func TestMountShowsCapabilities(t *testing.T) {
	testenv.Slow(t)
	need(t, "getcap")
	l := newLab(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(l.host + "/" + zoo)
		file := dir + "/xattr/capability"
		r := s.finish(s.program("getcap", file, dir+"/xattr/binary"))
		if want := file + " cap_net_bind_service=ep\n"; r.code != 0 || strings.Replace(r.stdout, " = cap", " cap", 1) != want {
			t.Errorf("getcap: got %q and exit code %d, want %q\n%s", r.stdout, r.code, want, r.stderr)
		}
		s.umount(dir)
	})
}
