//go:build linux

package fusefs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// openedFiles are the files of the tree "opened", by layer. The image pretends
// to know where one of them is from.
var openedFiles = [][]string{
	{"etc/passwd", "root:x:0:0\n", "bin/big", strings.Repeat("0123456789abcde\n", 1<<17), "empty", ""},
	{"etc/passwd", "root::0:0\n", "new", strings.Repeat("new\n", 5000), "forged", "!"},
}

// openedLayer returns a layer of files, and its tar.
func openedLayer(files []string) (sourcetest.Layer, []byte, error) {
	var tarBytes, blob bytes.Buffer
	tw := tar.NewWriter(&tarBytes)
	for f := range slices.Chunk(files, 2) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}
		if f[0] == "forged" {
			h.PAXRecords = map[string]string{"SCHILY.xattr." + layerAttr: "forged", "SCHILY.xattr.user.own": "kept"}
		}
		if err := tw.WriteHeader(h); err != nil {
			return sourcetest.Layer{}, nil, err
		}
		if _, err := tw.Write([]byte(f[1])); err != nil {
			return sourcetest.Layer{}, nil, err
		}
	}
	gw := gzip.NewWriter(&blob)
	err := tw.Close()
	_, writeErr := gw.Write(tarBytes.Bytes())
	err = errors.Join(err, writeErr, gw.Close())
	return sourcetest.Layer{Content: blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: godigest.FromBytes(tarBytes.Bytes())}, tarBytes.Bytes(), err
}

// openedTree is the tree of an image that was opened as image.New does it, with
// nothing of it in the cache. It stays open until the process ends.
func openedTree(cacheDir string) (*image.Image, error) {
	var layers []sourcetest.Layer
	for _, files := range openedFiles {
		l, _, err := openedLayer(files)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	ctx := context.Background()
	store := sourcetest.NewStore()
	img, err := remote.Open(ctx, store.Source("test", store.AddImage(sourcetest.Image{Layers: layers})), "")
	if err != nil {
		return nil, err
	}
	disk, err := cache.Open(cacheDir, nil)
	if err != nil {
		return nil, err
	}
	return image.New(ctx, img, &image.Options{Cache: disk})
}

// control gives the attributes of the root that the tests ask for.
func control(img *image.Image) func(name string) ([]byte, bool) {
	return func(name string) ([]byte, bool) {
		size, isSize := strings.CutPrefix(name, ownPrefix+"size-")
		switch {
		case name == ownPrefix+"stats":
			var s image.Stats
			if img != nil {
				s = img.Stats()
			}
			b, err := json.Marshal(s)
			return b, err == nil
		case isSize:
			n, err := strconv.Atoi(size)
			b := make([]byte, n)
			for i := range b {
				b[i] = patternAt(int64(i))
			}
			return b, err == nil
		case !strings.HasPrefix(name, ownPrefix):
			say("error: control was asked for %s", name)
		}
		return nil, false
	}
}

// xattrOf returns the value of an attribute.
func xattrOf(t *testing.T, path, name string) string {
	t.Helper()
	buf := make([]byte, xattrMax)
	n, err := unix.Getxattr(path, name, buf)
	if err != nil {
		t.Errorf("%s of %s: %v", name, path, err)
		return ""
	}
	return string(buf[:n])
}

// xattrNames returns the names that listxattr(2) gives, sorted.
func xattrNames(t *testing.T, path string) []string {
	t.Helper()
	n, err := unix.Llistxattr(path, nil)
	buf := make([]byte, n)
	if err == nil {
		n, err = unix.Llistxattr(path, buf)
	}
	if err != nil || n != len(buf) {
		t.Errorf("listing attributes of %s: %d of %d bytes, %v", path, n, len(buf), err)
		return nil
	}
	names := strings.Split(string(buf), "\x00")
	names = names[:len(names)-1]
	slices.Sort(names)
	return names
}

func serveOpened(t *testing.T, k task) string {
	t.Helper()
	w := mounters(t)[0]
	k.Tree, k.Cache = "opened", t.TempDir()
	_, dir := serve(t, w, k)
	return dir
}

func TestProvenance(t *testing.T) {
	for _, listed := range []bool{false, true} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			dir := serveOpened(t, task{Provenance: listed})
			// The first program to come looks for something else.
			if err := getxattr(filepath.Join(dir, "new"), "security.selinux", 10); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("security.selinux: %v, want %v", err, unix.EOPNOTSUPP)
			}
			checkProvenance(t, dir, listed)
			for _, name := range []string{"", "etc"} {
				if names := xattrNames(t, filepath.Join(dir, name)); len(names) != 0 {
					t.Errorf("%q has the attributes %q", name, names)
				}
				for _, attr := range []string{layerAttr, digestAttr, offsetAttr} {
					if err := getxattr(filepath.Join(dir, name), attr, 100); !errors.Is(err, unix.ENODATA) {
						t.Errorf("%s of a directory: %v, want %v", attr, err, unix.ENODATA)
					}
				}
			}
			if listed {
				whole, err := unix.Listxattr(filepath.Join(dir, "new"), nil)
				if err != nil {
					t.Fatal(err)
				}
				for n := 1; n < whole; n++ {
					if _, err := unix.Listxattr(filepath.Join(dir, "new"), make([]byte, n)); !errors.Is(err, unix.ERANGE) {
						t.Errorf("listing %d bytes in %d: %v, want %v", whole, n, err, unix.ERANGE)
					}
				}
			}
			for attr, want := range map[string]error{layerAttr: unix.ERANGE, ownPrefix + "none": unix.ENODATA, "user.none": unix.ENODATA} {
				if err := getxattr(filepath.Join(dir, "new"), attr, 10); !errors.Is(err, want) {
					t.Errorf("%s in 10 bytes: %v, want %v", attr, err, want)
				}
			}
		})
	}
}

