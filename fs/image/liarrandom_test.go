package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// oddLayer is a gzip layer with every kind of entry.
func oddLayer(t *testing.T) sourcetest.Layer {
	t.Helper()
	var b, blob bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Unix(1_700_000_000, 123_456_789)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 3},
		{Typeflag: tar.TypeReg, Name: "./a", Size: 700, Mode: 0o4755, ModTime: at},
		{Typeflag: tar.TypeReg, Name: "b", Size: 0},
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1777, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1", "SCHILY.xattr.user.e": ""}},
		{Typeflag: tar.TypeReg, Name: "d/c", Size: 70_000, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "\x00\xff"}},
		{Typeflag: tar.TypeLink, Name: "d/l", Linkname: "a"},
		{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "../a/./b"},
		{Typeflag: tar.TypeChar, Name: "n", Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeBlock, Name: "m", Devmajor: 259, Devminor: 70000},
		{Typeflag: tar.TypeFifo, Name: "p"},
		{Typeflag: tar.TypeReg, Name: "d/.wh.x"},
		{Typeflag: tar.TypeReg, Name: "e/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "e/f", Size: 3000, Gid: 1 << 31},
		{Typeflag: tar.TypeReg, Name: "b", Size: 5, ModTime: time.Unix(-5, 0)},
		{Typeflag: tar.TypeReg, Name: "e/g", Size: 70_000},
	} {
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(random(uint64(h.Size), int(h.Size)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	gw := gzip.NewWriter(&blob)
	gw.Write(b.Bytes())
	if err := gw.Close(); err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromBytes(b.Bytes())}
}

// lies changes entries at random so that they may be those of an index.
func lies(rng *rand.Rand, list []layerindex.Entry) []layerindex.Entry {
	pick := func() *layerindex.Entry { return &list[rng.IntN(len(list))] }
	for range 1 + rng.IntN(2) {
		e := pick()
		switch rng.IntN(17) {
		case 0:
			e.Name = []string{"./" + e.Name, "/" + e.Name, e.Name + "/", "x/../" + e.Name, "", ".", e.Name + "x", pick().Name}[rng.IntN(8)]
		case 1:
			e.Mode ^= 1 << rng.IntN(12)
		case 2:
			e.UID, e.GID = e.UID^uint32(rng.IntN(2)), e.GID^uint32(rng.IntN(2))
		case 3:
			e.ModSec += int64(rng.IntN(3) - 1)
		case 4:
			e.ModNsec = uint32(rng.IntN(1_000_000_000))
		case 5:
			e.Xattrs = append([]layerindex.Xattr{{Name: []string{"user.a", "user.x", "trusted.overlay.opaque"}[rng.IntN(3)], Value: []string{"", "y"}[rng.IntN(2)]}}, e.Xattrs...)
		case 6:
			e.Xattrs = nil
		case 7:
			e.Linkname = []string{"d/c", "./a", "/a", "b"}[rng.IntN(4)]
		case 8:
			if e.Type == layerindex.TypeReg {
				e.Off += 512 * int64(rng.IntN(3)-1)
			}
		case 9:
			if e.Type == layerindex.TypeReg {
				e.Size = max(0, e.Size+int64(rng.IntN(3)-1))
			}
		case 10:
			if e.HasDigest {
				e.Digest[rng.IntN(32)] ^= 1
			}
		case 11:
			e.HasDigest = false
		case 12:
			i := rng.IntN(len(list))
			list = append(list[:i:i], list[i+1:]...)
		case 13:
			i := rng.IntN(len(list))
			list = append(list[:i:i], append([]layerindex.Entry{*pick()}, list[i:]...)...)
		case 14:
			i, j := rng.IntN(len(list)), rng.IntN(len(list))
			list[i], list[j] = list[j], list[i]
		case 15:
			if e.Type == layerindex.TypeReg && e.Size > 2 {
				e.HasDigest, e.Sparse = false, []layerindex.Extent{{Off: 0, Size: 1}, {Off: 1 + int64(rng.IntN(2)), Size: e.Size - 2}}
			}
		case 16:
			e.Type = []layerindex.Type{layerindex.TypeReg, layerindex.TypeDir, layerindex.TypeFifo, layerindex.TypeChar, layerindex.TypeSymlink, layerindex.TypeLink}[rng.IntN(6)]
			e.Major, e.Minor = uint32(rng.IntN(2)), uint32(rng.IntN(2))
		}
	}
	return list
}

// TestLiarsAreFound: an index that comes through the check, whatever it says, has shown
// what the layer has.
func TestLiarsAreFound(t *testing.T) {
	testenv.Slow(t)
	layer := oddLayer(t)
	honest := newLiarRegistry(t, layer)
	opts, _ := honest.options()
	want, _ := dumpOf(t, honest.mustOpen(opts))
	count := map[string]int{}
	for seed := range mutations() / 2 {
		rng := rand.New(rand.NewPCG(seed, 16))
		lie, err := honest.tryEdited(func(list []layerindex.Entry) []layerindex.Entry { return lies(rng, list) })
		if err != nil {
			count["no index"]++
			continue
		}
		honest.publish(lie)
		opts, _ := honest.options()
		opts.Debugf = nil
		img, err := honest.open(opts)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		judge(t, seed, img, want, count)
		img.Close()
	}
	if uint64(count["liar"]) < mutations()/8 || uint64(count["passed"]) < mutations()/20 {
		t.Errorf("too few of a kind: %v", count)
	}
}

// TestHonestTOC: a table of contents that says all that eStargz can say of a layer comes
// through the check, however odd names and times are.
func TestHonestTOC(t *testing.T) {
	t.Parallel()
	var entries []tarEntry
	add := func(h tar.Header, content string) {
		h.Format, h.Size = tar.FormatPAX, int64(len(content))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		entries = append(entries, tarEntry{Header: h, content: content})
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700, Uid: 5}, "")
	for i, at := range []time.Time{
		time.Unix(0, 0), time.Unix(0, 700_000_000), time.Unix(-1, 700_000_000), time.Unix(-5, 500_000_000), time.Unix(1, 500_000_000),
		time.Unix(1_700_000_000, 499_999_999), time.Unix(13_569_465_600, 999_999_999),
	} {
		add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("./at", i), ModTime: at}, fmt.Sprint("content ", i))
	}
	for _, name := range []string{"./dot", "/abs", "a//b", "a/./c", "é", strings.Repeat("long/", 50) + "name", ".wh.gone", "sub/.wh..wh..opq"} {
		add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, "")
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "noslash", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.b": "\xff", "SCHILY.xattr.user.a": ""}}, "")
	add(tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "./dot"}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "twice"}, "one")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./twice", Uid: 1 << 31, Gid: 1<<32 - 2}, "two")
	layer := estargzLayer(t, entries, func(x toc) toc {
		for i, e := range x {
			// stargz-snapshotter, estargz/build.go, formatModtime.
			e["modtime"] = entries[i].ModTime.UTC().Round(time.Second).Format(time.RFC3339)
			if entries[i].ModTime.Unix() == 0 {
				delete(e, "modtime")
			}
		}
		return x
	})
	s := serve(t, registrytest.New(t, nil), sourcetest.Image{Layers: []sourcetest.Layer{layer}})
	img := s.mustOpen("estargz", image.VouchedByManifest)
	if err := image.Check(t.Context(), img); err != nil {
		t.Error(err)
	}
	if u := img.Layers()[0].Use(); u.Vouched != image.VouchedHere {
		t.Errorf("then read by %+v", u)
	}
}

