package indexes

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestFarDamage: a flipped bit anywhere, of what comes or of what is on disk, is an error
// or does nothing, and never another index.
func TestFarDamage(t *testing.T) {
	testenv.Slow(t)
	l := theFarLayer(t)
	places := map[string]int{"the magic": 3, "the version": 8, "the header": 130, "the header's sum": 700, "pieces": 800,
		"entries": int(l.published.ListingEnd()) / 2, "the last entry": int(l.published.ListingEnd()) - 1,
		"points": int(l.published.ListingEnd()) + 1, "proofs": int(l.published.ReadingEnd()) - 1,
		"windows": int(l.published.ReadingEnd()) + 70_000, "the end": len(l.index) - 1}
	for what, at := range places {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			opts, index, _ := l.options(t)
			index.Data = bytes.Clone(l.index)
			index.Data[at] ^= 0x10
			dir := t.TempDir()
			x, err := openStore(t, dir).Far(t.Context(), l.layer, opts)
			if err == nil {
				err = l.use(t, x)
				x.Close()
			}
			if !errors.Is(err, layerindex.ErrIndex) {
				t.Errorf("got error %v, want %v", err, layerindex.ErrIndex)
			}
			// What is right of it is kept, and the rest is asked for.
			good, _, _ := l.options(t)
			if x, err = openStore(t, dir).Far(t.Context(), l.layer, good); err != nil {
				t.Fatal(err)
			}
			if err := l.use(t, x); err != nil {
				t.Error(err)
			}
			x.Close()
			damage(t, filepath.Join(dir, "sha256", l.layer.Digest.Encoded()+"-"+FarKey(opts.Header)), at)
			if x, err = openStore(t, dir).Far(t.Context(), l.layer, good); err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if err := l.use(t, x); err != nil {
				t.Errorf("damaged on disk: %v", err)
			}
		})
	}
	t.Run("digests", func(t *testing.T) {
		opts, _, digests := l.options(t)
		digests.Data = bytes.Clone(l.digests)
		digests.Data[100_000] ^= 1
		x, err := openStore(t, t.TempDir()).Far(t.Context(), l.layer, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		if err := l.use(t, x); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("got error %v", err)
		}
	})
}

// damage flips a bit of a file.
func damage(t *testing.T, path string, at int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 2
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyKey: pieces that are missing are not wrong, and wrong ones are found.
func TestVerifyKey(t *testing.T) {
	l := theFarLayer(t)
	opts, _, _ := l.options(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	key := FarKey(opts.Header)
	if err := s.VerifyKey(t.Context(), l.layer.Digest, key); !errors.Is(err, ErrNone) {
		t.Errorf("before there is one: %v", err)
	}
	x, err := s.Far(t.Context(), l.layer, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	verify := func(what string, want error) {
		t.Helper()
		if err := s.VerifyKey(t.Context(), l.layer.Digest, key); !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", what, err, want)
		}
	}
	verify("listed", nil)
	if _, err := x.ContentDigest(4600); err != nil {
		t.Fatal(err)
	}
	verify("with a digest", nil)
	if err := l.use(t, x); err != nil {
		t.Fatal(err)
	}
	verify("all of it", nil)
	path := filepath.Join(dir, "sha256", l.layer.Digest.Encoded()+"-"+key)
	whole, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(whole, append(bytes.Clone(l.index), l.digests...)) {
		t.Errorf("the file has %d bytes, want %d; %v", len(whole), len(l.index)+len(l.digests), err)
	}
	for what, at := range map[string]int{"a digest": len(l.index) + 70_000, "a window": len(l.index) - 80_000, "an entry": 5000, "the header": 200} {
		damage(t, path, at)
		verify(what, layerindex.ErrIndex)
		damage(t, path, at)
	}
	verify("mended", nil)
	if err := os.WriteFile(filepath.Join(dir, "sha256", l.layer.Digest.Encoded()+"-0123456789abcdef"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyKey(t.Context(), l.layer.Digest, "0123456789abcdef"); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("under another key: %v", err)
	}
}
