//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// parsed runs imgfs, which must succeed, and returns the JSON that it prints.
func parsed[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(succeed(t, args...)), &v); err != nil {
		t.Fatalf("imgfs %q: %v", args, err)
	}
	return v
}

// diskUsage returns what a directory takes on disk, as du counts.
func diskUsage(t *testing.T, dir string) int64 {
	t.Helper()
	need(t, "du")
	var kib int64
	for _, c := range strings.Fields(tool(t, "du", "-sk", dir))[0] {
		kib = kib*10 + int64(c-'0')
	}
	return kib << 10
}

// TestCacheList has two images that share a layer, and a layer of an image
// that nobody knows any more.
func TestCacheList(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	cache := "--cache-dir=" + t.TempDir()
	list := parsed[cacheList](t, "cache", "ls", "--json", cache)
	if len(list.Images)+len(list.Other) > 0 || list.Images == nil || list.Other == nil {
		t.Errorf("nothing is kept: got %+v", list)
	}
	if out := succeed(t, "cache", "ls", cache); strings.Count(out, "\n") != 2 || !strings.HasPrefix(out, "IMAGE ") {
		t.Errorf("nothing is kept: got %q, want the heading and the total", out)
	}

	reg := registrytest.New(t, nil)
	noise := func(a *labimage.Archive) error { return a.File("noise", noiseText(1<<20)) }
	one, _ := publish(t, reg, small, noise)
	succeed(t, "index", "-q", cache, one)
	layout := filepath.Join(t.TempDir(), "two")
	if _, err := labimage.Write(layout, small, noise, small); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "two"); err != nil {
		t.Fatal(err)
	}
	two := reg.Host() + "/two:" + labimage.Tag
	rows := parsed[[]indexRow](t, "index", "-q", "--json", cache, two)

	list = parsed[cacheList](t, "cache", "ls", "--json", "--cache-size=1G", cache)
	// Both were used within a second, which is what the cache tells apart.
	at := slices.IndexFunc(list.Images, func(i cachedImage) bool { return i.Name == two })
	if len(list.Images) != 2 || at < 0 || list.Images[1-at].Name != one || len(list.Other) != 0 {
		t.Fatalf("got %+v, want the images %s and %s", list, two, one)
	}
	if want := diskUsage(t, list.Dir); list.Usage != want {
		t.Errorf("on disk: got %d bytes, du says %d", list.Usage, want)
	}
	if list.Budget != 1<<30 || "--cache-dir="+list.Dir != cache {
		t.Errorf("got budget %d of %s, want 1 GiB of %s", list.Budget, list.Dir, cache)
	}
	img := list.Images[at]
	size, index := rows[0].Size+rows[1].Size, rows[0].IndexBytes+rows[1].IndexBytes
	if img.Size != size || img.Cached != size || img.Index != index || img.Verified != "whole" || len(img.Mounts) != 0 || img.Used.IsZero() || img.Manifest.Validate() != nil {
		t.Errorf("got %+v, want %d bytes, all cached, %d of indexes, verified whole; the layer that is there twice counts once", img, size, index)
	}
	if len(img.Layers) != 3 {
		t.Fatalf("got %d layers, want 3", len(img.Layers))
	}
	for i, l := range img.Layers {
		r := rows[i]
		if l.Digest != r.Digest || l.DiffID != r.DiffID || l.Size != r.Size || l.Cached != r.Size || l.Index != r.IndexBytes || l.Verified != "whole" {
			t.Errorf("layer %d: got %+v, want all of %+v", i, l, r)
		}
	}
	lines := strings.Split(succeed(t, "cache", "ls", "--cache-size=none", cache), "\n")
	if f := strings.Fields(lines[1+at]); f[0] != two || f[1] != show.ShortDigest(img.Manifest) || f[2] != "3" || !strings.Contains(lines[1+at], " 100% ") || !strings.Contains(lines[1+at], " whole ") {
		t.Errorf("got the row %q", lines[1+at])
	}
	if total := lines[3]; !strings.Contains(total, show.Bytes(list.Usage)+" on disk, without a limit") {
		t.Errorf("got the last line %q, want %s without a limit", total, show.Bytes(list.Usage))
	}
}