// checkProvenance holds each file's attributes against where it is.
func checkProvenance(t *testing.T, dir string, listed bool) {
	t.Helper()
	where := map[string]int{"etc/passwd": 1, "bin/big": 0, "empty": 0, "new": 1, "forged": 1}
	for name, i := range where {
		l, tarBytes, err := openedLayer(openedFiles[i])
		if err != nil {
			t.Fatal(err)
		}
		content := openedFiles[i][slices.Index(openedFiles[i], name)+1]
		path := filepath.Join(dir, name)
		if got, want := xattrOf(t, path, layerAttr), godigest.FromBytes(l.Content).String(); got != want {
			t.Errorf("%s is in layer %s, want %s", name, got, want)
		}
		if got, want := xattrOf(t, path, digestAttr), godigest.FromString(content).String(); got != want {
			t.Errorf("%s has digest %s, want %s", name, got, want)
		}
		off, err := strconv.Atoi(xattrOf(t, path, offsetAttr))
		if err != nil || off <= 0 || off > len(tarBytes) || !bytes.HasPrefix(tarBytes[off:], []byte(content)) {
			t.Errorf("%s is not at byte %d of its layer: %v", name, off, err)
		}
		var want []string
		if listed {
			want = []string{digestAttr, layerAttr, offsetAttr}
		}
		if name == "forged" {
			want = append(want, "user.own")
		}
		if got := xattrNames(t, path); !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", name, got, want)
		}
	}
	if got := xattrOf(t, filepath.Join(dir, "forged"), "user.own"); got != "kept" {
		t.Errorf("the image's own attribute is %q", got)
	}
}

// TestProvenanceWithoutIndex has no digests to tell.
func TestProvenanceWithoutIndex(t *testing.T) { forEachMode(t, testProvenanceWithoutIndex) }

func testProvenanceWithoutIndex(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample", Provenance: true})
	path := filepath.Join(dir, "mega")
	if got, want := xattrNames(t, path), []string{layerAttr, offsetAttr}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	if got := xattrOf(t, path, offsetAttr); got != "12345" {
		t.Errorf("at %s, want 12345", got)
	}
	if err := getxattr(path, digestAttr, 100); !errors.Is(err, unix.ENODATA) {
		t.Errorf("the digest: %v, want %v", err, unix.ENODATA)
	}
	if got := xattrNames(t, filepath.Join(dir, "link")); len(got) != 0 {
		t.Errorf("a symlink lists %q", got)
	}
}

// TestForgedAttributes: an image says nothing by the names of the mount's own
// attributes, also where the mount has nothing to say.
func TestForgedAttributes(t *testing.T) { forEachMode(t, testForgedAttributes) }

