package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A goldenCase is an image that others made, and what is known of it.
type goldenCase struct {
	image  string // below corpora/images: a layout, or an archive as docker save writes it
	choose string // which of several images
	amd64  bool   // an image index, asked for linux/amd64
	// golden is the tree as containerd's or podman's overlayfs shows it,
	// below corpora/golden; "" where both refuse the image or neither has it.
	golden string
	refuse error  // what imgfs refuses the image with
	why    string // where imgfs does not as the golden tree says, or there is none
	links  string // without a golden tree: the names of files, those of one inode joined
}

const (
	grootfs = "grootfs/oci-test-image/"
	// Neither containerd nor podman applies a root entry.
	anyRoot = "."
)

// goldenCases are all images of the corpus.
var goldenCases = []goldenCase{
	{image: "fanal/alpine-310.tar.gz", golden: "images_fanal_alpine-310.tar.gz"},
	{image: "fanal/image3_gz_layers.tar", golden: "images_fanal_image3_gz_layers.tar"},
	{image: grootfs + "alpine", golden: "images_grootfs_oci-test-image_alpine"},
	{image: grootfs + "busybox-1.25", golden: "images_grootfs_oci-test-image_busybox-1.25"},
	// index.json states 657 bytes for the manifest, which has 908.
	{image: grootfs + "cloudfoundry.experimental.image.base-directory", golden: "images_grootfs_oci-test-image_cloudfoundry.experimental.image.base-directory"},
	{image: grootfs + "empty", choose: "v0.1.1", golden: "images_grootfs_oci-test-image_empty"},
	{image: grootfs + "garden-busybox", golden: "images_grootfs_oci-test-image_garden-busybox"},
	{image: grootfs + "garden-rootfs", golden: "images_grootfs_oci-test-image_garden-rootfs"},
	{image: grootfs + "non-writable-file", golden: "images_grootfs_oci-test-image_non-writable-file"},
	{image: grootfs + "non-writable-folder", golden: "images_grootfs_oci-test-image_non-writable-folder"},
	// A byte too few is stated for the manifest, and for the config.
	{image: grootfs + "opq-whiteouts-busybox", golden: "images_grootfs_oci-test-image_opq-whiteouts-busybox"},
	{image: grootfs + "zip-bomb", golden: "images_grootfs_oci-test-image_zip-bomb"},
	{image: "jib/busybox-docker.tar", golden: "images_jib_busybox-docker.tar"},
	{image: "jib/busybox-jib.tar", golden: "images_jib_busybox-jib.tar"},
	{image: "jib/extraction/docker-save.tar", golden: "images_jib_extraction_docker-save.tar"},
	{image: "oci-tools/hard-link-1", golden: "podman_images_oci-tools_hard-link-1"},
	{image: "oci-tools/hard-link-delete-1", golden: "podman_images_oci-tools_hard-link-delete-1"},
	{image: "oci-tools/hard-link-delete-2", golden: "podman_images_oci-tools_hard-link-delete-2"},
	{image: "oci-tools/hard-link-delete-xattr", golden: "podman_images_oci-tools_hard-link-delete-xattr"},
	{image: "oci-tools/hello-world-docker-v2-manifest", golden: "podman_images_oci-tools_hello-world-docker-v2-manifest"},
	{image: "oci-tools/hello-world-docker-v2-manifest-list", amd64: true, golden: "images_oci-tools_hello-world-docker-v2-manifest-list"},
	{image: "oci-tools/many-layers", golden: "podman_images_oci-tools_many-layers"},
	{image: "oci-tools/root-dir-entry", golden: "podman_images_oci-tools_root-dir-entry"},
	{image: "oci-tools/whiteout-explicit-dir", golden: "podman_images_oci-tools_whiteout-explicit-dir"},
	{image: "oci-tools/whiteout-explicit-file", golden: "podman_images_oci-tools_whiteout-explicit-file"},
	{image: "oci-tools/whiteout-opaque", golden: "podman_images_oci-tools_whiteout-opaque"},
	{image: "oci-tools/whiteout-opaque-end", golden: "podman_images_oci-tools_whiteout-opaque-end"},

	// Refused, also by containerd and podman.
	{image: grootfs + "4mb-image", refuse: remote.ErrDigest},
	{image: grootfs + "also-corrupted", refuse: remote.ErrDigest},
	{image: grootfs + "corrupted", refuse: remote.ErrDigest},
	{image: grootfs + "garden-busybox-remote", refuse: remote.ErrDigest},
	{image: grootfs + "grootfs-busybox", refuse: remote.ErrDigest},
	{image: grootfs + "invalid-config", refuse: remote.ErrNotFound},
	{image: grootfs + "noparents", refuse: remote.ErrNotFound},
	{image: "oci-tools/aufs-docker-v2-manifest", refuse: remote.ErrDigest},
	{image: "oci-tools/overlayfs-docker-v2-manifest", refuse: remote.ErrUnsupported},

	// Refused by imgfs only.
	{image: grootfs + "hardlink", refuse: remote.ErrDigest,
		why: "the manifest has another digest than its name says: containerd refuses, podman does not check the manifests of a layout"},
	{image: grootfs + "invalid-manifest-size-less-than-physical-size", refuse: remote.ErrDigest,
		why: "as hardlink; and the layer's size is wrong, which podman does not check"},
	{image: grootfs + "invalid-manifest-size-more-than-physical-size", refuse: remote.ErrDigest,
		why: "as hardlink; and the layer's size is wrong, which podman does not check"},

	// Accepted by imgfs only.
	{image: "oci-tools/hard-link-2", links: "a/b/bar+a/b/foo", why: lowerLink},
	{image: "oci-tools/hard-link-delete-3", links: "a/b/bar+a/b/baz", why: lowerLink},
	{image: "oci-tools/hard-link-delete-4", links: "a/b/baz+a/b/foo", why: lowerLink},

	// Nobody was asked for a tree.
	{image: grootfs + "tar-layer", links: "pokemon.txt", why: "no oci-layout file, which skopeo and umoci do not ask for either"},
	{image: "jib/extraction/jib-image.tar", why: "made by others than docker save, with directories only"},
	{image: "oci-tools/hello-world-cosign-manifest", choose: "@0", links: "hello", why: "the image beside its signatures"},
	{image: "oci-tools/hello-world-cosign-manifest-list", choose: "@0", amd64: true, links: "hello", why: "the image beside its signatures"},

	// Single layers, as images.
	{image: "fanal/opq.tar", links: "etc/test/test2"},
	{image: "fanal/opq2.tar", links: "etc/test/bar"},
	{image: "jib/extraction/not-compressed.tar", links: "hello"},
	{image: "jib/extraction/compressed.tar.gz", refuse: remote.ErrUnsupported, why: "it is no image, and not taken for one"},
	{image: "grootfs/hacked.tar", refuse: fs.ErrEscape, why: "F02: a name that climbs above the root"},
}