// TestCacheSize has the size where it can be said.
func TestCacheSize(t *testing.T) {
	testenv.Slow(t)
	home := alone(t)
	cache := filepath.Join(home, "cache")
	for _, c := range []struct {
		env, flag string
		want      int64 // -1: some default
	}{
		{"", "", -1},
		{"5M", "", 5 << 20},
		{"5M", "--cache-size=7MB", 7e6},
		{"", "--cache-size=0", 0},
		{"none", "", 0},
	} {
		t.Setenv("IMGFS_CACHE_SIZE", c.env)
		args := []string{"cache", "ls", "--json", "--cache-dir", cache}
		if c.flag != "" {
			args = append(args, c.flag)
		}
		got := parsed[cacheList](t, args...).Budget
		if got != c.want && (c.want >= 0 || got <= 0 || got > 10<<30) {
			t.Errorf("IMGFS_CACHE_SIZE=%s and flag %q: got %d, want %d", c.env, c.flag, got, c.want)
		}
	}
	t.Setenv("IMGFS_CACHE_SIZE", "lots")
	checkRefusal(t, invoke(t, "cache", "ls", "--cache-dir", cache), cli.ExitUsage, []string{`IMGFS_CACHE_SIZE: "lots" is not a size`}, "imgfs help cache ls")
}

func TestCachePrune(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	cache := "--cache-dir=" + t.TempDir()
	succeed(t, "index", "-q", cache, image)
	before := parsed[cacheList](t, "cache", "ls", "--json", cache)

	for _, flags := range [][]string{{"--older-than=1h"}, {"--to=1G"}, {"--older-than=1w", "--to=10GB"}} {
		got := parsed[pruneResult](t, append([]string{"cache", "prune", "--json", cache}, flags...)...)
		if got.Freed != 0 || got.Blobs+got.Indexes != 0 || got.Before != before.Usage {
			t.Errorf("prune %q: got %+v, want nothing freed of %d bytes", flags, got, before.Usage)
		}
	}
	// The biggest layer goes, the indexes stay.
	got := parsed[pruneResult](t, "cache", "prune", "--json", "--to=1M", cache)
	if got.After > 1<<20 || got.Freed != got.Before-got.After || got.Indexes != 0 {
		t.Errorf("prune --to 1M: got %+v, want at most 1 MiB left, and no index removed", got)
	}
	if du := diskUsage(t, strings.TrimPrefix(cache, "--cache-dir=")); du != got.After {
		t.Errorf("prune --to 1M says that %d bytes are left, du %d", got.After, du)
	}
	list := parsed[cacheList](t, "cache", "ls", "--json", cache)
	if img := list.Images[0]; img.Cached >= img.Size || img.Index != before.Images[0].Index {
		t.Errorf("after prune --to 1M: got %+v, want less than all of the layers, and all of the indexes", img)
	}
	out := succeed(t, "cache", "prune", "--all", cache)
	if !strings.HasPrefix(out, "freed ") || !strings.Contains(out, " 3 indexes removed") || strings.Count(out, "\n") != 1 {
		t.Errorf("prune --all: got %q, want a line with 3 indexes removed", out)
	}
	if list := parsed[cacheList](t, "cache", "ls", "--json", cache); len(list.Other) != 0 || len(list.Images) > 0 && list.Images[0].Cached+list.Images[0].Index > 0 {
		t.Errorf("after prune --all: got %+v, want nothing", list)
	}
	if got := succeed(t, "cat", "-q", cache, image, "last"); got != "last\n" {
		t.Errorf("afterwards: got %q, want the file", got)
	}
}

// cacheFile returns the file that a cache has of one kind with a digest.
func cacheFile(cacheDir, kind string, d digest.Digest) string {
	return filepath.Join(cacheDir, kind, d.Algorithm().String(), d.Encoded())
}

