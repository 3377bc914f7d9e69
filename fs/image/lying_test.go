package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	iofs "io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A lie is what a table of contents says otherwise than the layer.
type lie struct {
	edit func(toc) toc
	says string // by the check, of which entry
}

func set(name, key string, value any) func(toc) toc {
	return func(x toc) toc {
		x.entry(name)[key] = value
		return x
	}
}

// tocLies has an example of each thing that a table of contents says.
func tocLies() map[string]lie {
	return map[string]lie{
		"mode":              {edit: set("d/one", "mode", 0o777), says: `the mode of entry "d/one"`},
		"owner":             {edit: set("d/one", "uid", 0), says: `the owner of entry "d/one"`},
		"name":              {edit: set("d/one", "name", "d/eno"), says: `the name of entry "d/one"`},
		"digest":            {edit: set("d/two", "digest", digest.FromString("other")), says: `the digest of the content of entry "d/two"`},
		"symbolic link":     {edit: set("soft", "linkName", "d/two"), says: `the link target of entry "soft"`},
		"hard link":         {edit: set("hard", "linkName", "d/one"), says: `the link target of entry "hard"`},
		"attribute":         {edit: set("d/two", "xattrs", map[string][]byte{"user.a": []byte("c")}), says: `the attributes of entry "d/two"`},
		"further attribute": {edit: set("d/one", "xattrs", map[string][]byte{"security.capability": []byte("c")}), says: `the attributes of entry "d/one"`},
		"time":              {edit: set("d/one", "modtime", "2020-01-01T00:00:00Z"), says: `the time of entry "d/one"`},
		"device":            {edit: set("null", "devMinor", 5), says: `the device number of entry "null"`},
		"type":              {edit: set("d/empty", "type", "fifo"), says: `the type of entry "d/empty"`},
		"left out":          {edit: func(x toc) toc { return x[:len(x)-1] }, says: `it lacks entry "last"`},
		"left out within":   {edit: func(x toc) toc { return slices.Delete(x, 1, 2) }, says: `entry "d/one"`},
		"added": {edit: func(x toc) toc {
			return append(x, map[string]any{"name": "su", "type": "symlink", "linkName": "d/one", "mode": 0o777})
		}, says: `it has entry "su", which is not there`},
		"content of another": {edit: func(x toc) toc {
			one, two := x.entry("d/one"), x.entry("d/two")
			for _, k := range []string{"offset", "digest", "chunkDigest", "chunkSize", "chunkOffset"} {
				one[k] = two[k]
			}
			one["digest"] = digest.FromString(text(30_000))
			two["type"], two["name"] = "dir", "d/3"
			for _, e := range x {
				if e["type"] == "chunk" {
					e["name"] = "d/one"
				}
			}
			x = slices.DeleteFunc(x, func(e map[string]any) bool { return e["name"] == "d/3" || e["name"] == "hard" })
			return x
		}, says: `the content of entry "d/one"`},
		"size": {edit: func(x toc) toc {
			e := x.entry("last")
			e["size"], e["digest"], e["chunkDigest"] = 3, digest.FromString("the"), digest.FromString("the")
			return x
		}, says: `the size of entry "last"`},
		"order": {edit: func(x toc) toc {
			i := slices.IndexFunc(x, func(e map[string]any) bool { return e["name"] == "soft" })
			x[i], x[i+1] = x[i+1], x[i]
			return x
		}, says: `entry "soft"`},
	}
}

// TestLyingTOC: the manifest binds a table of contents that says something else than the
// layer. It is believed until all of the layer has been read; then every reader is told,
// and the next tree is right.
func TestLyingTOC(t *testing.T) {
	t.Parallel()
	entries := standard()
	for name, l := range tocLies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, entries, l.edit)}})
			first := s.mustOpen("estargz", image.VouchedByManifest)
			second := s.mustOpen("estargz", image.VouchedByManifest)
			checkLiar(t, s, l.says, first, second)
			next := s.mustOpen("imgfs", image.VouchedHere)
			s.hasAll(next, entries)
			if warns := s.said(); len(warns) > 0 {
				t.Errorf("the next tree: warned of %q", warns)
			}
		})
	}
}

