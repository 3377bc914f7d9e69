//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A foreignImage is an image with indexes that other programs made, and what must
// serve its layers.
type foreignImage struct {
	name   string
	origin string // of the index of each layer: "imgfs" where those of others are of no use
	vouch  image.Voucher
	trust  string // --index-trust
	lost   string // "seconds", "empty", "both"
	// tree is the file of shared/corpora/foreign that says what the tree is.
	tree string
	// refused are words of the reason why the image cannot be mounted by a pass.
	refused string
}

// sharedForeign are the images of shared/corpora/foreign.
var sharedForeign = []foreignImage{
	{name: "sink-gzip", origin: "imgfs", vouch: image.VouchedHere, tree: "sink.tree"},
	{name: "sink-zstd", origin: "imgfs", vouch: image.VouchedHere, tree: "sink.tree"},
	{name: "sink-estargz", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds", tree: "sink.tree"},
	{name: "sink-estargz-prefetch", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds", tree: "sink.tree"},
	{name: "sink-estargz-min", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds", tree: "sink.tree"},
	{name: "sink-estargz-lossless", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds", tree: "sink.tree"},
	{name: "sink-estargz-ext", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "sink-stargz", origin: "imgfs", vouch: image.VouchedHere},
	{name: "sink-stargz", origin: "estargz", vouch: image.VouchedByRegistry, trust: "published", lost: "both"},
	{name: "sink-zstdchunked-stargz", origin: "zstd:chunked", vouch: image.VouchedByManifest, lost: "seconds", tree: "sink.tree"},
	{name: "sink-zstdchunked-g1", origin: "zstd:chunked", vouch: image.VouchedByManifest, lost: "empty", tree: "sink.tree"},
	{name: "sink-zstdchunked-g3", origin: "zstd:chunked", vouch: image.VouchedByManifest, tree: "sink.tree"},
	{name: "sink-soci-v1", origin: "imgfs", vouch: image.VouchedHere, tree: "sink.tree"},
	{name: "sink-soci-v1", origin: "soci", vouch: image.VouchedByRegistry, trust: "published", tree: "sink.tree"},
	{name: "sink-soci-v2", origin: "soci", vouch: image.VouchedByManifest, tree: "sink.tree"},
	{name: "sink-soci-v2-small", origin: "soci", vouch: image.VouchedByManifest, trust: "bound", tree: "sink.tree"},
	{name: "latin1-gzip", origin: "imgfs", vouch: image.VouchedHere, tree: "latin1.tree"},
	{name: "latin1-estargz", origin: "imgfs", vouch: image.VouchedHere, tree: "latin1.tree"},
	{name: "latin1-stargz", origin: "imgfs", vouch: image.VouchedHere, trust: "published"},
	{name: "latin1-zstdchunked-g1", origin: "imgfs", vouch: image.VouchedHere, tree: "latin1.tree"},
	{name: "latin1-zstdchunked-g3", origin: "zstd:chunked", vouch: image.VouchedByManifest, tree: "latin1.tree"},
	{name: "latin1-soci-v2", origin: "soci", vouch: image.VouchedByManifest, tree: "latin1.tree"},
	{name: "crosslink-estargz", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "dup-estargz-lossless", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "dup-estargz", refused: "link"},
	{name: "dot-estargz", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "dot-zstdchunked", origin: "zstd:chunked", vouch: image.VouchedByManifest},
	{name: "sparse-plain", origin: "imgfs", vouch: image.VouchedHere},
	{name: "soci-emptyfirst", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci-forty", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci-tar", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci-sparse-posix", origin: "imgfs", vouch: image.VouchedHere},
}

// ownForeign are images of the layers in layerindex/*/testdata.
var ownForeign = []foreignImage{
	{name: "estargz/build", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "estargz/prefetch", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "estargz/min", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "estargz/lossless", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "estargz/external", origin: "estargz", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "estargz/latin1", origin: "imgfs", vouch: image.VouchedHere},
	{name: "zstdchunked/podman", origin: "zstd:chunked", vouch: image.VouchedByManifest},
	{name: "zstdchunked/stargz", origin: "zstd:chunked", vouch: image.VouchedByManifest, lost: "seconds"},
	{name: "zstdchunked/latin1", origin: "zstd:chunked", vouch: image.VouchedByManifest},
	{name: "soci/plain", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci/blocks", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci/emptyfirst", origin: "soci", vouch: image.VouchedByManifest},
	{name: "soci/spans", origin: "soci", vouch: image.VouchedByManifest},
}

// TestForeignTrees mounts images with indexes that other programs made: each layer is
// read by the index that it should be, and the tree is the one that the layers have.
func TestForeignTrees(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	s := newSandbox(t)
	t.Run("own", func(t *testing.T) {
		for _, f := range ownForeign {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				reg := registrytest.New(t, nil)
				f.check(t, s.in(t), pushOwnForeign(t, reg, f.name))
			})
		}
	})
	t.Run("shared", func(t *testing.T) {
		for _, f := range sharedForeign {
			t.Run(strings.Trim(f.name+" "+f.trust, " "), func(t *testing.T) {
				t.Parallel()
				reg := registrytest.New(t, nil)
				f.check(t, s.in(t), pushForeign(t, reg, f.name))
			})
		}
	})
}

// check mounts the image by the index of others, and with none.
func (f *foreignImage) check(t *testing.T, s *sandbox, name string) {
	cacheOf := func(what string) string { return "--cache-dir=" + filepath.Join(t.TempDir(), what) }
	if f.refused != "" {
		for _, trust := range []string{"local", "published"} {
			s.fails(1, []string{f.refused}, "mount", cacheOf(trust), "--index-trust="+trust, name, s.mountpoint())
		}
		return
	}
	plain := s.mount(name, cacheOf("local"), "--index-trust=local")
	want := dumpOf(t, s.account, plain)
	s.umount(plain)
	flags := []string{cacheOf("foreign")}
	if f.trust != "" {
		flags = append(flags, "--index-trust="+f.trust)
	}
	expected := make(dump)
	for path, line := range want {
		expected[path] = f.shown(t, line)
	}
	var rows []indexRow
	if err := json.Unmarshal([]byte(s.ok(append([]string{"index", "--json", name}, flags...)...).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		f.checkUse(t, r.Digest, r.Index)
	}
	for _, offline := range []bool{false, true} {
		dir := s.mount(name, append(slices.Clone(flags), fmt.Sprint("--offline=", offline))...)
		checked := false
		for _, l := range s.stats(dir).Layers {
			// Once all of it has come the layer is checked, and read by our own index.
			if l.Index.Vouched == image.VouchedHere && l.Cached == l.Size {
				checked = true
			} else {
				f.checkUse(t, l.Digest, l.Index)
			}
		}
		got := dumpOf(t, s.account, dir)
		if checked {
			for path, line := range got {
				if line == want[path] {
					got[path] = expected[path]
				}
			}
		}
		compare(t, fmt.Sprint("offline=", offline), got, "expected", expected)
		s.umount(dir)
	}
	if f.tree != "" {
		compareTree(t, testenv.Foreign(t, f.tree), want)
	}
	if r := s.ok("cache", "verify", flags[0]); strings.Contains(r.stdout, "wrong") || strings.Contains(r.stdout, "unknown") {
		t.Errorf("cache verify: %s", r.stdout)
	}
}

// checkUse checks by which index a layer is read.
func (f *foreignImage) checkUse(t *testing.T, layer digest.Digest, u image.IndexUse) {
	t.Helper()
	if u.Origin != f.origin || u.Vouched != f.vouch || (u.Lost != "") != (f.lost != "") || (u.From != "") != (f.origin == "soci") {
		t.Errorf("layer %.20s is read by %+v; want %s by %s that lost %q", layer, u, f.origin, f.vouch, f.lost)
	}
}

var (
	dumpTime  = regexp.MustCompile(`mtime=(-?\d+)\.(\d{9})`)
	dumpXattr = regexp.MustCompile(`xattrs=(\[.*\]) sha256=`)
)

// shown is a line of a dump as an index shows it that cannot say all.
func (f *foreignImage) shown(t *testing.T, line string) string {
	if f.lost == "seconds" || f.lost == "both" {
		line = dumpTime.ReplaceAllStringFunc(line, func(text string) string {
			m := dumpTime.FindStringSubmatch(text)
			sec, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			nsec, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("mtime=%d.%09d", time.Unix(sec, nsec).Round(time.Second).Unix(), 0)
		})
	}
	if f.lost == "empty" || f.lost == "both" {
		line = dumpXattr.ReplaceAllStringFunc(line, func(text string) string {
			kept := []string{}
			for _, x := range xattrsIn(t, dumpXattr.FindStringSubmatch(text)[1]) {
				if !strings.HasSuffix(x, "=") {
					kept = append(kept, x)
				}
			}
			return fmt.Sprintf("xattrs=%q sha256=", kept)
		})
	}
	return line
}

// xattrsIn parses what %q makes of a list.
func xattrsIn(t *testing.T, list string) (xattrs []string) {
	for list = strings.Trim(list, "[]"); list != ""; list = strings.TrimPrefix(list, " ") {
		quoted, err := strconv.QuotedPrefix(list)
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		text, _ := strconv.Unquote(quoted)
		xattrs, list = append(xattrs, text), list[len(quoted):]
	}
	return xattrs
}

var dumpLine = regexp.MustCompile(`^mode=(\d+) owner=(\d+:\d+) links=(\d+) size=(\d+) mtime=(-?\d+)\.(\d{9}) rdev=(\d+:\d+) group=(".*") target=(".*") xattrs=(\[.*\]) sha256=(\w*)$`)

// compareTree compares a dump with a file of treedump.py.
func compareTree(t *testing.T, file string, got dump) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := make(dump)
	for line := range strings.Lines(string(text)) {
		path, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		want[path] = rest
	}
	lines := make(dump)
	for quoted, line := range got {
		path, err := strconv.Unquote(quoted)
		m := dumpLine.FindStringSubmatch(line)
		if err != nil || m == nil {
			t.Fatalf("%s: %s", quoted, line)
		}
		if path == "" {
			path = "/"
		}
		mode, _ := strconv.ParseUint(m[1], 8, 32)
		kind := map[uint64]string{0o10: "f", 0o4: "d", 0o12: "l", 0o2: "c", 0o6: "b", 0o1: "p"}[mode>>12]
		group, target, sum := "-", "-", "-"
		if kind != "d" && m[3] != "1" {
			group, _ = strconv.Unquote(m[8])
		}
		if kind == "l" {
			target, _ = strconv.Unquote(m[9])
		}
		if kind == "f" {
			sum = m[11][:16]
		}
		var xattrs []string
		for _, x := range xattrsIn(t, m[10]) {
			name, value, _ := strings.Cut(x, "=")
			xattrs = append(xattrs, fmt.Sprintf("%s=%x", name, value))
		}
		sec, _ := strconv.ParseInt(m[5], 10, 64)
		nsec, _ := strconv.ParseInt(m[6], 10, 64)
		when := new(big.Int).Mul(big.NewInt(sec), big.NewInt(1e9))
		when.Add(when, big.NewInt(nsec))
		size := "0"
		if kind == "f" || kind == "l" {
			size = m[4]
		}
		lines[path] = strings.Join([]string{kind, fmt.Sprintf("%o", mode&0o7777), m[2], size, when.String(), m[7], group, target, strings.Join(xattrs, ","), sum}, "\t")
	}
	compare(t, "mount", lines, filepath.Base(file), want)
}

// TestIndexRowIsOfNow: a row of imgfs index is about the index that the layer is read by in
// the end. A table of contents does not say how big the tar is.
func TestIndexRowIsOfNow(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image := pushOwnForeign(t, reg, "estargz/build")
	row := func(args ...string) (row indexRow) {
		t.Helper()
		var rows []indexRow
		if err := json.Unmarshal([]byte(succeed(t, append([]string{"index", "--json"}, args...)...)), &rows); err != nil || len(rows) != 1 {
			t.Fatalf("got %+v and error %v", rows, err)
		}
		return rows[0]
	}
	own := row("--cache-dir", t.TempDir(), "--index-trust=local", image)
	disk := t.TempDir()
	if r := row("--cache-dir", disk, image); r.Index.Origin != "estargz" || r.TarSize != 0 {
		t.Errorf("by the table of contents: got %+v", r)
	}
	if lines := strings.Split(succeed(t, "index", "--bytes", "--cache-dir", disk, image), "\n"); strings.Fields(lines[1])[2] != "-" {
		t.Errorf("by the table of contents: got row %q", lines[1])
	}
	r := row("--cache-dir", disk, "--fetch", image)
	if r.Index.Origin != "imgfs" || r.TarSize != own.TarSize || r.Entries != own.Entries || r.Spans != own.Spans || r.IndexBytes != own.IndexBytes {
		t.Errorf("all of it is here: got %+v, want what a pass gives, %+v", r, own)
	}
}

// pushForeign lets a registry hold an image of shared/corpora/foreign, and returns its
// name.
func pushForeign(t *testing.T, reg *registrytest.Server, name string) string {
	t.Helper()
	dir := testenv.Foreign(t, name)
	if err := reg.PushLayout(dir, "foreign"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	if first := index.Manifests[0]; first.Annotations[ocispec.AnnotationRefName] == "" { // soci names none
		reg.Tag("foreign", "latest", first.Digest)
	}
	return reg.Host() + "/foreign:latest"
}

// A testdataLayer is what layers.json says of a layer.
type testdataLayer struct {
	Annotations map[string]string `json:"annotations"`
	DiffID      digest.Digest     `json:"diff_id"`
}

// pushOwnForeign lets a registry hold an image of a layer in layerindex/*/testdata, and
// returns its name.
func pushOwnForeign(t *testing.T, reg *registrytest.Server, name string) string {
	t.Helper()
	format, layer, _ := strings.Cut(name, "/")
	dir := filepath.Join("..", "..", "layerindex", format, "testdata")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	store := sourcetest.NewStore()
	img := sourcetest.Image{Layers: []sourcetest.Layer{{MediaType: ocispec.MediaTypeImageLayerGzip}}}
	l := &img.Layers[0]
	switch format {
	case "soci":
		l.Content = gunzip(t, read(layer+".layer.gz"))
		l.DiffID = digest.FromBytes(l.Content)
		if bytes.HasPrefix(l.Content, []byte{0x1f, 0x8b}) {
			l.DiffID = digest.FromBytes(gunzip(t, l.Content))
		}
		index := pushSOCI(reg, "app", digest.FromBytes(l.Content), gunzip(t, read(layer+".ztoc.gz")), soci.ArtifactTypeV2, nil)
		img.Annotations = map[string]string{soci.AnnotationIndex: index.Digest.String()}
	default:
		var all map[string]testdataLayer
		if err := json.Unmarshal(read("layers.json"), &all); err != nil {
			t.Fatal(err)
		}
		if format == "zstdchunked" {
			l.MediaType = ocispec.MediaTypeImageLayerZstd
		}
		l.Content, l.DiffID, l.Annotations = read(layer+".layer"), all[layer].DiffID, all[layer].Annotations
	}
	image := publishStore(reg, store, store.AddImage(img))
	if layer == "external" {
		toc := reg.PutBlob(ocispec.MediaTypeImageLayerGzip, read("external.toc"))
		toc.Annotations = map[string]string{"containerd.io/snapshot/stargz/layer.digest": digest.FromBytes(l.Content).String()}
		reg.PutArtifact("app", "latest-esgztoc", ocispec.Manifest{Layers: []ocispec.Descriptor{toc}})
	}
	return image
}

// pushSOCI lets a registry hold a SOCI index of one layer.
func pushSOCI(reg *registrytest.Server, repository string, layer digest.Digest, ztoc []byte, artifactType string, subject *ocispec.Descriptor) ocispec.Descriptor {
	desc := reg.PutBlob("application/octet-stream", ztoc)
	desc.Annotations = map[string]string{"com.amazon.soci.image-layer-digest": layer.String()}
	config := reg.PutBlob(artifactType, []byte("{}"))
	return reg.PutArtifact(repository, "", ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{desc}, Subject: subject})
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestForeignSparse: what programs make of a sparse file is no tar any more, though the
// table of contents may be right. That the layer is refused once all of it has been read
// is remembered.
func TestForeignSparse(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	s := newSandbox(t)
	for _, name := range []string{"sparse-estargz-lossless", "sparse-zstdchunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			image := pushForeign(t, registrytest.New(t, nil), name)
			cache := "--cache-dir=" + t.TempDir()
			says := []string{"/sparse\"", "invalid tar"}
			s.fails(1, says, "mount", "--index-trust=local", cache, image, s.mountpoint())
			s.fails(1, says, "index", "--fetch", cache, image)
			s.fails(1, says, "mount", cache, image, s.mountpoint())
		})
	}
}

// TestForeignKilled: a server that reads by an index of others is killed, and the next one
// finds what it left.
func TestForeignKilled(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	s := newSandbox(t)
	for _, name := range []string{"zstdchunked/podman", "soci/spans"} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			image := pushOwnForeign(t, registrytest.New(t, nil), name)
			dir := s.mount(image, "--no-recover")
			use := s.stats(dir).Layers[0].Index
			want := dumpOf(t, s.account, dir)
			pid := s.daemon(dir)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.waitGone(dir)
			s.ok("umount", dir)
			dir = s.mount(image, "--offline")
			if l := s.stats(dir).Layers[0]; l.Index != use && l.Index.Vouched != "local" {
				t.Errorf("it is read by %+v, before by %+v", l.Index, use)
			}
			compare(t, "then", dumpOf(t, s.account, dir), "before", want)
			s.umount(dir)
		})
	}
}