// flipByte changes a byte of a file, the modification time stays.
func flipByte(t *testing.T, path string, off int64) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestCacheVerify damages one thing after the other.
func TestCacheVerify(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	rows := parsed[[]indexRow](t, "index", "-q", "--json", cache, image)
	big := rows[1]
	list := parsed[cacheList](t, "cache", "ls", "--json", cache)
	manifest := list.Images[0].Manifest
	records, err := filepath.Glob(filepath.Join(dir, "images", "*.json"))
	if err != nil || len(records) != 1 {
		t.Fatalf("records of images: %q, %v, want one", records, err)
	}
	record, _ := filepath.Rel(dir, records[0])

	good := parsed[verifyReport](t, "cache", "verify", "--json", cache)
	if good.Blobs != 3 || good.Indexes != 3 || good.Bytes != list.Images[0].Size || good.Meta < 2 || good.Wrong == nil || good.Unknown == nil || len(good.Wrong)+len(good.Unknown) > 0 {
		t.Fatalf("got %+v, want 3 blobs of %d bytes, 3 indexes, 2 manifests and configs, nothing wrong", good, list.Images[0].Size)
	}
	for _, c := range []struct {
		name   string
		damage func()
		want   wrongThing
		says   string
	}{
		{"a chunk", func() { flipByte(t, cacheFile(dir, "blobs", big.Digest), 300<<10) },
			wrongThing{Kind: "blob", Digest: big.Digest, Chunks: 1, Bytes: 64 << 10}, "removed: blob " + big.Digest.String() + ": 1 of "},
		{"an index", func() { flipByte(t, cacheFile(dir, "indexes", big.Digest), big.IndexBytes/2) },
			wrongThing{Kind: "index", Digest: big.Digest, Bytes: big.IndexBytes}, "removed: index of " + big.Digest.String() + ": "},
		{"a manifest", func() { flipByte(t, cacheFile(dir, "meta", manifest), 100) },
			wrongThing{Kind: "meta", File: "meta/sha256/" + manifest.Encoded()}, manifest.Encoded()},
		{"a verification mark", func() { flipByte(t, cacheFile(dir, "verified", big.Digest), 1) },
			wrongThing{Kind: "meta", File: "verified/sha256/" + big.Digest.Encoded()}, "removed: verified/sha256/" + big.Digest.Encoded()},
		{"the record of an image", func() { flipByte(t, filepath.Join(dir, record), 0) },
			wrongThing{Kind: "meta", File: record}, "removed: " + record},
		{"a blob without an index", func() {
			flipByte(t, cacheFile(dir, "blobs", big.Digest), 300<<10)
			if err := os.Remove(cacheFile(dir, "indexes", big.Digest)); err != nil {
				t.Fatal(err)
			}
		}, wrongThing{Kind: "blob", Digest: big.Digest, Bytes: big.Size}, "removed: blob " + big.Digest.String() + ": its digest is sha256:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			succeed(t, "index", "-q", cache, image)
			succeed(t, "cat", "-q", cache, image, "noise") // all chunks are there again
			c.damage()
			r := invoke(t, "cache", "verify", "--json", cache)
			var report verifyReport
			if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != cli.ExitFailure || r.stderr != "" {
				t.Fatalf("got exit code %d, error %v\n%s%s", r.code, err, r.stdout, r.stderr)
			}
			if len(report.Wrong) != 1 {
				t.Fatalf("got %+v, want one thing wrong", report)
			}
			got := report.Wrong[0]
			if got.Why == "" {
				t.Errorf("got %+v, want a reason", got)
			}
			got.Why = ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if again := parsed[verifyReport](t, "cache", "verify", "--json", cache); len(again.Wrong) > 0 {
				t.Errorf("the second time: got %+v, want nothing wrong", again)
			}

			succeed(t, "index", "-q", cache, image)
			succeed(t, "cat", "-q", cache, image, "noise")
			c.damage()
			if r = invoke(t, "cache", "verify", cache); r.code != cli.ExitFailure || !strings.Contains(r.stdout, c.says) || !strings.Contains(r.stdout, ": 1 wrong, and removed\n") {
				t.Errorf("got exit code %d and %q, want 1 and %q", r.code, r.stdout, c.says)
			}
		})
	}
	succeed(t, "index", "-q", cache, image)
	if out := succeed(t, "cache", "verify", cache); !strings.HasPrefix(out, "verified 3 layers (") || !strings.HasSuffix(out, ": all are as they should be\n") {
		t.Errorf("in the end: got %q", out)
	}
}

