package fs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// An attribute that the tree keeps can be set on a disk, is listed there, and read
// again; one that it drops is refused, or not listed, or cannot be read. ACLs and
// capabilities are varied in all their bytes.
func TestXattrsKeptAsByLinux(t *testing.T) {
	tmp := scratch(t)
	if able := abilities(t, tmp); !able.devices || !able.trusted {
		t.Skip("this root or file system cannot have devices and trusted xattrs")
	}
	if unix.Lsetxattr(filepath.Join(tmp, "f"), "system.posix_acl_access", []byte(goodACL), 0) != nil {
		t.Skip("this file system cannot have ACLs")
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	varied := func(value string) string {
		b := []byte(value)
		for range rnd.IntN(3) {
			switch rnd.IntN(6) {
			case 0: // other bits
				if len(b) > 0 {
					b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
				}
			case 1: // cut
				b = b[:rnd.IntN(len(b)+1)]
			case 2: // longer
				b = append(b, make([]byte, rnd.IntN(9))...)
			case 3: // two entries change places, or one goes, or one comes twice
				if n := (len(b) - 4) / 8; n >= 2 {
					i, j := 4+8*rnd.IntN(n), 4+8*rnd.IntN(n)
					x, y := string(b[i:i+8]), string(b[j:j+8])
					copy(b[i:], y)
					copy(b[j:], x)
				}
			case 4:
				if n := (len(b) - 4) / 8; n >= 1 {
					i := 4 + 8*rnd.IntN(n)
					b = append(b[:i:i], b[i+8:]...)
				}
			case 5:
				if n := (len(b) - 4) / 8; n >= 1 {
					i := 4 + 8*rnd.IntN(n)
					b = append(b[:i+8:i+8], b[i:]...)
				}
			}
		}
		return string(b)
	}
	names := map[string]func() string{
		"system.posix_acl_access":  func() string { return varied(goodACL) },
		"system.posix_acl_default": func() string { return varied(goodACL) },
		"security.capability":      func() string { return varied(capability(1 + rnd.Uint32N(3))) },
	}
	for _, name := range []string{"user.a", "user.", "trusted.a", "trusted.", "security.a", "security.", "system.a", "com.apple.a", "user", "a"} {
		names[name] = func() string { return "value" }
	}
	both := map[bool]int{}
	for name, value := range names {
		for i := range 600 {
			if value() == "value" && i > 4 {
				break
			}
			kinds := []struct {
				path string
				mode uint32
				member
			}{
				{"file", unix.S_IFREG | 0o644, file("x", "")}, {"dir", unix.S_IFDIR | 0o755, dir("x/")}, {"symlink", unix.S_IFLNK | 0o777, symlink("x", "t")},
				{"fifo", unix.S_IFIFO | 0o644, fifo("x")}, {"device", unix.S_IFCHR | 0o644, device(layerindex.TypeChar, "x", 1, 3)},
			}
			k := kinds[i%len(kinds)]
			v := value()
			k.member.Xattrs = []layerindex.Xattr{{Name: name, Value: v}}
			tree, err := fs.Merge(t.Context(), layersOf(layer(k.member)))
			if err != nil {
				t.Fatal(err)
			}
			n, err := tree.Lookup("x", false)
			if err != nil {
				t.Fatal(err)
			}
			kept := len(n.Xattrs()) == 1
			real := filepath.Join(tmp, fmt.Sprintf("%s%d", k.path, i))
			err = makeReal(real, k.mode)
			if err == nil {
				err = unix.Lsetxattr(real, name, []byte(v), 0)
			}
			has := err == nil && hasXattr(real, name)
			var st unix.Stat_t
			if err := unix.Lstat(real, &st); err != nil {
				t.Fatal(err)
			}
			if n.Mode() != st.Mode {
				t.Errorf("%s %q on a %s: mode %#o; for Linux %#o", name, v, k.path, n.Mode(), st.Mode)
			}
			os.Remove(real)
			if kept == has {
				both[has]++
				continue
			}
			switch {
			case has && name == "security.capability" && k.path != "file":
				// Linux has them where they mean nothing.
			default:
				t.Errorf("%s %q on a %s: kept %v; Linux has it: %v (%v)", name, v, k.path, kept, has, err)
			}
		}
	}
	if both[true] < 100 || both[false] < 100 {
		t.Errorf("%d were kept and %d were not: too few of one kind", both[true], both[false])
	}
}

// makeReal makes an empty file of a type.
func makeReal(path string, mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.Mkdir(path, os.FileMode(mode&0o777))
	case unix.S_IFLNK:
		return os.Symlink("t", path)
	}
	return unix.Mknod(path, mode, int(unix.Mkdev(1, 3)))
}

// hasXattr tells whether an attribute is listed and can be read.
func hasXattr(path, name string) bool {
	buf := make([]byte, 4096)
	size, err := unix.Llistxattr(path, buf)
	if err != nil || !slices.Contains(strings.Split(string(buf[:size]), "\x00"), name) {
		return false
	}
	_, err = unix.Lgetxattr(path, name, buf)
	return err == nil
}
