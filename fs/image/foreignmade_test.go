package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	iofs "io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A tarEntry is an entry of a tar, with the content of a regular file.
type tarEntry struct {
	tar.Header
	content string
	chunk   int // an eStargz layer has it in chunks of that size; 0: as a whole
}

// standard returns a bit of everything that a layer has.
func standard() []tarEntry {
	at := time.Unix(1_700_000_000, 0)
	all := []tarEntry{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o750}},
		{Header: tar.Header{Name: "d/one", Mode: 0o4755, Uid: 1000, Gid: 7}, content: text(30_000)},
		{Header: tar.Header{Name: "d/two", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}, content: text(29_999) + "2", chunk: 10_000},
		{Header: tar.Header{Name: "d/empty", Mode: 0o600}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: "d/one", Mode: 0o777}},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "d/two", Mode: 0o644}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Name: "last", Mode: 0o644}, content: "the end"},
	}
	for i := range all {
		h := &all[i].Header
		if h.ModTime = at; h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Size = int64(len(all[i].content)); h.PAXRecords != nil {
			h.Format = tar.FormatPAX
		}
	}
	return all
}

// A toc is the table of contents of an eStargz layer.
type toc []map[string]any

// entry returns the first entry of a name.
func (x toc) entry(name string) map[string]any {
	for _, e := range x {
		if e["name"] == name {
			return e
		}
	}
	return nil
}

var tocTypes = map[byte]string{tar.TypeReg: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink", tar.TypeChar: "char"}

// A memberWriter writes a tar as eStargz has it: a gzip member begins with each content.
type memberWriter struct {
	blob, tar bytes.Buffer
	z         *gzip.Writer
	change    func(p []byte) // what is written; or nil
}

func (w *memberWriter) Write(p []byte) (int, error) {
	if w.change != nil {
		p = bytes.Clone(p)
		w.change(p)
	}
	w.tar.Write(p)
	return w.z.Write(p)
}

// next begins a member, and returns where.
func (w *memberWriter) next() int {
	w.z.Close()
	w.z = gzip.NewWriter(&w.blob)
	return w.blob.Len()
}

// estargzLayer returns an eStargz layer. edit, if not nil, changes the table of contents
// first, and the annotation has the digest of what comes of it.
func estargzLayer(t testing.TB, entries []tarEntry, edit func(toc) toc) sourcetest.Layer {
	t.Helper()
	return estargzOf(t, entries, edit, nil)
}

// estargzOf is estargzLayer with change for what its tar is written in, piece by piece.
func estargzOf(t testing.TB, entries []tarEntry, edit func(toc) toc, change func(p []byte)) sourcetest.Layer {
	t.Helper()
	w := &memberWriter{change: change}
	w.z = gzip.NewWriter(&w.blob)
	tw := tar.NewWriter(w)
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var table toc
	for _, e := range entries {
		h := e.Header
		check(tw.WriteHeader(&h))
		x := map[string]any{"name": h.Name, "type": tocTypes[h.Typeflag], "modtime": h.ModTime.UTC().Format(time.RFC3339), "mode": h.Mode,
			"uid": h.Uid, "gid": h.Gid, "linkName": h.Linkname, "devMajor": h.Devmajor, "devMinor": h.Devminor, "size": h.Size}
		xattrs := map[string][]byte{}
		for k, v := range h.PAXRecords {
			xattrs[k[len("SCHILY.xattr."):]] = []byte(v)
		}
		if x["xattrs"] = xattrs; h.Typeflag == tar.TypeReg {
			x["digest"] = digest.FromString(e.content)
		}
		table = append(table, x)
		for at := 0; at < len(e.content); {
			n := len(e.content) - at
			if e.chunk > 0 {
				n = min(n, e.chunk)
				x["chunkSize"], x["chunkOffset"] = n, at
			}
			x["offset"], x["chunkDigest"] = w.next(), digest.FromString(e.content[at:at+n])
			_, err := tw.Write([]byte(e.content[at : at+n]))
			check(err)
			if at += n; at < len(e.content) {
				x = map[string]any{"name": h.Name, "type": "chunk"}
				table = append(table, x)
			}
		}
	}
	check(tw.Flush())
	at := w.next()
	if edit != nil {
		table = edit(table)
	}
	text, err := json.Marshal(map[string]any{"version": 1, "entries": table})
	check(err)
	check(tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "stargz.index.json", Size: int64(len(text))}))
	_, err = tw.Write(text)
	check(err)
	check(tw.Close())
	check(w.z.Close())
	foot, err := gzip.NewWriterLevel(&w.blob, gzip.NoCompression)
	check(err)
	foot.Extra = fmt.Appendf([]byte("SG\x16\x00"), "%016xSTARGZ", at)
	check(foot.Close())
	return sourcetest.Layer{Content: w.blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromBytes(w.tar.Bytes()),
		Annotations: map[string]string{estargz.TOCDigestAnnotation: digest.FromBytes(text).String()}}
}