// dumpOf returns all of a tree with its contents; the error is that of reading.
func dumpOf(t *testing.T, img *image.Image) (string, error) {
	t.Helper()
	var b strings.Builder
	err := img.Tree().Dump(t.Context(), &b, true)
	return b.String(), err
}

// judge checks an image that was opened with a random index, and counts what it was. What
// comes through the check, or is not used, has shown what is wanted.
func judge(t *testing.T, seed uint64, img *image.Image, want string, count map[string]int) {
	t.Helper()
	by := image.Uses(img)[0].Vouched
	shown, unread := dumpOf(t, img)
	err := image.Check(t.Context(), img)
	again, unreadAgain := dumpOf(t, img)
	switch {
	case errors.Is(err, image.ErrLiar):
		if count["liar"]++; unreadAgain == nil && strings.Contains(again, "\tf\t") {
			t.Errorf("seed %d: a liar is read: %v\n%s", seed, err, again)
		}
	case err != nil:
		t.Errorf("seed %d: %v", seed, err)
	case by == image.VouchedHere:
		count["unused"]++
	default:
		count["passed"]++
	}
	if err != nil {
		return
	}
	if unread != nil && !errors.Is(unread, image.ErrLiar) {
		t.Errorf("seed %d: it could not be read: %v", seed, unread)
	}
	if unread == nil && shown != want || unreadAgain != nil || again != want {
		t.Errorf("seed %d, by %s: shown\n%s\nthen\n%s, %v\nwant\n%s", seed, by, shown, again, unreadAgain, want)
	}
}