func testForgedAttributes(t *testing.T, w who) {
	for _, listed := range []bool{false, true} {
		_, dir := serve(t, w, task{Tree: "forged", Control: true, Provenance: listed})
		for name, has := range map[string][]string{"": {"size-1", "stats"}, "etc": nil, "sparse": {"layer", "offset"}} {
			path := filepath.Join(dir, name)
			want := []string{"user.own"}
			if listed && name == "sparse" {
				want = []string{layerAttr, offsetAttr, "user.own"}
			}
			if got := xattrNames(t, path); !slices.Equal(got, want) {
				t.Errorf("%q lists %q, want %q", name, got, want)
			}
			for _, attr := range []string{"digest", "layer", "none", "offset", "size-1", "stats"} {
				if !slices.Contains(has, attr) {
					if err := getxattr(path, ownPrefix+attr, 100); !errors.Is(err, unix.ENODATA) {
						t.Errorf("%s of %q: %v, want %v", attr, name, err, unix.ENODATA)
					}
				} else if got := xattrOf(t, path, ownPrefix+attr); got == "forged" {
					t.Errorf("%s of %q is the image's", attr, name)
				}
			}
		}
	}
}

func TestControl(t *testing.T) {
	dir := serveOpened(t, task{Control: true, Provenance: true})
	if names := xattrNames(t, dir); len(names) != 0 {
		t.Errorf("the root lists %q", names)
	}
	for _, size := range []int{0, 1, 5000, xattrMax} {
		if got := xattrOf(t, dir, fmt.Sprintf("%ssize-%d", ownPrefix, size)); len(got) != size {
			t.Errorf("%d bytes, want %d", len(got), size)
		}
	}
	for _, c := range []struct {
		path, name string
		want       error
	}{
		{dir, ownPrefix + "size-65537", unix.E2BIG},
		{dir, ownPrefix + "size-11", unix.ERANGE},
		{dir, ownPrefix + "none", unix.ENODATA},
		{dir, "user.none", unix.ENODATA},
		{dir, "security.none", unix.EOPNOTSUPP},
		{filepath.Join(dir, "etc"), ownPrefix + "size-1", unix.ENODATA},
		{filepath.Join(dir, "new"), ownPrefix + "size-1", unix.ENODATA},
	} {
		if err := getxattr(c.path, c.name, 10); !errors.Is(err, c.want) {
			t.Errorf("%s of %s: %v, want %v", c.name, c.path, err, c.want)
		}
	}
}

// TestControlIsForTheOwner: what a mount tells of itself is for who mounted it
// and root, whoever else may read its files. For others there is nothing.
func TestControlIsForTheOwner(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	for _, c := range []struct {
		mounter int
		uid     int
		want    string
	}{
		{0, 0, "1 byte"}, {0, nobody, unix.ENODATA.Error()},
		{nobody, 0, "1 byte"}, {nobody, nobody, "1 byte"}, {nobody, 1, unix.ENODATA.Error()},
	} {
		// With the capability an ordinary user mounts for others.
		w := who{uid: c.mounter}
		if c.mounter != 0 {
			w.wrap = []string{"setpriv", "--reuid=" + strconv.Itoa(nobody), "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin", "--"}
		}
		_, dir := serve(t, w, task{Tree: "forged", Control: true, AllowOther: true}) // others do not get the image's either
		asker := start(t, c.uid, task{Role: "ask", Dir: dir, Name: ownPrefix + "size-1"})
		if got := asker.next(); got != c.want {
			t.Errorf("mounted by user %d, user %d gets %q, want %q", c.mounter, c.uid, got, c.want)
		}
		asker.expect("4097 bytes")
		_ = asker.cmd.Wait()
	}
}

// askRole asks for an attribute of a mount's root, and reads a file of it.
func askRole(k task) error {
	value := make([]byte, xattrMax)
	if n, err := unix.Getxattr(k.Dir, k.Name, value); err != nil {
		say("%v", err)
	} else {
		say("%d byte", n)
	}
	b, err := os.ReadFile(filepath.Join(k.Dir, "srv/index"))
	say("%d bytes", len(b))
	return err
}

