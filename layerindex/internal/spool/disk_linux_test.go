package spool

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestDiskFull: a disk that is full is not the data's fault, and gets back what it gave.
func TestDiskFull(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	testenv.SmallDisk(t, dir, 1<<20)
	data := random(size)
	s := New(inDir(dir), size, pieces(data))
	defer s.Close()
	for range 2 {
		if n, err := s.ReadAt(t.Context(), make([]byte, 1), size-1); n != 0 || !errors.Is(err, ErrFile) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("ReadAt = %d, %v; want ErrFile and ENOSPC", n, err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks-st.Bfree)*st.Bsize > 64<<10 {
		t.Errorf("%d of %d blocks are still taken, %v", st.Blocks-st.Bfree, st.Blocks, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8M"); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if n, err := s.ReadAt(t.Context(), p, 0); n != size || err != nil || !bytes.Equal(p, data) {
		t.Errorf("with room again: ReadAt = %d, %v", n, err)
	}
}
