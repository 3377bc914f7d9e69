package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

func TestContents(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	if all, err := c.List(); err != nil || len(all) != 0 {
		t.Errorf("Contents() = %v, %v of a new cache", all, err)
	}
	var want []Held
	for i := range 5 {
		data := cachetest.RandomBytes(i*5000, uint64(430+i))
		storeContent(t, c, data)
		cachetest.Age(t, contentPath(dir, data), time.Duration(i)*time.Hour)
		want = append(want, Held{Digest: digest.FromBytes(data), Size: int64(len(data)), Disk: directory.Blocks(int64(len(data)))})
	}
	cachetest.AddFile(t, dir, "contents/sha256/noise", 0)
	cachetest.AddFile(t, dir, "contents/"+digest.FromString("x").Encoded(), 0)
	cachetest.AddFile(t, dir, "contents/sha512/"+digest.SHA512.FromString("x").Encoded(), 0)
	slices.SortFunc(want, func(a, b Held) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) })
	got, err := c.List()
	if err != nil || len(got) != len(want) {
		t.Fatalf("Contents() = %+v, %v; want %d", got, err, len(want))
	}
	for i, x := range got {
		ago := time.Duration(x.Size/5000) * time.Hour
		if d := time.Since(x.Used) - ago; d < -time.Second || d > time.Minute {
			t.Errorf("%s was used %v ago, want %v", x.Digest, time.Since(x.Used), ago)
		}
		x.Used = time.Time{}
		if x != want[i] {
			t.Errorf("got %+v, want %+v", x, want[i])
		}
	}
}

func TestVerify(t *testing.T) {
	data, wrong := cachetest.RandomBytes(pieceSize+1, 440), cachetest.RandomBytes(100, 441)
	d := digest.FromBytes(data)
	tests := []struct {
		name   string
		damage func(t *testing.T, path string) error
		want   Check
		ok     bool
	}{
		{"right", nil, Check{Bytes: pieceSize + 1, Got: d}, true},
		{"wrong", func(t *testing.T, path string) error { return cachetest.ReplaceFile(path, wrong) },
			Check{Bytes: 100, Got: digest.FromBytes(wrong), Bad: true}, true},
		{"changed in place", func(t *testing.T, path string) error { return os.Truncate(path, pieceSize) },
			Check{Bytes: pieceSize, Got: digest.FromBytes(data[:pieceSize]), Bad: true}, true},
		{"gone", func(t *testing.T, path string) error { return os.Remove(path) }, Check{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, nil)
			storeContent(t, c, data)
			if tt.damage != nil {
				if err := tt.damage(t, contentPath(dir, data)); err != nil {
					t.Fatal(err)
				}
			}
			got, ok, err := c.filesPart.Verify(t.Context(), d)
			if got != tt.want || ok != tt.ok || err != nil {
				t.Errorf("Verify() = %+v, %v, %v; want %+v, %v", got, ok, err, tt.want, tt.ok)
			}
			bad := int64(0)
			if tt.want.Bad {
				bad = 1
			}
			if there := cachetest.Exists(contentPath(dir, data)); there != (tt.ok && !tt.want.Bad) || c.Stats().BadStored != bad {
				t.Errorf("it is there: %v; %d found wrong", there, c.Stats().BadStored)
			}
		})
	}
	c := openCache(t, t.TempDir(), nil)
	storeContent(t, c, data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.filesPart.Verify(ctx, d); !errors.Is(err, context.Canceled) || !cachetest.Exists(contentPath(c.Path(), data)) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, _, err := c.filesPart.Verify(t.Context(), "sha256:../x"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("of no digest: %v", err)
	}
}

func TestAny(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	if c.Any() {
		t.Error("a new directory has contents")
	}
	data := cachetest.RandomBytes(1000, 313)
	x, err := c.Store(t.Context(), digest.FromBytes(data), 1000, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	if !c.Any() {
		t.Error("it has none with one stored")
	}
}

// useContent opens a content, or stores it if there is room, and reads it.
func useContent(c *testCache, data []byte) error {
	d, n := digest.FromBytes(data), int64(len(data))
	x, err := c.Open(context.Background(), d, n)
	if errors.Is(err, fs.ErrNotExist) {
		x, err = c.Store(context.Background(), d, n, bytes.NewReader(data))
	}
	if errors.Is(err, directory.ErrFull) {
		return nil
	}
	if err != nil {
		return err
	}
	defer x.Close()
	got := make([]byte, n+1)
	if k, _ := x.File().ReadAt(got, 0); int64(k) != n || !bytes.Equal(got[:n], data) {
		return fmt.Errorf("content of %d bytes has %d, or others", n, k)
	}
	return nil
}