// checkLiar checks the layer of the first of some images, and what is told then.
func checkLiar(t *testing.T, s *served, says string, all ...*image.Image) {
	t.Helper()
	if warns := s.said(); len(warns) > 0 {
		t.Errorf("before: warned of %q", warns)
	}
	err := image.Check(t.Context(), all[0])
	if !errors.Is(err, image.ErrLiar) || !strings.Contains(err.Error(), says) {
		t.Fatalf("the check says %v, want %s", err, says)
	}
	if warns := s.said(); len(warns) != 1 || !strings.Contains(warns[0], says) {
		t.Errorf("warned of %q", warns)
	}
	for i, img := range all {
		for range 2 {
			files := 0
			iofs.WalkDir(img.FS(t.Context()), ".", func(path string, e iofs.DirEntry, err error) error {
				if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
					return nil
				}
				files++
				if got, err := iofs.ReadFile(img.FS(t.Context()), path); !errors.Is(err, image.ErrLiar) {
					t.Errorf("tree %d: %s: read %d bytes, %v", i, path, len(got), err)
				}
				return nil
			})
			if files == 0 {
				t.Errorf("tree %d has no files", i)
			}
		}
		if v := img.Stats().Layers[0].Verified; v != meta.VerifiedWrong {
			t.Errorf("tree %d is verified: %v", i, v)
		}
	}
	if err := image.Check(t.Context(), all[0]); !errors.Is(err, image.ErrLiar) {
		t.Errorf("checked again: %v", err)
	}
	// Each further tree tells of it, too: it may be of another mount.
	if warns := s.said(); len(warns) > len(all)-1 {
		t.Errorf("then warned of %q", warns)
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Cache.Dir(), "*", "sha256", "*-*")); slices.ContainsFunc(left, func(f string) bool { return !strings.Contains(f, "/verified/") }) {
		t.Errorf("in the cache is left %q", left)
	}
}

// TestFalseIsRemembered: an index that was found to be false is not used again, though
// there is no index of our own.
func TestFalseIsRemembered(t *testing.T) {
	t.Parallel()
	entries := standard()
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, entries, set("d/one", "mode", 0o777))}})
	if err := image.Check(t.Context(), s.mustOpen("estargz", image.VouchedByManifest)); !errors.Is(err, image.ErrLiar) {
		t.Fatal(err)
	}
	s.said()
	own, _ := filepath.Glob(filepath.Join(s.opts.Cache.Dir(), "indexes", "sha256", "*"))
	for _, f := range own {
		removeFile(t, f)
	}
	s.useCache(s.opts.Cache.Dir())
	s.hasAll(s.mustOpen("imgfs", image.VouchedHere), entries)
	if warns := s.said(); len(warns) != 1 || !strings.Contains(warns[0], "eStargz table of contents is not used") {
		t.Errorf("warned of %q", warns)
	}
}

// TestInvalidTar: a table of contents is right, and what is around the contents is no
// tar. That is found out, and then nothing of the layer is read again.
func TestInvalidTar(t *testing.T) {
	t.Parallel()
	entries := standard()
	bad := estargzOf(t, entries, nil, func(p []byte) {
		if bytes.HasPrefix(p, []byte("null\x00")) {
			copy(p[148:], "0000000\x00") // the header's checksum
		}
	})
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{bad}})
	first := s.mustOpen("estargz", image.VouchedByManifest)
	s.hasAll(first, entries)
	checkLiar(t, s, "invalid tar", first)
	for range 2 {
		if _, err := s.open(); err == nil || !strings.Contains(err.Error(), "invalid tar") {
			t.Errorf("opened again: %v", err)
		}
		if warns := s.said(); len(warns) != 1 {
			t.Errorf("warned of %q", warns)
		}
	}
}

// A sociLie is a layer that has what a ztoc says in place of the right one.
type sociLie struct {
	change func(entries []tarEntry)
	says   string
}

var sociLies = map[string]sociLie{
	"mode":   {func(e []tarEntry) { e[1].Mode = 0o777 }, `the mode of entry "d/one"`},
	"owner":  {func(e []tarEntry) { e[1].Uid = 1 }, `the owner of entry "d/one"`},
	"name":   {func(e []tarEntry) { e[1].Name = "d/eno" }, `the name of entry "d/one"`},
	"link":   {func(e []tarEntry) { e[4].Linkname = "d/two" }, `the link target of entry "soft"`},
	"time":   {func(e []tarEntry) { e[1].ModTime = e[1].ModTime.Add(time.Second) }, `the time of entry "d/one"`},
	"device": {func(e []tarEntry) { e[6].Devminor = 5 }, `the device number of entry "null"`},
	"xattr":  {func(e []tarEntry) { e[2].PAXRecords = map[string]string{"SCHILY.xattr.user.a": "c"} }, `the attributes of entry "d/two"`},
	"order":  {func(e []tarEntry) { e[1], e[2] = e[2], e[1] }, `the name of entry "d/one"`},
}

