//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// sentBy returns how many bytes of documents and layers a registry has sent, and
// waits a moment until there are at least so many.
func sentBy(reg *registrytest.Server, least int64) (n int64) {
	eventually(5*time.Second, func() bool {
		n = 0
		for _, r := range reg.Requests(registrytest.Manifest, registrytest.Blob) {
			if r.Method != "HEAD" {
				n += r.Bytes
			}
		}
		return n >= least
	})
	return n
}

// TestFetchedCounts compares what a mount says that it has fetched with what the
// registry has sent, whether or not anything of it is kept.
func TestFetchedCounts(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	t.Parallel()
	for _, c := range []struct {
		name   string
		fault  func(int) registrytest.Fault
		flags  []string
		sealed bool // nothing can be written to the cache
		whole  bool // answers are ended early: more may have been sent than came
	}{
		{name: "all is kept"},
		{name: "no room", flags: []string{"--cache-size=1"}},
		{name: "read-only", sealed: true},
		{name: "cut off", fault: registrytest.Times(3, registrytest.Truncate(200_000))},
		{name: "wrong", fault: registrytest.Times(1, registrytest.FlipBit())},
		{name: "sent whole", fault: registrytest.Always(registrytest.IgnoreRange()), whole: true},
		{name: "sent whole, no room", fault: registrytest.Always(registrytest.IgnoreRange()), flags: []string{"--cache-size=1"}, whole: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, reg := newSandbox(t), registrytest.New(t, nil)
			content := seededNoise(1, 3<<20)
			image, _ := publish(t, reg, small, oneFile("file", content))
			if c.fault != nil {
				// The config comes before the layers.
				next := c.fault
				reg.Inject(registrytest.Blob, func(n int) registrytest.Fault {
					if n == 0 {
						return nil
					}
					return next(n - 1)
				})
			}
			if c.sealed {
				needRoot(t)
				if err := os.Mkdir(s.cache, 0o700); err != nil {
					t.Fatal(err)
				}
				testenv.SmallDisk(t, s.cache, 16<<20)
				s.ok("cache", "ls")
				testenv.RemountReadOnly(t, s.cache)
			}
			dir := s.mountpoint()
			r := s.ok(append([]string{"mount", image, dir}, c.flags...)...)
			mounted := s.stats(dir).Total
			if want := "fetched " + show.Bytes(mounted.Indexed+mounted.Meta) + " in "; mounted.Indexed < 3<<20 || mounted.Fetched != 0 || !strings.Contains(r.stdout, want) {
				t.Errorf("%q is not in %q, or not what stats say: %+v", want, r.stdout, mounted)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != content {
				t.Fatalf("error %v, or other content", err)
			}
			st := s.stats(dir)
			got := st.Total.Indexed + st.Total.Fetched + st.Total.Meta
			if sent := sentBy(reg, got); got > sent || !c.whole && got != sent {
				t.Errorf("%d bytes count as fetched, and the registry sent %d: %+v", got, sent, st.Total)
			}
			indexed, fetched := int64(0), int64(0)
			for _, l := range st.Layers {
				indexed, fetched = indexed+l.Indexed, fetched+l.Fetched
			}
			if indexed != st.Total.Indexed || fetched != st.Total.Fetched || st.Total.Wasted > st.Total.Fetched {
				t.Errorf("the layers are %+v, the total is %+v", st.Layers, st.Total)
			}
			s.umount(dir)
		})
	}
}

// TestIndexFetched has the commands that index say what they have fetched.
func TestIndexFetched(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	for _, size := range []string{"1", "10G"} {
		reg.Forget()
		args := []string{"--cache-dir", t.TempDir(), "--cache-size", size, image}
		r := invoke(t, append([]string{"index", "--json", "--verbose"}, args...)...)
		var rows []indexRow
		if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
			t.Fatal(err)
		}
		layers := int64(0)
		for _, row := range rows {
			layers += row.Fetched
			if row.Fetched != row.Size {
				t.Errorf("%d bytes count as fetched for a layer of %d", row.Fetched, row.Size)
			}
		}
		sent := sentBy(reg, layers)
		if want := fmt.Sprintf("imgfs: fetched %s: %s of layers to index them, 0 B of layers to read them, %s of ",
			show.Bytes(sent), show.Bytes(layers), show.Bytes(sent-layers)); !strings.Contains(r.stderr, want) {
			t.Errorf("with --cache-size=%s: %q is not in %q", size, want, r.stderr)
		}
		if size == "1" {
			continue
		}
		reg.Forget()
		if r := invoke(t, append([]string{"index", "--fetch"}, args...)...); !strings.Contains(r.stderr, "; 0 B were fetched now") {
			t.Errorf("all is there, and --fetch says %q", r.stderr)
		}
		if r := invoke(t, "index", "--fetch", "--cache-dir", t.TempDir(), image); !strings.Contains(r.stderr, "; "+show.Bytes(layers)+" were fetched now") {
			t.Errorf("nothing was there, and --fetch says %q, want %s", r.stderr, show.Bytes(layers))
		}
	}
}
