package ls

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestModeString(t *testing.T) {
	for _, c := range []struct {
		mode uint32
		want string
	}{
		{unix.S_IFREG | 0o644, "-rw-r--r--"},
		{unix.S_IFDIR | 0o1777, "drwxrwxrwt"},
		{unix.S_IFDIR | 0o1666, "drw-rw-rwT"},
		{unix.S_IFREG | 0o4755, "-rwsr-xr-x"},
		{unix.S_IFREG | 0o4644, "-rwSr--r--"},
		{unix.S_IFREG | 0o2755, "-rwxr-sr-x"},
		{unix.S_IFREG | 0o2000, "------S---"},
		{unix.S_IFLNK | 0o777, "lrwxrwxrwx"},
		{unix.S_IFCHR | 0o620, "crw--w----"},
		{unix.S_IFBLK, "b---------"},
		{unix.S_IFIFO | 0o1, "p--------x"},
		{unix.S_IFSOCK | 0o700, "srwx------"},
	} {
		if got := ModeString(c.mode); got != c.want {
			t.Errorf("ModeString(%#o): got %s, want %s", c.mode, got, c.want)
		}
	}
}
