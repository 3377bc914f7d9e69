package files

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

func TestVerityRoom(t *testing.T) {
	const desc = 2 * blobfile.BlockSize
	for _, tt := range []struct{ size, want int64 }{
		{1, desc},
		{verityBlock, desc},
		{verityBlock + 1, desc + verityBlock},
		{128 * verityBlock, desc + verityBlock},
		{128*verityBlock + 1, desc + 3*verityBlock},
		{128 * 128 * verityBlock, desc + 129*verityBlock},
		{1 << 30, desc + (2048+16+1)*verityBlock},
	} {
		if got := verityRoom(tt.size); got != tt.want {
			t.Errorf("of %d bytes: %d, want %d", tt.size, got, tt.want)
		}
	}
}

// verityDisk returns a directory on a new file system that has fs-verity, and
// the file that the file system lies in.
func verityDisk(t *testing.T) (dir, image string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	image, dir = filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "verity", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no ext4 with fs-verity: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", dir).Run(); err != nil {
			t.Error(err)
		}
	})
	return dir, image
}

// Where the file system has fs-verity, not even the kernel reads bytes of a
// content that have changed on the disk.
func TestContentVerity(t *testing.T) {
	dir, image := verityDisk(t)
	c, err := openTest(filepath.Join(dir, "cache"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := cachetest.RandomBytes(3*pieceSize+100, 460)
	x := storeContent(t, c, data)
	defer x.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(x.File().Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Fatal(err)
	}
	if st.Attributes&unix.STATX_ATTR_VERITY == 0 {
		t.Skip("this kernel has no fs-verity on ext4")
	}
	if st.Mode&0o777 != fileMode || !x.Unchanged() {
		t.Errorf("mode %o, unchanged %v", st.Mode, x.Unchanged())
	}
	if f, err := os.OpenFile(contentPath(c.Path(), data), os.O_RDWR, 0); err == nil {
		f.Close()
		t.Error("it can be written")
	}
	unix.Sync()
	disk, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(disk, data[pieceSize:pieceSize+blobfile.BlockSize])
	if at < 0 {
		t.Fatal("it is not on the disk")
	}
	cachetest.Damage(t, image, cachetest.FlipAt(int64(at)))
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		t.Skip(err)
	}
	p := make([]byte, blobfile.BlockSize)
	if _, err := x.File().ReadAt(p, pieceSize); !errors.Is(err, unix.EIO) {
		t.Errorf("the kernel read bytes that have changed: %v", err)
	}
	if _, err := x.File().ReadAt(p, 0); err != nil || !bytes.Equal(p, data[:blobfile.BlockSize]) {
		t.Errorf("and others: %v", err)
	}
	if _, err := x.ReadAt(p, pieceSize); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("ReadAt() = %v", err)
	}
	if cachetest.Exists(contentPath(c.Path(), data)) {
		t.Error("it was not removed")
	}
}
