package layerindex

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// stored is a store with one index.
func stored(t *testing.T) (s *Store, x *Index, l Layer, path string) {
	t.Helper()
	tarBytes := testTar(t, 20_000)
	blob := gzipped(t, tarBytes)
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	x = mustBuild(t, blob, tarBytes, &BuildOptions{SpanSize: 4096})
	if err := s.Save(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	l = claim(blob, tarBytes)
	return s, x, l, filepath.Join(dir, "sha256", l.Digest.Encoded())
}

// TestStoreUse notes that an index was used, but not each time.
func TestStoreUse(t *testing.T) {
	s, _, l, path := stored(t)
	for _, tt := range []struct {
		age     time.Duration
		touched bool
	}{{2 * time.Hour, true}, {30 * time.Minute, false}} {
		old := time.Now().Add(-tt.age)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		x, err := s.Open(l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		if st, err := os.Stat(path); err != nil || !st.ModTime().Equal(old) {
			t.Errorf("Open has touched the file: %v, %v", st.ModTime(), err)
		}
		if x, err = s.Load(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		x.Close()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := !st.ModTime().Equal(old); got != tt.touched || got && time.Since(st.ModTime()) > time.Minute {
			t.Errorf("loaded at the age of %v: modified %v", tt.age, st.ModTime())
		}
	}
}

func TestStoreList(t *testing.T) {
	s, x, l, path := stored(t)
	dir := filepath.Dir(path)
	for _, other := range []string{".new-123", "abc", "README"} {
		if err := os.WriteFile(filepath.Join(dir, other), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, digest.FromString("dir").Encoded()), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Digest != l.Digest || list[0].Size != x.EncodedSize() || time.Since(list[0].Used) > time.Minute {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("List without a directory = %+v, %v", list, err)
	}
	// Save makes the directory again.
	if err := s.Save(t.Context(), x); err != nil {
		t.Error(err)
	}
}

// TestStoreSweep removes what killed processes left, and not what others are
// writing.
func TestStoreSweep(t *testing.T) {
	s, x, _, path := stored(t)
	left, writing := filepath.Join(filepath.Dir(path), ".new-1"), filepath.Join(filepath.Dir(path), ".new-2")
	for name, age := range map[string]time.Duration{left: 2 * abandoned, writing: abandoned / 2} {
		old := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chtimes(name, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Save(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left: %v", err)
	}
	if _, err := os.Stat(writing); err != nil {
		t.Errorf("what is being written: %v", err)
	}
}

func TestStoreOpen(t *testing.T) {
	s, x, l, path := stored(t)
	y, err := s.Open(l.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if !bytes.Equal(encoded(t, y), encoded(t, x)) {
		t.Error("another index came back")
	}
	other := digest.FromString("other")
	if _, err := s.Open(other); !errors.Is(err, ErrNoIndex) {
		t.Errorf("Open of what is not there = %v", err)
	}
	if err := os.Link(path, filepath.Join(filepath.Dir(path), other.Encoded())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(other); !errors.Is(err, ErrNoIndex) {
		t.Errorf("Open of an index of another layer = %v", err)
	}
}

// TestVerify notices every flipped bit, also of an index that was read from
// before.
func TestVerify(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			tarBytes := testTar(t, 10_000)
			file := encoded(t, mustBuild(t, c.wrap(t, tarBytes), tarBytes, &BuildOptions{SpanSize: 2048}))
			x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(readEverything(file), x.Verify(t.Context())); err != nil {
				t.Fatal(err)
			}
			for i := range file {
				file[i] ^= 1
				if err := x.Verify(t.Context()); !errors.Is(err, ErrIndex) {
					t.Errorf("flipped bit in byte %d: %v", i, err)
				}
				file[i] ^= 1
			}
		})
	}
}

func indexBytes(t *testing.T, x *Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	if _, err := x.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestStoreOddFiles: what lies in the place of an index and is none of ours is
// not waited for, counts as missing, and stays.
func TestStoreOddFiles(t *testing.T) {
	_, x, layer, _ := stored(t)
	for name, put := range map[string]func(path string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("elsewhere", path) },
		"others may write": func(path string) error {
			return errors.Join(os.WriteFile(path, indexBytes(t, x), 0o600), os.Chmod(path, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "sha256", layer.Digest.Encoded())
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), put(path)); err != nil {
				t.Fatal(err)
			}
			// What a link leads to is right, and not to be believed either.
			if err := os.WriteFile(filepath.Join(dir, "sha256", "elsewhere"), indexBytes(t, x), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Load(t.Context(), layer); !errors.Is(err, ErrNoIndex) {
				t.Errorf("Load() = %v, want %v", err, ErrNoIndex)
			}
			saved := s.Save(t.Context(), x)
			got, err := s.Load(t.Context(), layer)
			if regular := name == "others may write"; regular != (saved == nil) || regular != (err == nil) {
				t.Errorf("Save() = %v, and then Load() = %v", saved, err)
			}
			if err == nil {
				got.Close()
			} else if _, err := os.Lstat(path); err != nil {
				t.Errorf("then it is %v", err)
			}
		})
	}
}

// TestStoreOfOthers: a directory that others may write is no store.
func TestStoreOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir); err == nil {
		t.Error("it was opened")
	}
}
