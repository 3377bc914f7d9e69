package registry_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
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

// fillDisk leaves nothing of a disk, to which others may be writing.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for free := testenv.Free(t, dir); free > 0; free = testenv.Free(t, dir) {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			t.Error(err)
			return
		}
		if err := testenv.Allocate(f, st.Size, free); err != nil && err != syscall.ENOSPC {
			t.Error(err)
			return
		}
	}
}

// Without a cache each read gets a blob that is sent whole from its beginning,
// or goes on with what another has left.
func TestWholeUncached(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		client := registry.New(opts)
		defer client.Close()
		content := noise(1, blobSize)
		b := blobOf(t, client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		readers(t, 20, func(int) error { return check(t.Context(), b, content, rand.IntN(blobSize-500), 500) })
		if err := check(t.Context(), b, content, 5, blobSize-5); err != nil {
			t.Error(err)
		}
		if n := s.Count(registrytest.Blob); n > 21 {
			t.Errorf("got %d requests for 21 reads", n)
		}
		s.Forget()
		for off := 0; off < blobSize; off += blobSize / 10 {
			if err := check(t.Context(), b, content, off, blobSize/10-1); err != nil {
				t.Error(err)
			}
		}
		if n := s.Count(registrytest.Blob); n != 1 {
			t.Errorf("got %d requests for reads in order, want 1", n)
		}
		// An answer that breaks off before the range is asked for again.
		s.Inject(registrytest.Blob, registrytest.Once(whole(registrytest.Truncate(blobSize/2))))
		if err := check(t.Context(), b, content, blobSize-10, 10); err != nil {
			t.Error(err)
		}
	})
}

// A blob that is sent whole is read from its beginning to its end by one
// request.
func TestWholeStream(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		client := registry.New(opts)
		defer client.Close()
		content := noise(1, 10<<20+1)
		b := blobOf(t, client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		for _, tt := range []struct {
			name  string
			fault func(int) registrytest.Fault
			most  int
		}{
			{"always", registrytest.Always(registrytest.IgnoreRange()), 1},
			{"broken", func(n int) registrytest.Fault { return whole(registrytest.Truncate(n * 3 << 20)) }, 4},
			{"broken, then ranges", registrytest.Once(whole(registrytest.Truncate(3 << 20))), 2},
			{"after some ranges", func(n int) registrytest.Fault {
				if n < 3 {
					return nil
				}
				return registrytest.IgnoreRange()
			}, 12},
		} {
			s.Inject(registrytest.Blob, tt.fault)
			s.Forget()
			r := remote.NewStream(t.Context(), b, nil)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes, right or not, and error %v", tt.name, len(got), err)
			}
			r.Close()
			if n := s.Count(registrytest.Blob); n > tt.most {
				t.Errorf("%s: got %d requests, want at most %d", tt.name, n, tt.most)
			}
		}

		// It can be closed in the middle.
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		r := remote.NewStream(t.Context(), b, nil)
		if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		begun := time.Now()
		r.Close()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("Close took %s", took)
		}
	})
}

// A blob as another place has it is read in ranges alone. If it is sent whole
// each request still serves many of them.
func TestWholeElsewhere(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		client := registry.New(opts)
		defer client.Close()
		content := noise(1, 20<<20+1)
		b := blobOf(t, client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		r := remote.NewStream(t.Context(), elsewhere{b.(remote.ElsewhereBlob)}, nil)
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, right or not, and error %v", len(got), err)
		}
		if n := s.Count(registrytest.Blob); n > 12 {
			t.Errorf("got %d requests for 21 ranges", n)
		}
	})
}

// elsewhere reads a blob as package fs does when it was wrong.
type elsewhere struct{ remote.ElsewhereBlob }

func (b elsewhere) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadElsewhere(ctx, p, off)
}

// A disk that gets full while a blob is stored as it comes fails nobody's read,
// and keeps what came before.
func TestWholeDiskFills(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		dir := smallDisk(t, 4<<20)
		var warned lines
		disk := openCache(t, filepath.Join(dir, "cache"), &cache.Options{Warnf: warned.printf})
		content := noise(1, 2<<20)
		half := len(content) / 2
		client := registry.New(opts)
		defer client.Close()
		desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
		b := cachedOf(t, disk, blobOf(t, client.Repository(reference(s)), desc), content)
		s.Inject(registrytest.Blob, func(n int) registrytest.Fault {
			if n > 1 {
				return registrytest.IgnoreRange()
			}
			return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
				w.Header().Set("Content-Length", strconv.Itoa(len(content)))
				_, _ = w.Write(content[:half]) // the reader tells
				_ = http.NewResponseController(w).Flush()
				for deadline := time.Now().Add(5 * time.Second); testenv.Free(t, dir) > 4<<20-int64(half)+64<<10; {
					if time.Now().After(deadline) {
						t.Error("the blob does not come to the disk")
						return
					}
					time.Sleep(time.Millisecond)
				}
				fillDisk(t, dir)
				_, _ = w.Write(content[half:])
			}
		})
		readers(t, 10, func(i int) error { return check(t.Context(), b, content, i*200_000, 100_000) })
		if all := warned.all(); strings.Count(all, "\n") != 0 || !strings.Contains(all, "no space left") {
			t.Errorf("warned: %q, want one line that no space is left", all)
		}
		verifyCached(t, disk, desc, content)
	})
}

// An answer that is put aside gives its slot to whoever waits for one.
func TestWholeGivesWay(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		opts.MaxRequests = 2
		client := registry.New(opts)
		defer client.Close()
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		repo := client.Repository(reference(s))
		for i := range 6 {
			content := noise(byte(i), blobSize)
			b := blobOf(t, repo, s.PutBlob(ocispec.MediaTypeImageLayer, content))
			begun := time.Now()
			if err := check(t.Context(), b, content, 10, 1000); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > time.Second {
				t.Errorf("the read of blob %d took %s", i, took)
			}
		}
	})
}
