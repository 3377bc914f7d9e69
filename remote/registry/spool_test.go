package registry_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// smallDisk returns a directory on a file system of n bytes.
func smallDisk(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	testenv.SmallDisk(t, dir, n)
	return dir
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Error(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// fillDisk leaves nothing of a disk, to which others may be writing.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for free := freeBytes(t, dir); free > 0; free = freeBytes(t, dir) {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			t.Error(err)
			return
		}
		if err := syscall.Fallocate(int(f.Fd()), 0, st.Size, free); err != nil && err != syscall.ENOSPC {
			t.Error(err)
			return
		}
	}
}

// failures notes what is told of a spool directory.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}

// check checks that one failure was told of.
func (f *failures) check(t *testing.T, want error, text string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) != 1 || !errors.Is(f.all[0], want) || !strings.Contains(f.all[0].Error(), text) {
		t.Errorf("told of %q, want once of %q with %s", f.all, want, text)
	}
}

// Where no file can be made for a blob that is sent whole, each read gets it
// from its beginning.
func TestSpoolNoRoom(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		full := smallDisk(t, 1<<20)
		fillDisk(t, full)
		for dir, want := range map[string]error{filepath.Join(t.TempDir(), "absent"): os.ErrNotExist, full: syscall.ENOSPC} {
			var told failures
			opts.SpoolDir, opts.SpoolFailed = dir, told.note
			client := registry.New(opts)
			defer client.Close()
			content := noise(1, blobSize)
			b := blobOf(t, client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
			readers(t, 20, func(int) error { return check(t.Context(), b, content, rand.IntN(blobSize-500), 500) })
			if err := check(t.Context(), b, content, 5, blobSize-5); err != nil {
				t.Error(err)
			}
			told.check(t, want, dir)
			// An answer that breaks off before the range is asked for again.
			s.Inject(registrytest.Blob, registrytest.Once(whole(registrytest.Truncate(blobSize/2))))
			if err := check(t.Context(), b, content, blobSize-10, 10); err != nil {
				t.Error(err)
			}
		}
	})
}

// A disk that gets full while a blob is put there gets its room back, and
// nobody's read fails.
func TestSpoolDiskFills(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		var told failures
		opts.SpoolDir, opts.SpoolFailed = smallDisk(t, 4<<20), told.note
		content := noise(1, 2<<20)
		half := len(content) / 2
		client := registry.New(opts)
		defer client.Close()
		b := blobOf(t, client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		s.Inject(registrytest.Blob, func(n int) registrytest.Fault {
			if n > 1 {
				return registrytest.IgnoreRange()
			}
			return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
				w.Header().Set("Content-Length", strconv.Itoa(len(content)))
				_, _ = w.Write(content[:half]) // the reader tells
				_ = http.NewResponseController(w).Flush()
				for deadline := time.Now().Add(5 * time.Second); freeBytes(t, opts.SpoolDir) > 4<<20-int64(half)+64<<10; {
					if time.Now().After(deadline) {
						t.Error("the blob does not come to the disk")
						return
					}
					time.Sleep(time.Millisecond)
				}
				fillDisk(t, opts.SpoolDir)
				_, _ = w.Write(content[half:])
			}
		})
		readers(t, 10, func(i int) error { return check(t.Context(), b, content, i*200_000, 100_000) })
		told.check(t, syscall.ENOSPC, "no space left")
		if free := freeBytes(t, opts.SpoolDir); free < int64(half)-64<<10 {
			t.Errorf("%d bytes are free, want what was spooled", free)
		}
	})
}
