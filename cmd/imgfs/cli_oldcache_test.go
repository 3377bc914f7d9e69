//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// oldImage is the image whose cache lies in testdata/oldcache; its README says
// where that comes from.
const oldImage = "127.0.0.1:5099/old:v1"

// oldCache returns a copy of the cache directory in testdata/oldcache, in which
// everything was last used two hours ago.
func oldCache(t *testing.T) string {
	t.Helper()
	from, to := filepath.Join("testdata", "oldcache", "cache"), t.TempDir()
	used := time.Now().Add(-2 * time.Hour)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(rel, "contents/") {
			mode = 0o400
		}
		if err := os.WriteFile(filepath.Join(to, rel), data, mode); err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, rel), used, used)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// oldWord returns what an older imgfs said of the directory.
func oldWord(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "oldcache", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// contentsOf returns what the files below some parts of a cache directory hold.
func contentsOf(t *testing.T, dir string, parts ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, part := range parts {
		for _, name := range filesBelow(t, filepath.Join(dir, part)) {
			data, err := os.ReadFile(filepath.Join(dir, part, name))
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Join(part, name)] = string(data)
		}
	}
	return all
}

// TestOldCache uses a cache directory that an older imgfs made: nothing is
// fetched, no index is made again, and what imgfs says of it is what it said.
func TestOldCache(t *testing.T) {
	alone(t)
	dir := oldCache(t)
	flags := []string{"--cache-dir=" + dir, "--cache-size=1G", "--platform=linux/amd64"}
	run := func(args ...string) string { return succeed(t, append(args, flags...)...) }
	stays := []string{"indexes", "meta", "verified", "contents", "refs"}
	before := contentsOf(t, dir, stays...)
	if len(before) != 3+2+3+1+1 {
		t.Fatalf("the copy has %d files", len(before))
	}

	changes := regexp.MustCompile(`("used"|"dir"): "[^"]*"|("usage"): [0-9]+`)
	same := func(s string) string { return changes.ReplaceAllString(s, "$1$2") }
	if got, want := same(run("cache", "ls", "--json")), same(oldWord(t, "ls.json")); got != want {
		t.Errorf("cache ls: got\n%s\nwant\n%s", got, want)
	}
	tree := totals.ReplaceAllString(run("ls", "-lRn", "--time-style=+%F %T", "--offline", oldImage), "")
	if want := oldWord(t, "tree.txt"); tree != want {
		t.Errorf("ls: got\n%s\nwant\n%s", tree, want)
	}
	// Which index a layer has is said since there are others: here each is its own.
	indexSince := regexp.MustCompile(`,\s*"index": \{\s*"origin": "imgfs",\s*"vouched": "local"\s*\}`)
	got, want := indexSince.ReplaceAllString(run("index", "--json", "--offline", oldImage), ""), oldWord(t, "index.json")
	if got != want {
		t.Errorf("index: got\n%s\nwant\n%s", got, want)
	}
	files := sha256.Sum256([]byte(run("cat", "--offline", oldImage, "/etc/gzip", "/etc/zstd", "/etc/plain", "/hard", "/sh")))
	if got, want := hex.EncodeToString(files[:]), strings.TrimSpace(oldWord(t, "files.sha256")); got != want {
		t.Errorf("cat: got bytes with SHA-256 %s, want %s", got, want)
	}
	if got, want := run("cache", "verify", "--json"), oldWord(t, "verify.json"); got != want {
		t.Errorf("cache verify --json: got\n%s\nwant\n%s", got, want)
	}
	if got, want := run("cache", "verify"), oldWord(t, "verify.txt"); got != want {
		t.Errorf("cache verify: got %q, want %q", got, want)
	}

	after := contentsOf(t, dir, stays...)
	for name, data := range before {
		if after[name] != data {
			t.Errorf("%s has changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("there are %d files, and were %d", len(after), len(before))
	}
}

// TestOldIndexes makes the indexes again of the layers that an older imgfs had, in
// version 1 of the format: each part is the same, byte for byte.
func TestOldIndexes(t *testing.T) {
	alone(t)
	old := oldCache(t)
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(layoutFromCache(t, old), "old"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	succeed(t, "index", "-q", "--cache-dir="+dir, "--platform=linux/amd64", reg.Host()+"/old:v1")
	want, got := contentsOf(t, old, "indexes"), contentsOf(t, dir, "indexes")
	if len(got) != len(want) {
		t.Errorf("%d indexes, want %d", len(got), len(want))
	}
	for name, data := range want {
		was, err := layerindex.ReadIndex(strings.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		now, err := layerindex.ReadIndex(strings.NewReader(got[name]), int64(len(got[name])))
		if err != nil {
			t.Fatal(err)
		}
		if !now.Equal(was) || !now.SameEntries(was) || now.Verify(t.Context()) != nil {
			t.Errorf("%s has other parts (%d bytes, before %d)", name, len(got[name]), len(data))
		}
		if data == got[name] {
			t.Errorf("%s is of the same version", name)
		}
	}
	// The files of blobs differ in when they were made and used alone: their data
	// is the same.
	for name, data := range contentsOf(t, old, "blobs") {
		size := bytes.LastIndex([]byte(data), []byte("imgfsblb")) &^ 4095
		if now := contentsOf(t, dir, "blobs")[name]; len(now) != len(data) || now[:size] != data[:size] {
			t.Errorf("%s has other bytes", name)
		}
	}
}

// layoutFromCache makes an OCI layout of the image that a cache directory has.
func layoutFromCache(t *testing.T, cache string) string {
	t.Helper()
	dir := t.TempDir()
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	var m ocispec.Manifest
	for _, data := range contentsOf(t, cache, "meta") {
		d := digest.FromString(data)
		put(filepath.Join(blobs, d.Encoded()), []byte(data))
		var some ocispec.Manifest
		if json.Unmarshal([]byte(data), &some) == nil && len(some.Layers) > 0 {
			m = some
			index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: some.MediaType, Digest: d, Size: int64(len(data)),
				Annotations: map[string]string{ocispec.AnnotationRefName: "v1"}})
		}
	}
	for _, l := range m.Layers {
		data, err := os.ReadFile(cacheFile(cache, "blobs", l.Digest))
		if err != nil || digest.FromBytes(data[:l.Size]) != l.Digest {
			t.Fatalf("blob %s: %v, or it has another digest", l.Digest, err)
		}
		put(filepath.Join(blobs, l.Digest.Encoded()), data[:l.Size])
	}
	text, err := json.Marshal(index)
	if err != nil || !slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Size > 0 }) {
		t.Fatal(err)
	}
	put(filepath.Join(dir, ocispec.ImageIndexFile), text)
	put(filepath.Join(dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}