// lyingZtoc returns a layer, and the ztoc of one that differs in its entries, with the
// digests and windows of the right one: all that proves something is right.
func lyingZtoc(t *testing.T, change func(entries []tarEntry)) (sourcetest.Layer, []byte) {
	t.Helper()
	entries := standard()
	l := memberLayer(t, 0, entries)
	change(entries)
	right, wrong := ztocOf(t, l), ztocOf(t, memberLayer(t, 0, entries))
	from, to := bytes.Split(right, []byte("sha256:")), bytes.Split(wrong, []byte("sha256:"))
	if len(from) != len(to) {
		t.Fatalf("ztocs of %d and %d spans", len(from)-1, len(to)-1)
	}
	for i := range from {
		if i > 0 {
			copy(to[i][:64], from[i])
		}
	}
	wrong = bytes.Join(to, []byte("sha256:"))
	return l, wrong
}

// TestLyingZtoc is TestLyingTOC for SOCI, of both versions.
func TestLyingZtoc(t *testing.T) {
	t.Parallel()
	for name, lie := range sociLies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, ztoc := lyingZtoc(t, lie.change)
			s := serveSOCI(t, l, ztoc)
			checkLiar(t, s, lie.says, s.mustOpen("soci", image.VouchedByManifest), s.mustOpen("soci", image.VouchedByManifest))
			s.hasAll(s.mustOpen("imgfs", image.VouchedHere), standard())
		})
	}
	l, ztoc := lyingZtoc(t, sociLies["mode"].change)
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	pushSOCI(s.reg, digest.FromBytes(l.Content), ztoc, &s.top)
	s.opts.IndexTrust = image.TrustPublished
	first := s.mustOpen("soci", image.VouchedByRegistry)
	checkLiar(t, s, sociLies["mode"].says, first)
}

// TestLyingZtocHurtsNoOther: two images have one layer. That the ztoc of the one is found
// to be false is no fault of the other's, which has the same spans.
func TestLyingZtocHurtsNoOther(t *testing.T) {
	t.Parallel()
	l, ztoc := lyingZtoc(t, sociLies["mode"].change)
	liar := serveSOCI(t, l, ztoc)
	honest := serveSOCI(t, l, ztocOf(t, l))
	honest.opts.Cache = liar.opts.Cache
	other := honest.mustOpen("soci", image.VouchedByManifest)
	checkErr := image.Check(t.Context(), liar.mustOpen("soci", image.VouchedByManifest))
	if !errors.Is(checkErr, image.ErrLiar) {
		t.Fatal(checkErr)
	}
	honest.hasAll(other, standard())
	if err := image.Check(t.Context(), other); err != nil {
		t.Error(err)
	}
	honest.hasAll(other, standard())
	if warns := honest.said(); len(warns) > 0 {
		t.Errorf("warned of %q", warns)
	}
}

// serveSOCI serves an image with a layer and a SOCI index of version 2.
func serveSOCI(t *testing.T, l sourcetest.Layer, ztoc []byte) *served {
	t.Helper()
	s := serve(t, nil, sourcetest.Image{})
	index := pushSOCI(s.reg, digest.FromBytes(l.Content), ztoc, nil)
	return serve(t, s.reg, sourcetest.Image{Layers: []sourcetest.Layer{l}, Annotations: map[string]string{soci.AnnotationIndex: index.Digest.String()}})
}

// TestWrongWindow: a ztoc has right digests and a wrong window. What cannot be decoded is
// read by another index; what can is found out by the check.
func TestWrongWindow(t *testing.T) {
	t.Parallel()
	entries := []tarEntry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: 200_000}, content: text(200_000)}}
	l := memberLayer(t, 6, entries)
	ztoc := ztocOf(t, l)
	// A checkpoint has 17 bytes and a window, behind the number of them and the span size.
	at := bytes.Index(ztoc, binary.LittleEndian.AppendUint64(nil, spanSize)) + 8
	n := int(binary.LittleEndian.Uint32(ztoc[at-12:]))
	if at < 12 || n < 3 {
		t.Fatalf("%d checkpoints at byte %d", n, at)
	}
	changed := 0
	for i := range n {
		window := ztoc[at+i*(17+(32<<10))+17:][:32<<10]
		for k, b := range window {
			if b != 0 {
				window[k], changed = b^1, changed+1
			}
		}
	}
	if changed == 0 {
		t.Fatal("no window has a byte that is used")
	}
	s := serveSOCI(t, l, ztoc)
	checkLiar(t, s, `entry "big"`, s.mustOpen("soci", image.VouchedByManifest))
	s.hasAll(s.mustOpen("imgfs", image.VouchedHere), entries)
}