// TestStats reads a file through a mount and asks the mount's root what was
// counted.
func TestStats(t *testing.T) {
	dir := serveOpened(t, task{Control: true})
	type counted struct{ Reads, Asked, Errors int64 }
	stats := func() (s counted) {
		t.Helper()
		if err := json.Unmarshal([]byte(xattrOf(t, dir, ownPrefix+"stats")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := stats(); s.Reads != 0 || s.Asked != 0 {
		t.Errorf("before anything was read: %+v", s)
	}
	want := int64(0)
	for _, name := range []string{"bin/big", "new", "bin/big"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want == 0 || name == "new" { // the second time the kernel has it
			want += int64(len(b))
		}
		if s := stats(); s.Asked != want || s.Reads == 0 || s.Errors != 0 {
			t.Errorf("after reading %s: %d bytes asked in %d reads with %d errors, want %d", name, s.Asked, s.Reads, s.Errors, want)
		}
	}
}

// TestNoXattrs: what the tree has nothing of is not supported, so that programs
// such as ls look for it once and not for every file.
func TestNoXattrs(t *testing.T) { forEachMode(t, testNoXattrs) }

func testNoXattrs(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "plain"})
	path := filepath.Join(dir, "srv/index")
	for range 2 {
		for name, want := range map[string]error{
			"user.x": unix.ENODATA, "security.selinux": unix.EOPNOTSUPP, "system.posix_acl_access": unix.EOPNOTSUPP,
		} {
			if err := getxattr(path, name, 10); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
		if n, err := unix.Listxattr(path, nil); n != 0 || err != nil {
			t.Errorf("listxattr: %d, %v, want an empty list", n, err)
		}
	}
}

// TestMissing has what some inode of the tree has as supported.
func TestMissing(t *testing.T) {
	sample, acl := factsOf(treeNamed(t, "sample")), factsOf(treeNamed(t, "acl"))
	for _, c := range []struct {
		tree string
		s    treeFacts
		name string
		want unix.Errno
	}{
		{"sample", sample, "security.capability", unix.ENODATA},
		{"sample", sample, "security.selinux", unix.EOPNOTSUPP},
		{"sample", sample, "system.posix_acl_access", unix.EOPNOTSUPP},
		{"sample", sample, "user.none", unix.ENODATA},
		{"sample", sample, "trusted.none", unix.ENODATA},
		{"acl", acl, "system.posix_acl_access", unix.ENODATA},
		{"acl", acl, "system.posix_acl_default", unix.ENODATA},
		{"acl", acl, "security.capability", unix.EOPNOTSUPP},
	} {
		if got := c.s.missing(c.name); got != fuse.Status(c.want) {
			t.Errorf("%s in the tree %q: %v, want %v", c.name, c.tree, got, c.want)
		}
	}
}

// What is listed can be read: attributes that the kernel keeps for who has
// CAP_SYS_ADMIN over the machine are not listed for a root without it.
func TestTrustedIsListedForWhoReadsIt(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	getfattr, err := exec.LookPath("getfattr")
	if err != nil {
		missing(t, "getfattr is not installed")
		t.Skip(err)
	}
	_, dir := serve(t, mounters(t)[0], task{Tree: "sample", AllowOther: true})
	for name, c := range map[string]struct {
		wrap []string
		want bool
	}{
		"root":                       {nil, true},
		"root without CAP_SYS_ADMIN": {[]string{"setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"}, false},
		"root of a user namespace":   {[]string{"unshare", "-Ur"}, false},
		"an ordinary user":           {[]string{"setpriv", "--reuid=" + strconv.Itoa(nobody), "--clear-groups"}, false},
	} {
		args := append(slices.Clone(c.wrap), getfattr, "--absolute-names", "-d", "-m", "-", filepath.Join(dir, "caps"))
		cmd := exec.Command(args[0], args[1:]...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v: %s", name, err, &stderr)
			continue
		}
		if got := strings.Contains(string(out), "trusted.t="); got != c.want {
			t.Errorf("%s: trusted.t is listed: %v, want %v\n%s", name, got, c.want, out)
		}
		if !strings.Contains(string(out), "user.empty") {
			t.Errorf("%s: user.empty is not listed\n%s", name, out)
		}
	}
}

// As many names as an inode can have are listed, though the mount's own beside them
// would be too many for listxattr(2). Those are there all the same.
func TestNamesWithoutRoom(t *testing.T) {
	needFUSE(t)
	_, dir := serve(t, mounters(t)[0], task{Tree: "names", Provenance: true})
	path := filepath.Join(dir, "names")
	if n := len(xattrNames(t, path)); n != xattrListMax/256 {
		t.Errorf("%d names are listed, want %d", n, xattrListMax/256)
	}
	if got := xattrOf(t, path, layerAttr); got != "sha256:test" {
		t.Errorf("%s is %q", layerAttr, got)
	}
}
