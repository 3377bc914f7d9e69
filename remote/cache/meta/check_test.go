package meta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A file that somebody replaces while it is looked at stays.
func TestVerifyFileReplaced(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	path := c.at("a")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	ours, bad, err := c.VerifyRecord("a", func(name string, data []byte) bool {
		if err := directory.WriteFile(c.Files(), name, []byte("new")); err != nil {
			t.Error(err)
		}
		return false
	})
	if !ours || bad || err != nil {
		t.Errorf("verifyFile() = %v, %v, %v", ours, bad, err)
	}
	if data, err := os.ReadFile(path); string(data) != "new" {
		t.Errorf("then it is %q, %v", data, err)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	var want []string
	for i := range 10 {
		data := fmt.Sprintf("document %d", i)
		d := digest.FromString(data)
		c.KeepMeta(d, []byte(data))
		c.SetMark(d, "", Mark{Verification: VerifiedByChunk, When: time.Now()}, func(Mark) bool { return true })
		name := fmt.Sprintf("example.com/a:%d", i)
		c.keepRef(name, ocispec.Descriptor{Digest: d, Size: 5})
		img := Image{Name: name, Manifest: d, Platform: "linux/amd64"}
		c.NoteImage(img)
		var path string
		switch i {
		case 1:
			path = filepath.Join(dir, directory.Images, img.fileName())
		case 2:
			path = c.at(c.Name(directory.Meta, d))
		case 4:
			path = c.at(refPath(name))
		case 6:
			path = c.at(c.Name(directory.Verified, d))
		case 8: // a reference under another's name
			path = c.at(refPath(name))
			other, err := os.ReadFile(c.at(refPath("example.com/a:7")))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, other, 0o600); err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		if i != 8 {
			if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rel, _ := filepath.Rel(dir, path)
		want = append(want, rel)
	}
	foreign := filepath.Join(dir, directory.Meta, "sha256", "reserved")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checked, removed, err := c.Verify(t.Context())
	slices.Sort(want)
	slices.Sort(removed)
	if checked != 40 || err != nil || !slices.Equal(removed, want) {
		t.Errorf("Verify() = %d, %q, %v; want 40, %q", checked, removed, err, want)
	}
	for _, rel := range want {
		if _, err := os.Stat(filepath.Join(dir, rel)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", rel, err)
		}
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	if checked, removed, err := c.Verify(t.Context()); checked != 35 || len(removed) > 0 || err != nil {
		t.Errorf("the second time: %d, %q, %v", checked, removed, err)
	}
}