// mutations is how many changed indexes are tried: fewer with the race detector, with which
// each takes three times as long.
func mutations() uint64 {
	if testenv.Race {
		return 40
	}
	return 400
}

// TestMutatedZtoc: a ztoc with wrong bytes, of which the manifest has the digest, is not
// used, found out, or harmless.
func TestMutatedZtoc(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	l := memberLayer(t, 6, standard())
	right := ztocOf(t, l)
	want, _ := dumpOf(t, serveSOCI(t, l, right).mustOpen("soci", image.VouchedByManifest))
	at := bytes.Index(right, binary.LittleEndian.AppendUint64(nil, spanSize)) // behind it are windows
	count := map[string]int{}
	for seed := range mutations() {
		rng := rand.New(rand.NewPCG(seed, 16))
		ztoc := bytes.Clone(right)
		for range 1 + rng.IntN(3) {
			k := rng.IntN(len(ztoc))
			if seed%8 != 0 {
				k = rng.IntN(at + 8)
				if rng.IntN(2) == 0 {
					k = len(ztoc) - 1 - rng.IntN(3000)
				}
			}
			ztoc[k] ^= 1 << rng.IntN(8)
		}
		s := serveSOCI(t, l, ztoc)
		img, err := s.open()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		judge(t, seed, img, want, count)
		img.Close()
	}
	if t.Log(count); uint64(min(count["liar"], count["unused"])) < mutations()/40 {
		t.Errorf("too few of a kind: %v", count)
	}
}

// TestMutatedTOC is TestMutatedZtoc for eStargz.
func TestMutatedTOC(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	want, _ := dumpOf(t, serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, standard(), nil)}}).mustOpen("estargz", image.VouchedByManifest))
	count := map[string]int{}
	for seed := range mutations() {
		rng := rand.New(rand.NewPCG(seed, 16))
		l := estargzLayer(t, standard(), func(x toc) toc {
			for range 1 + rng.IntN(2) {
				e := x[rng.IntN(len(x))]
				keys := slices.Sorted(maps.Keys(e))
				k := keys[rng.IntN(len(keys))]
				switch v := e[k].(type) {
				case int:
					e[k] = max(0, v+[]int{-512, -1, 1, 512, 10_000}[rng.IntN(5)])
				case int64:
					e[k] = max(0, v+int64(rng.IntN(3)-1))
				case string:
					e[k] = []string{v + "x", "", "./" + v, "reg", "dir", "symlink", "d/two", "2030-01-01T00:00:00Z"}[rng.IntN(8)]
				case digest.Digest:
					e[k] = x[rng.IntN(len(x))]["digest"]
				default:
					delete(e, k)
				}
				if rng.IntN(6) == 0 {
					i, j := rng.IntN(len(x)), rng.IntN(len(x))
					x[i], x[j] = x[j], x[i]
				}
			}
			return x
		})
		img, err := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}}).open()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		judge(t, seed, img, want, count)
		img.Close()
	}
	if t.Log(count); uint64(min(count["liar"], count["unused"])) < mutations()/40 {
		t.Errorf("too few of a kind: %v", count)
	}
}
