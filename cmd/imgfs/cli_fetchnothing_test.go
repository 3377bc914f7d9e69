//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestIndexesAnswer counts what comes over the network for the commands that ask for
// nothing but what indexes have, and finds that it is nothing.
func TestIndexesAnswer(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	later := func(a *labimage.Archive) error {
		if err := a.Whiteout("etc/os-release"); err != nil {
			return err
		}
		return a.File("new", strings.Repeat("new", 10_000))
	}
	image, _ := publish(t, reg, small, labimage.Many(1, 200), later)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, small, labimage.Many(1, 200)); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "other"); err != nil {
		t.Fatal(err)
	}
	other := reg.Host() + "/other:" + labimage.Tag
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	fetched := func() int64 { return reg.Bytes(registrytest.Blob, registrytest.CDN) }
	// noBlobs has the cache keep its indexes and documents, and no layer.
	noBlobs := func() {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
			t.Fatal(err)
		}
	}
	succeed(t, "index", cache, image)
	succeed(t, "index", cache, other)
	if fetched() == 0 {
		t.Fatal("nothing was fetched to make indexes: the counter does not count")
	}
	for _, c := range []struct{ args, says string }{
		{"find IMAGE", "/new\n"}, {"find IMAGE -type f -size +1k -newermt 1980-01-01 -perm -400 -uid 0 -printf %s|%p\\n", "|/new\n"}, {"find --json IMAGE -name new", `"/new"`}, {"find -L IMAGE -empty", "/"}, {"find --layer 1 IMAGE", "/etc/os-release\n"},
		{"tree IMAGE", "new\n"}, {"tree -psD --du IMAGE", "new\n"}, {"tree --json IMAGE", `"/new"`},
		{"du -a IMAGE", "/new\n"}, {"du -s IMAGE", "/\n"}, {"du --layers IMAGE", "total"}, {"du --layers --json IMAGE", `"useless"`},
		{"sum -r IMAGE", "/new\n"}, {"sum -r --tag IMAGE", "(/new)"}, {"sum -r --json IMAGE", `"/new"`},
		{"history IMAGE", "LAYER"}, {"history --json IMAGE", `"digest"`},
		{"ls -R IMAGE", "new\n"}, {"ls -lnR IMAGE", "new\n"}, {"ls -R --json IMAGE", `"/new"`}, {"ls --layers IMAGE", "3 new\n"}, {"stat --json IMAGE /new", `"/new"`},
		{"diff OTHER IMAGE", "/new"}, {"diff --json OTHER IMAGE", `"/new"`}, {"inspect IMAGE", ""},
	} {
		noBlobs()
		before := fetched()
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.NewReplacer("IMAGE", image, "OTHER", other).Replace(args[i])
		}
		r := invoke(t, slices.Insert(args, 1, cache)...)
		if want := map[bool]int{true: 1}[args[0] == "diff"]; r.code != want || !strings.Contains(r.stdout, c.says) {
			t.Errorf("imgfs %s: exit code %d, no %q in\n%.2000s%s", c.args, r.code, c.says, r.stdout, r.stderr)
		}
		if n := fetched() - before; n > 0 {
			t.Errorf("imgfs %s: %d bytes of blobs were fetched:\n%s", c.args, n, fmt.Sprint(reg.Requests(registrytest.Blob, registrytest.CDN)))
		}
	}
	noBlobs()
	before := fetched()
	if succeed(t, "cat", cache, image, "/new"); fetched() == before {
		t.Error("nothing was fetched to read a file: the counter does not count")
	}
}
