//go:build linux

package main

import (
	"archive/tar"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestIndexPush publishes the indexes of an image beside it and in an index repository,
// which takes nothing the second time.
func TestIndexPush(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	image, layout := publish(t, reg, small, small)
	to := registrytest.New(t, &registrytest.Options{Writable: true})
	cache := t.TempDir()
	for _, where := range []struct {
		flags  []string
		server *registrytest.Server
		image  string
	}{
		{nil, reg, image},
		{[]string{"--to", to.Host() + "/team/indexes"}, to, image},
		{[]string{"--to", to.Host() + "/team/others"}, to, layout},
	} {
		for _, pushed := range []bool{true, false} {
			where.server.Forget()
			var rows []pushRow
			args := slices.Concat([]string{"index", "push", "--json", "--cache-dir", cache}, where.flags, []string{where.image})
			if err := json.Unmarshal([]byte(succeed(t, args...)), &rows); err != nil {
				t.Fatal(err)
			}
			if len(rows) == 0 {
				t.Fatal("no rows")
			}
			for _, r := range rows {
				if r.Digest.Validate() != nil || r.Bytes < 500 || r.Pushed != pushed || len(r.Header) != 64 || r.Codec == "" {
					t.Errorf("%q: got %+v, want pushed %t", args, r, pushed)
				}
			}
			for _, r := range where.server.Requests() {
				if !pushed && r.Method != http.MethodGet && r.Method != http.MethodHead {
					t.Errorf("%q: %s %s", args, r.Method, r.Path)
				}
			}
		}
	}
	for args, says := range map[string]string{image: "--index-trust=published", "--to=" + to.Host() + "/team/indexes " + image: "--index-repo " + to.Host() + "/team/indexes uses"} {
		r := invoke(t, append([]string{"index", "push", "--cache-dir", cache}, strings.Fields(args)...)...)
		if r.code != 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit code %d, stderr %q does not say how they are used: %s", args, r.code, r.stderr, says)
		}
	}
	table := succeed(t, "index", "push", "--cache-dir", cache, image)
	if lines := strings.Split(table, "\n"); !slices.Equal(strings.Fields(lines[0]), []string{"LAYER", "INDEX", "PUSHED"}) || !strings.HasSuffix(lines[1], "there") {
		t.Errorf("got\n%s", table)
	}
}

// TestIndexPushName: an image that is called push can be indexed.
func TestIndexPushName(t *testing.T) {
	alone(t)
	checkRefusal(t, invoke(t, "index", "push"), cli.ExitUsage, []string{"index push: one image is needed"}, "imgfs index push:latest indexes an image that is called push")
	for _, args := range [][]string{{"index", "--", "push"}, {"index", "push:latest"}, {"index", "--json", "push"}} {
		r := invoke(t, append([]string{"--offline", "--cache-dir", t.TempDir()}, args...)...)
		if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "docker.io/library/push:latest") {
			t.Errorf("imgfs %q: got exit code %d and stderr %q", args, r.code, r.stderr)
		}
	}
}

// TestIndexPushRefused: what cannot be published says why.
func TestIndexPushRefused(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, small)
	private := registrytest.New(t, &registrytest.Options{Writable: true, Login: registrytest.Basic, User: "u", Password: "p"})
	writable := func(status int) (host string) {
		s := registrytest.New(t, &registrytest.Options{Writable: true})
		s.Inject(registrytest.Upload, registrytest.Always(registrytest.Status(status)))
		return s.Host()
	}
	forbidden, readOnly := writable(http.StatusForbidden), writable(http.StatusMethodNotAllowed)
	cache := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says []string
		hint string
	}{
		{[]string{layout}, cli.ExitFailure, []string{"in no registry"}, "--to REPO"},
		{[]string{"--to", private.Host() + "/x", image}, cli.ExitFailure, []string{"wants a login"}, "podman login " + private.Host()},
		{[]string{"--to", forbidden + "/x", image}, cli.ExitFailure, []string{"403"}, "hint: podman login " + forbidden + " (or docker login) as somebody who may push to " + forbidden + "/x; "},
		{[]string{"--to", readOnly + "/x", image}, cli.ExitFailure, []string{"405", "can only be read"}, ""},
		{[]string{"--to", "a/b:tag", image}, cli.ExitUsage, []string{"--to", "tag"}, ""},
		{[]string{"--to", "", image}, cli.ExitUsage, []string{"--to"}, ""},
		{[]string{"--offline", image}, cli.ExitUsage, []string{"--offline"}, ""},
		{[]string{image, image}, cli.ExitUsage, []string{"one image"}, ""},
		{[]string{image + ":/etc"}, cli.ExitUsage, []string{"index push"}, ""},
	} {
		r := invoke(t, append([]string{"--cache-dir", cache, "index", "push"}, c.args...)...)
		if r.code != c.code || r.stdout != "" {
			t.Errorf("%q: got exit code %d, stdout %q and stderr %q", c.args, r.code, r.stdout, r.stderr)
		}
		for _, word := range append(c.says, c.hint) {
			if !strings.Contains(r.stderr, word) {
				t.Errorf("%q: stderr %q has no %q", c.args, r.stderr, word)
			}
		}
		if strings.Count(r.stderr, "podman login") > 1 || strings.Contains(r.stderr, "images that do not exist") {
			t.Errorf("%q: stderr %q has another hint, too", c.args, r.stderr)
		}
	}
}

// TestIndexPushSOCI: the image with a SOCI index is there under a tag of its own, and is
// mounted by that index without reading a layer whole.
func TestIndexPushSOCI(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small, textFiles)
	cache := t.TempDir()
	want := succeed(t, "ls", "-lR", "--cache-dir", cache, image)
	var rows []pushRow
	if err := json.Unmarshal([]byte(succeed(t, "index", "push", "--soci", "--json", "--cache-dir", cache, image)), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || !rows[1].Pushed || rows[1].Bytes < 10_000 || rows[1].Header != "" {
		t.Errorf("got %+v", rows)
	}
	reg.Forget()
	if got := succeed(t, "ls", "-lR", "--cache-dir", t.TempDir(), image+"-soci"); got != want {
		t.Error("with the SOCI index the listing is another one")
	}
	for _, r := range reg.Requests(registrytest.Blob) {
		if r.Bytes > 1_500_000 {
			t.Errorf("%s %s: %d bytes", r.Path, r.Range, r.Bytes)
		}
	}
	if err := json.Unmarshal([]byte(succeed(t, "index", "push", "--soci", "--json", "--cache-dir", cache, image)), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Pushed {
			t.Errorf("it is all there: got %+v", r)
		}
	}
	_, layout := publish(t, registrytest.New(t, nil), small)
	store := sourcetest.NewStore()
	content := tarOf(t, tar.Header{Name: "a"})
	zstd := sourcetest.Layer{Content: zstdOf(t, content), MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: digest.FromBytes(content)}
	packed := publishStore(reg, store, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{zstd}}))
	for name, says := range map[string]string{
		image + "-soci": "nothing to publish: it has a SOCI index",
		"oci:" + layout: "nothing to publish: it is in no registry",
		packed:          "nothing to publish: SOCI can index none of its layers",
	} {
		checkRefusal(t, invoke(t, "index", "push", "--soci", "--cache-dir", t.TempDir(), name), cli.ExitFailure, []string{says}, "")
	}
	r := invoke(t, "index", "push", "--soci", "--to", "a/b", image)
	if r.code != cli.ExitUsage {
		t.Errorf("with --to: exit code %d", r.code)
	}
}