// memberLayer returns a layer in one gzip member.
func memberLayer(t testing.TB, level int, entries []tarEntry) sourcetest.Layer {
	t.Helper()
	var raw, blob bytes.Buffer
	tw := tar.NewWriter(&raw)
	for _, e := range entries {
		h := e.Header
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewWriterLevel(&blob, level)
	if err == nil {
		_, err = z.Write(raw.Bytes())
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromBytes(raw.Bytes())}
}

// spanSize is that of the ztocs that tests make.
const spanSize = 16 << 10

// ztocOf returns a layer's ztoc with small spans.
func ztocOf(t testing.TB, l sourcetest.Layer) []byte {
	t.Helper()
	ztoc, err := soci.Build(t.Context(), layerOf(l), bytes.NewReader(l.Content), &soci.BuildOptions{SpanSize: spanSize})
	if err != nil {
		t.Fatal(err)
	}
	return ztoc
}

// pushSOCI lets a registry hold a SOCI index of one layer, of version 1 if subject is not
// nil.
func pushSOCI(reg *registrytest.Server, layer digest.Digest, ztoc []byte, subject *ocispec.Descriptor) ocispec.Descriptor {
	desc := reg.PutBlob("application/octet-stream", ztoc)
	desc.Annotations = map[string]string{"com.amazon.soci.image-layer-digest": layer.String()}
	artifactType := soci.ArtifactTypeV2
	if subject != nil {
		artifactType = soci.ArtifactTypeV1
	}
	config := reg.PutBlob(artifactType, []byte("{}"))
	return reg.PutArtifact("app", "", ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{desc}, Subject: subject})
}

// layerOf describes a layer.
func layerOf(l sourcetest.Layer) layerindex.Layer {
	return layerindex.Layer{Digest: digest.FromBytes(l.Content), Size: int64(len(l.Content)), DiffID: l.DiffID}
}

// A served is an image of a registry, with a cache to open it with.
type served struct {
	t    testing.TB
	reg  *registrytest.Server
	top  ocispec.Descriptor
	opts image.Options
	// warns and debugs are what was told since the last call of said.
	mu            sync.Mutex
	warns, debugs []string
}

// serve puts an image behind the tag app:latest of a registry, which is made if it is nil.
func serve(t testing.TB, reg *registrytest.Server, img sourcetest.Image) *served {
	t.Helper()
	if reg == nil {
		reg = registrytest.New(t, &registrytest.Options{Referrers: true, Writable: true})
	}
	store := sourcetest.NewStore()
	top := store.AddImage(img)
	for _, d := range store.Digests() {
		content, _ := store.Get(d)
		reg.ReplaceBlob(d, content)
	}
	content, _ := store.Get(top.Digest)
	reg.ReplaceManifest(top.Digest, top.MediaType, content)
	reg.Tag("app", "latest", top.Digest)
	s := &served{t: t, reg: reg, top: top}
	s.opts.Warnf = func(format string, args ...any) { s.note(&s.warns, format, args...) }
	s.opts.Debugf = func(format string, args ...any) { s.note(&s.debugs, format, args...) }
	s.opts.Registry = registry.Options{
		Sites: func(_ context.Context, ref remote.Reference) ([]*hosts.Site, error) {
			site := hosts.Canonical(ref)
			site.Scheme = "http"
			return []*hosts.Site{site}, nil
		},
		Credential: func(context.Context, string, string) (hosts.Credential, error) { return hosts.Credential{}, nil },
		MinBackoff: 1, MaxBackoff: 1,
	}
	s.newCache()
	return s
}

// newCache has the image opened with an empty cache.
func (s *served) newCache() {
	s.t.Helper()
	s.useCache(s.t.TempDir())
}

// useCache has the image opened with the cache in a directory, as another process would. One
// that had the same directory has ended: what a reader was given when it was checked is on
// its way to the disk until then.
func (s *served) useCache(dir string) {
	s.t.Helper()
	if old := s.opts.Cache; old != nil && old.Dir() == dir {
		if err := old.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	disk, err := cache.Open(dir, &cache.Options{Warnf: s.opts.Warnf})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { disk.Close() })
	s.opts.Cache = disk
}

func (s *served) note(to *[]string, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, fmt.Sprintf(format, args...))
}

// said returns the warnings since it was called last.
func (s *served) said() (warns []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	warns, s.warns = s.warns, nil
	return warns
}

// open opens the image.
func (s *served) open() (*image.Image, error) {
	s.t.Helper()
	img, err := image.Open(s.t.Context(), s.reg.Host()+"/app:latest", &s.opts)
	if err == nil {
		s.t.Cleanup(func() { img.Close() })
	}
	return img, err
}

// mustOpen opens the image, whose one layer must be read by an index of that origin.
func (s *served) mustOpen(origin string, by image.Voucher) *image.Image {
	s.t.Helper()
	img, err := s.open()
	if err != nil {
		s.t.Fatal(err)
	}
	if u := image.Uses(img)[0]; u.Origin != origin || u.Vouched != by {
		s.t.Fatalf("the layer is read by %+v, want %s by %s; warned of %q, told %q", u, origin, by, s.warns, s.debugs)
	}
	return img
}

// hasAll checks the contents of all files.
func (s *served) hasAll(img *image.Image, entries []tarEntry) {
	s.t.Helper()
	for _, e := range entries {
		if e.Typeflag != tar.TypeReg {
			continue
		}
		got, err := iofs.ReadFile(img.FS(s.t.Context()), e.Name)
		if err != nil || string(got) != e.content {
			s.t.Errorf("%s: %d bytes, %v; want %d", e.Name, len(got), err, len(e.content))
		}
	}
}

func removeFile(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}