// TestMountIndexRepoDown: an index repository that refuses, hangs or sends garbage costs a
// mount a little while, and a line that says why.
func TestMountIndexRepoDown(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	s := newSandbox(t)
	for name, fault := range map[string]func(repo *registrytest.Server) registrytest.Fault{
		"refuses": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(401) },
		"hangs":   func(repo *registrytest.Server) registrytest.Fault { return repo.Stall(-1) },
		"page":    func(*registrytest.Server) registrytest.Fault { return registrytest.Page() },
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			image, _ := publish(t, registrytest.New(t, nil), threeLayers()...)
			repo := registrytest.New(t, nil)
			repo.Inject(registrytest.Manifest, registrytest.Always(fault(repo)))
			dir := s.mountpoint()
			r := s.ok("mount", "--cache-dir="+t.TempDir(), "--index-repo="+repo.Host()+"/idx", image, dir)
			if r.took > 8*time.Second { // with three layers to read
				t.Errorf("it took %v", r.took)
			}
			if n := strings.Count(r.stderr, repo.Host()); n < 1 || strings.Count(r.stderr, "no indexes come from") != 1 {
				t.Errorf("it says:\n%s", r.stderr)
			}
			for _, l := range s.stats(dir).Layers {
				if l.Index.Vouched != "local" {
					t.Errorf("a layer is read by %+v", l.Index)
				}
			}
			s.umount(dir)
		})
	}
}