const (
	lowerLink = "E03: a hard link to a file that only a lower layer has; overlayfs drivers cannot make it, umoci and the vfs drivers do"
)

// goldenDeviations are the paths in which imgfs differs from a golden tree
// that it otherwise shows, by golden tree and path.
var goldenDeviations = map[string]map[string]string{
	"podman_images_oci-tools_hard-link-delete-1":     {"a/b/bar": lowerCount},
	"podman_images_oci-tools_hard-link-delete-2":     {"a/b/foo": lowerCount},
	"podman_images_oci-tools_hard-link-delete-xattr": {"a/b/bar": lowerCount},
}

const lowerCount = "E04: the other name is gone, and overlayfs still counts two links"

// TestGoldenImages compares the real images of the corpus with the trees that
// containerd and podman show of them.
func TestGoldenImages(t *testing.T) {
	testenv.Slow(t)
	images := testenv.Image(t, "")
	for _, c := range goldenCases {
		t.Run(c.image, func(t *testing.T) {
			got, err := treeOfCorpus(t, filepath.Join(images, c.image), c)
			if !errors.Is(err, c.refuse) || c.refuse == nil && err != nil {
				t.Fatalf("got error %v, want %v", err, c.refuse)
			}
			if err != nil {
				return
			}
			if c.golden == "" {
				if links := linksOf(got); c.links != "" && links != c.links {
					t.Errorf("got files %q, want %q", links, c.links)
				}
				return
			}
			compareGolden(t, c.golden, got, goldenTree(t, filepath.Join(filepath.Dir(images), "golden", c.golden+".jsonl.zst")))
		})
	}
}

