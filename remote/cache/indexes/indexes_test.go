package indexes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote/beneath"
)

// testLayer returns a layer of a few files, gzipped, and what a manifest and a
// config say of it.
func testLayer(t *testing.T) ([]byte, layerindex.Layer) {
	t.Helper()
	var blob bytes.Buffer
	uncompressed := digest.SHA256.Digester()
	z := gzip.NewWriter(&blob)
	w := tar.NewWriter(io.MultiWriter(z, uncompressed.Hash()))
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		content := make([]byte, 1000)
		for j := range content {
			content[j] = "etaoin shrdlu\n"[rng.IntN(14)]
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("file", i), Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return blob.Bytes(), layerindex.Layer{Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len()), DiffID: uncompressed.Digest()}
}

func mustBuild(t *testing.T, blob []byte, l layerindex.Layer) *layerindex.Index {
	t.Helper()
	x, err := build.Index(t.Context(), l, bytes.NewReader(blob), &build.Options{SpanSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func encoded(t *testing.T, x *layerindex.Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	if _, err := x.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// openStore returns a store in a directory of its own.
func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	d, err := beneath.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return New(d)
}

// stored is a store with one index.
func stored(t *testing.T) (s *Store, x *layerindex.Index, l layerindex.Layer, path string) {
	t.Helper()
	blob, l := testLayer(t)
	dir := t.TempDir()
	s, x = openStore(t, dir), mustBuild(t, blob, l)
	if err := s.Save(t.Context(), x); err != nil {
		t.Fatal(err)
	}
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
	if err != nil || len(list) != 1 || list[0].Digest != l.Digest || list[0].Size != x.EncodedSize() {
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
	for name, age := range map[string]time.Duration{left: 2 * time.Hour, writing: time.Hour / 2} {
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
	if _, err := s.Open(other); !errors.Is(err, ErrNone) {
		t.Errorf("Open of what is not there = %v", err)
	}
	if err := os.Link(path, filepath.Join(filepath.Dir(path), other.Encoded())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(other); !errors.Is(err, ErrNone) {
		t.Errorf("Open of an index of another layer = %v", err)
	}
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
			return errors.Join(os.WriteFile(path, encoded(t, x), 0o600), os.Chmod(path, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "sha256", layer.Digest.Encoded())
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), put(path)); err != nil {
				t.Fatal(err)
			}
			// What a link leads to is right, and not to be believed either.
			if err := os.WriteFile(filepath.Join(dir, "sha256", "elsewhere"), encoded(t, x), 0o600); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, dir)
			if _, err := s.Load(t.Context(), layer); !errors.Is(err, ErrNone) {
				t.Errorf("Load() = %v, want %v", err, ErrNone)
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

func TestStore(t *testing.T) {
	blob, l := testLayer(t)
	dir := t.TempDir()
	store := openStore(t, dir)
	if _, err := store.Load(t.Context(), l); !errors.Is(err, ErrNone) {
		t.Errorf("Load from an empty store = %v", err)
	}
	x := mustBuild(t, blob, l)
	if err := store.Save(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	loaded, err := store.Load(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if !bytes.Equal(encoded(t, loaded), encoded(t, x)) {
		t.Error("another index came back")
	}
	other := l
	other.DiffID = digest.FromString("x")
	if _, err := store.Load(t.Context(), other); !errors.Is(err, layerindex.ErrDiffID) {
		t.Errorf("Load with another diff_id = %v", err)
	}
	path := filepath.Join(dir, "sha256", l.Digest.Encoded())
	if err := os.WriteFile(path, encoded(t, x)[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(t.Context(), l); !errors.Is(err, ErrNone) || !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("Load of a damaged file = %v", err)
	}
	if err := store.Remove(l.Digest); err != nil {
		t.Error(err)
	}
	if err := store.Remove(l.Digest); err != nil {
		t.Errorf("Remove of what is not there = %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "sha256")); err != nil || len(left) != 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
	for _, bad := range []digest.Digest{"", "sha256:../../etc/passwd", digest.Digest("sha512:" + strings.Repeat("0", 128))} {
		if _, err := store.Load(t.Context(), layerindex.Layer{Digest: bad}); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("Load(%q) = %v", bad, err)
		}
	}
}

// TestStoreEnds: saving and loading end with their context, and what was there
// stays.
func TestStoreEnds(t *testing.T) {
	s, x, l, _ := stored(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, loadErr := s.Load(ctx, l)
	for what, err := range map[string]error{"Load": loadErr, "Save": s.Save(ctx, x)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	left, err := s.Load(t.Context(), l)
	if err != nil {
		t.Fatalf("after a Save that was ended: %v", err)
	}
	left.Close()
}

// TestStoreKeys keeps indexes of one layer by their keys, beside the one that was made
// by reading it.
func TestStoreKeys(t *testing.T) {
	s, x, l, path := stored(t)
	blob, _ := testLayer(t)
	other, err := build.Index(t.Context(), l, bytes.NewReader(blob), &build.Options{ChunkSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	key := Key(digest.FromString("a TOC"))
	if _, err := s.LoadKey(t.Context(), l, key); !errors.Is(err, ErrNone) {
		t.Errorf("LoadKey before there is one: %v", err)
	}
	if err := s.SaveKey(t.Context(), other, key); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(path+"-"+key, old, old); err != nil {
		t.Fatal(err)
	}
	got, err := s.LoadKey(t.Context(), l, key)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path + "-" + key); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("loading was not noted: %v, %v", st, err)
	}
	if !got.Equal(other) || got.Equal(x) {
		t.Error("another index than the one that was saved")
	}
	got.Close()
	list, err := s.List()
	want := []File{{Digest: l.Digest, Size: x.EncodedSize()}, {Digest: l.Digest, Key: key, Size: other.EncodedSize()}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("List = %+v, %v, want %+v", list, err, want)
	}
	for _, bad := range []string{"", "-", "0123456789abcde", "0123456789abcdefg", "0123456789ABCDEF", "../456789abcdef0"} {
		_, loadErr := s.LoadKey(t.Context(), l, bad)
		_, openErr := s.OpenKey(l.Digest, bad)
		for _, err := range []error{loadErr, openErr, s.SaveKey(t.Context(), x, bad), s.RemoveKey(l.Digest, bad)} {
			if err == nil || errors.Is(err, ErrNone) {
				t.Errorf("key %q: %v", bad, err)
			}
		}
	}
	for range 2 {
		if err := s.RemoveKey(l.Digest, key); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.Load(t.Context(), l); err != nil || !got.Equal(x) {
		t.Errorf("the index that was made by reading: %v", err)
	} else {
		got.Close()
	}
}