// TestCacheVerifyUnknown has some chunks of a layer, and no index of it.
func TestCacheVerifyUnknown(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	big := parsed[[]indexRow](t, "index", "-q", "--json", cache, image)[1]
	flipByte(t, cacheFile(dir, "blobs", big.Digest), 300<<10)
	invoke(t, "cache", "verify", cache)
	if err := os.Remove(cacheFile(dir, "indexes", big.Digest)); err != nil {
		t.Fatal(err)
	}
	got := parsed[verifyReport](t, "cache", "verify", "--json", cache)
	if len(got.Wrong) != 0 || len(got.Unknown) != 1 || got.Unknown[0] != big.Digest {
		t.Errorf("got %+v, want only %s, unknown", got, big.Digest)
	}
	out := succeed(t, "cache", "verify", cache)
	if !strings.HasPrefix(out, "unknown: blob "+big.Digest.String()+": ") || !strings.HasSuffix(out, ", 1 unknown\n") {
		t.Errorf("got %q", out)
	}
}

// TestCacheContents has files that are kept whole, one of them open and one
// wrong.
func TestCacheContents(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	kept, err := cache.Open(dir, nil)
	cache := "--cache-dir=" + dir
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	var digests []digest.Digest
	for i := range 3 {
		data := bytes.Repeat([]byte{'a' + byte(i)}, 10_000)
		d := digest.FromBytes(data)
		x, err := kept.Files.Store(t.Context(), d, int64(len(data)), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d)
		if i > 0 {
			x.Close()
		} else {
			defer x.Close()
		}
	}
	list := parsed[cacheList](t, "cache", "ls", "--json", cache)
	if list.Contents != 3 || list.ContentBytes != 3*12<<10 || list.Usage != diskUsage(t, dir) || len(list.Other) > 0 {
		t.Errorf("got %+v, want 3 contents of 36 KiB on disk", list)
	}
	if out := succeed(t, "cache", "ls", cache); !strings.HasSuffix(out, "; "+show.Bytes(list.ContentBytes)+" of it in 3 whole files\n") {
		t.Errorf("cache ls: got %q", out)
	}

	good := parsed[verifyReport](t, "cache", "verify", "--json", cache)
	if good.Contents != 3 || good.ContentBytes != 30_000 || len(good.Wrong) > 0 {
		t.Errorf("cache verify: got %+v, want 3 contents of 10000 bytes each, none wrong", good)
	}
	wrong := digests[1]
	for _, asJSON := range []bool{true, false} {
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte("wrong"), 0o400); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), cacheFile(dir, "contents", wrong)); err != nil {
			t.Fatal(err)
		}
		why := "its digest is " + digest.FromString("wrong").String()
		if !asJSON {
			r := invoke(t, "cache", "verify", cache)
			if r.code != cli.ExitFailure || !strings.HasPrefix(r.stdout, "removed: content "+wrong.String()+": "+why+"\n") ||
				!strings.Contains(r.stdout, ", 3 whole files (") || !strings.HasSuffix(r.stdout, ": 1 wrong, and removed\n") {
				t.Errorf("cache verify: got exit code %d and %q", r.code, r.stdout)
			}
			continue
		}
		r := invoke(t, "cache", "verify", "--json", cache)
		var report verifyReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != cli.ExitFailure {
			t.Fatalf("got exit code %d, error %v\n%s%s", r.code, err, r.stdout, r.stderr)
		}
		if want := (wrongThing{Kind: "content", Digest: wrong, Bytes: 5, Why: why}); len(report.Wrong) != 1 || report.Wrong[0] != want {
			t.Errorf("cache verify: got %+v, want %+v", report.Wrong, want)
		}
	}
	if _, err := os.Lstat(cacheFile(dir, "contents", wrong)); !os.IsNotExist(err) {
		t.Errorf("what was wrong is still there: %v", err)
	}

	// What is open stays.
	got := parsed[pruneResult](t, "cache", "prune", "--all", "--json", cache)
	if got.Contents != 1 || got.After != diskUsage(t, dir) {
		t.Errorf("cache prune --all: got %+v, want 1 content removed", got)
	}
	if list := parsed[cacheList](t, "cache", "ls", "--json", cache); list.Contents != 1 {
		t.Errorf("left are %d contents, want the one that is open", list.Contents)
	}
	if out := succeed(t, "cache", "prune", "--all", cache); !strings.Contains(out, ": 0 layers, 0 whole files and 0 indexes removed, ") {
		t.Errorf("cache prune --all: got %q", out)
	}
}