// TestGoldenIsComplete: each image of the corpus is in the table, and each
// golden tree of one of them is compared or has a reason not to be.
func TestGoldenIsComplete(t *testing.T) {
	images := testenv.Image(t, "")
	known, reasons := map[string]goldenCase{}, map[string]bool{}
	for _, c := range goldenCases {
		known[c.image] = c
		reasons[c.golden] = true
	}
	err := filepath.WalkDir(images, func(p string, _ iofs.DirEntry, err error) error {
		name, _ := filepath.Rel(images, p)
		isImage := path.Base(p) == "index.json" || !strings.HasPrefix(name, "claircore/") && strings.Contains(path.Base(p), ".tar")
		if err != nil || !isImage {
			return err
		}
		if path.Base(p) == "index.json" {
			name = path.Dir(name)
		}
		if _, ok := known[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(filepath.Dir(images), "golden", "INDEX"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(index)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		_, name, _ := strings.Cut(f[0], ":")
		if f[1] != "ok" || reasons[name] {
			continue
		}
		image := strings.TrimPrefix(f[len(f)-1], "images/")
		if _, err := os.Stat(filepath.Join(images, image)); err != nil {
			t.Logf("the corpus no longer has %s", image)
		} else if known[image].why == "" {
			t.Errorf("%s: has a golden tree, %s, that nothing is compared with", image, name)
		}
	}
}

// A goldenRow is a path as the golden trees have it.
type goldenRow struct {
	Path    string            `json:"p"`
	Type    string            `json:"t"`
	Mode    uint32            `json:"m"`
	UID     uint32            `json:"u"`
	GID     uint32            `json:"g"`
	Size    int64             `json:"s"`
	MTime   int64             `json:"mt"`
	Hash    string            `json:"h"`
	Target  string            `json:"l"`
	Device  string            `json:"r"`
	FirstOf string            `json:"n"` // first path of several of a file
	Xattrs  map[string]string `json:"x"` // values in hex
}

func goldenTree(t *testing.T, file string) map[string]goldenRow {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	rows := map[string]goldenRow{}
	for dec := json.NewDecoder(z); ; {
		var r goldenRow
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return rows
		} else if err != nil {
			t.Fatal(err)
		}
		if r.Type != "f" {
			r.FirstOf = ""
		}
		rows[r.Path] = r
	}
}

// unpackedAt is after the time of everything in the images: a golden tree's
// directory that is younger has the time when it was unpacked.
const unpackedAt = 1795000000e9

func compareGolden(t *testing.T, name string, got, want map[string]goldenRow) {
	t.Helper()
	used := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, w := got[p], want[p]
		if p == anyRoot {
			continue // neither containerd nor podman applies an entry for the root, D04
		}
		if w.Type == "d" && w.MTime > unpackedAt {
			w.MTime = g.MTime
		}
		if fmt.Sprint(g) == fmt.Sprint(w) {
			continue
		}
		if goldenDeviations[name][p] == "" {
			t.Errorf("%q:\n got %+v\nwant %+v", p, g, w)
		}
		used[p] = true
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%q: got %+v, want nothing", p, g)
		}
	}
	for p := range goldenDeviations[name] {
		if !used[p] {
			t.Errorf("%q no longer differs", p)
		}
	}
}

