//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// unpack has umoci unpack an image of the lab.
func (l *lab) unpack(t testing.TB, name string) (rootfs string) {
	t.Helper()
	return unpackLayout(t, l.layouts[name])
}

// unpackLayout has umoci unpack an image: an implementation that shares nothing with
// this one. As root it keeps owners, devices and attributes.
func unpackLayout(t testing.TB, layout string) (rootfs string) {
	t.Helper()
	need(t, "umoci")
	bundle := filepath.Join(publicDir(t), "bundle")
	tool(t, "umoci", "unpack", "--image", layout+":"+labimage.Tag, bundle)
	if err := os.Chmod(bundle, 0o755); err != nil { // ordinary users look, too
		t.Fatal(err)
	}
	return filepath.Join(bundle, "rootfs")
}

// TestMountEqualsUnpack compares mounts from docker-registry with what umoci
// unpacks, path by path; there is nothing in which umoci may differ. The
// user who mounted looks at both trees. Modes keep that user out of the same files
// in both, and the dumps say so: the content of such files is compared as root only.
func TestMountEqualsUnpack(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needRoot(t) // to unpack with owners, devices and attributes
	l := newLab(t)
	for name := range l.layouts {
		t.Run(filepath.Base(name), func(t *testing.T) {
			rootfs := l.unpack(t, name)
			forEachMounter(t, func(t *testing.T, who account) {
				s := sandboxOf(t, who)
				dir := s.mount(l.host + "/" + name)
				got, want := dumpOf(t, who, dir), dumpOf(t, who, rootfs)
				if len(want) < 70 {
					t.Errorf("umoci unpacked %d paths", len(want))
				}
				compare(t, "imgfs", got, "umoci", want)
				s.umount(dir)
			})
		})
	}
}