// linksOf lists the files of a tree, those of one inode joined.
func linksOf(rows map[string]goldenRow) string {
	groups := map[string][]string{}
	for _, p := range slices.Sorted(maps.Keys(rows)) {
		if r := rows[p]; r.Type == "f" {
			first := cmp.Or(r.FirstOf, p)
			groups[first] = append(groups[first], p)
		}
	}
	var list []string
	for _, first := range slices.Sorted(maps.Keys(groups)) {
		list = append(list, strings.Join(groups[first], "+"))
	}
	return strings.Join(list, " ")
}

// treeOfCorpus opens an image of the corpus, or a layer as an image of its own.
func treeOfCorpus(t *testing.T, file string, c goldenCase) (map[string]goldenRow, error) {
	t.Helper()
	cache, err := cache.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	tree, err := openInCorpus(t, file, c, cache)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	return rowsOf(t, tree.Tree()), nil
}

// openInCorpus opens an image of the corpus, or a layer as an image of its own.
func openInCorpus(t *testing.T, file string, c goldenCase, cache *cache.Cache) (*image.Image, error) {
	t.Helper()
	opts := &image.Options{Cache: cache}
	if c.amd64 {
		opts.Platform = "linux/amd64"
	}
	name := "oci:" + file
	if info, err := os.Stat(file); err == nil && !info.IsDir() {
		name = "docker-archive:" + file
		if layer, err := os.ReadFile(file); err == nil && !bytes.Contains(layer, []byte("manifest.json\x00")) && !strings.HasSuffix(file, ".gz") {
			store := sourcetest.NewStore()
			src := store.Source(file, store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: layer}}}))
			img, err := remote.Open(t.Context(), src, opts.Platform)
			if err != nil {
				return nil, err
			}
			return image.New(t.Context(), img, opts)
		}
	}
	if c.choose != "" {
		name += ":" + c.choose
	}
	return image.Open(t.Context(), name, opts)
}

func rowsOf(t *testing.T, tree *fs.Tree) map[string]goldenRow {
	t.Helper()
	rows, first := map[string]goldenRow{}, map[uint64]string{}
	var walk func(p string, n fs.Node)
	walk = func(p string, n fs.Node) {
		a := n.Attr()
		types := map[uint32]string{unix.S_IFREG: "f", unix.S_IFDIR: "d", unix.S_IFLNK: "l", unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p"}
		r := goldenRow{Path: p, Type: types[a.Mode&unix.S_IFMT], Mode: a.Mode & 0o7777, UID: a.UID, GID: a.GID,
			MTime: a.ModSec*1e9 + int64(a.ModNsec), Target: n.Target()}
		if len(n.Xattrs()) > 0 {
			r.Xattrs = map[string]string{}
		}
		for _, x := range n.Xattrs() {
			r.Xattrs[x.Name] = hex.EncodeToString([]byte(x.Value))
		}
		if r.Type == "f" {
			if _, ok := first[n.Ino()]; !ok {
				first[n.Ino()] = p
			}
			if a.Nlink > 1 {
				r.FirstOf = first[n.Ino()]
			}
			r.Size, r.Hash = a.Size, hashOf(t, n)
		}
		rows[p] = r
		if r.Type == "d" {
			for name, child := range n.Children() {
				walk(path.Join(p, name), child)
			}
		}
	}
	walk(".", tree.Root())
	return rows
}

func hashOf(t *testing.T, n fs.Node) string {
	t.Helper()
	h, p := sha256.New(), make([]byte, 1<<20)
	for off := int64(0); off < n.Attr().Size; off += int64(len(p)) {
		size, err := n.ReadAt(t.Context(), p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		h.Write(p[:size])
	}
	return hex.EncodeToString(h.Sum(nil))
}
