package image_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// outages are what a server may do that should know of indexes.
var outages = map[string]func(s *registrytest.Server) registrytest.Fault{
	"401":    func(*registrytest.Server) registrytest.Fault { return registrytest.Status(401) },
	"403":    func(*registrytest.Server) registrytest.Fault { return registrytest.Status(403) },
	"404":    func(*registrytest.Server) registrytest.Fault { return registrytest.Status(404) },
	"500":    func(*registrytest.Server) registrytest.Fault { return registrytest.Status(500) },
	"hangs":  func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
	"stalls": func(s *registrytest.Server) registrytest.Fault { return s.Stall(10) },
	"resets": func(*registrytest.Server) registrytest.Fault { return registrytest.Reset(-1) },
	"page":   func(*registrytest.Server) registrytest.Fault { return registrytest.Page() },
	"garbage": func(*registrytest.Server) registrytest.Fault {
		return registrytest.Answer(200, ocispec.MediaTypeImageManifest, []byte(`{"layers":[{]`))
	},
	"others": func(*registrytest.Server) registrytest.Fault {
		return registrytest.Answer(200, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[{"digest":"x","size":-1}]}`))
	},
	"endless": func(s *registrytest.Server) registrytest.Fault {
		return s.Endless(ocispec.MediaTypeImageIndex, []byte(`{"manifests":[`))
	},
}

// outageTime is how much longer a mount may take because of an index that is not to be had.
const outageTime = 4 * time.Second

// TestIndexOutage: whatever becomes of the index repositories and of what is beside the
// image, the layer is read without, after a little while.
func TestIndexOutage(t *testing.T) {
	t.Parallel()
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, place := range []string{"repository", "two repositories", "beside"} {
				t.Run(place, func(t *testing.T) {
					t.Parallel()
					s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{memberLayer(t, 6, standard()), gzipLayer(t, "top", "top")}})
					broken := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
						if strings.Contains(r.URL.Path, "/app/manifests/latest") || strings.Contains(r.URL.Path, s.top.Digest.String()) && !strings.Contains(r.URL.Path, "referrers") {
							serve(w, r)
							return
						}
						outage(s.reg)(w, r, serve)
					}
					if place == "beside" {
						s.opts.IndexTrust = image.TrustPublished
						s.reg.Inject(registrytest.Manifest, registrytest.Always(broken))
						s.reg.Inject(registrytest.Referrers, registrytest.Always(broken))
					} else {
						for range len(strings.Fields(place)) {
							repo := registrytest.New(t, nil)
							for _, k := range []registrytest.Kind{registrytest.Ping, registrytest.Manifest, registrytest.Referrers, registrytest.Blob} {
								repo.Inject(k, registrytest.Always(outage(repo)))
							}
							s.opts.IndexRepos = append(s.opts.IndexRepos, repo.Host()+"/idx")
						}
					}
					begun := time.Now()
					img := s.mustOpen("imgfs", image.VouchedHere)
					if took := time.Since(begun); took > 2*outageTime { // others use this machine
						t.Errorf("it took %v", took)
					}
					s.hasAll(img, standard())
					// A repository that the user named is warned of, once.
					warns := s.said()
					if len(warns) > len(s.opts.IndexRepos) {
						t.Errorf("warned of %q", warns)
					}
					if len(warns)+len(s.debugs) == 0 || len(s.debugs) > 10 {
						t.Errorf("told of %q", s.debugs)
					}
				})
			}
		})
	}
}

// changeBlob answers for a blob with bytes that change has changed: those from off on.
func changeBlob(d digest.Digest, change func(body []byte, off int64)) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !strings.HasSuffix(r.URL.Path, d.String()) || r.Method != http.MethodGet {
			serve(w, r)
			return
		}
		answer := httptest.NewRecorder()
		serve(answer, r)
		var off int64
		fmt.Sscanf(answer.Header().Get("Content-Range"), "bytes %d-", &off)
		body := answer.Body.Bytes()
		change(body, off)
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		w.Write(body)
	}
}

// flipIn flips a bit of byte at of a blob: each time, or the first so many times that
// it is sent.
func flipIn(d digest.Digest, at int64, times int64) registrytest.Fault {
	var sent atomic.Int64
	return changeBlob(d, func(body []byte, off int64) {
		if k := at - off; k >= 0 && k < int64(len(body)) && (times == 0 || sent.Add(1) <= times) {
			body[k] ^= 0x10
		}
	})
}

// TestFlippedBit flips a bit of what an index is read from, or of what is read by it:
// once, and each time. The files are right, or cannot be read.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	toc := estargzLayer(t, standard(), nil)
	plain := memberLayer(t, 6, standard())
	ztoc := ztocOf(t, plain)
	layer := func(l sourcetest.Layer) digest.Digest { return digest.FromBytes(l.Content) }
	size := int64(len(toc.Content))
	var tocAt int64
	fmt.Sscanf(string(toc.Content[size-51+16:][:16]), "%x", &tocAt)
	serveTOC := func(t *testing.T) *served { return serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{toc}}) }
	servePlain := func(t *testing.T) *served { return serveSOCI(t, plain, ztoc) }
	split, content := chunkedFixture(t, "latin1")
	var splitAt int64
	fmt.Sscanf(split.Annotations["io.github.containers.zstd-chunked.tarsplit-position"], "%d:", &splitAt)
	serveSplit := func(t *testing.T) *served { return serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{split}}) }
	for name, c := range map[string]struct {
		serve  func(t *testing.T) *served
		blob   digest.Digest
		at     int64
		origin string // by which the layer is read though the bit is flipped each time; "": none
		once   string // and if it is flipped once
		bad    string // the file that cannot be read
	}{
		"footer":    {serveTOC, layer(toc), size - 30, "", "estargz", ""},
		"TOC":       {serveTOC, layer(toc), tocAt + 300, "", "estargz", ""},
		"chunk":     {serveTOC, layer(toc), 1000, "estargz", "estargz", "d/one"},
		"tar-split": {serveSplit, layer(split), splitAt + 100, "", "zstd:chunked", ""},
		"ztoc":      {servePlain, digest.FromBytes(ztoc), int64(len(ztoc)) / 2, "imgfs", "soci", ""},
		"span":      {servePlain, layer(plain), 1000, "soci", "soci", "d/one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, files := c.serve(t), standard()
			if name == "tar-split" {
				files = content
			}
			s.reg.Inject(registrytest.Blob, registrytest.Always(flipIn(c.blob, c.at, 1)))
			img, err := s.open()
			if err != nil {
				t.Fatalf("once: %v", err)
			}
			if u := image.Uses(img)[0]; u.Origin != c.once && u.Origin != "imgfs" && u.Origin != c.origin {
				t.Errorf("once: it is read by %+v", u)
			}
			s.hasAll(img, files)
			if warns := s.said(); len(warns) > 1 {
				t.Errorf("once: warned of %q", warns)
			}
			s.newCache()
			s.reg.Inject(registrytest.Blob, registrytest.Always(flipIn(c.blob, c.at, 0)))
			img, err = s.open()
			if c.origin == "" {
				if !errors.Is(err, remote.ErrDigest) && (err == nil || !strings.Contains(err.Error(), "digest")) {
					t.Errorf("each time: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u := image.Uses(img)[0]; u.Origin != c.origin {
				t.Errorf("each time: it is read by %+v, want %s", u, c.origin)
			}
			for _, e := range files {
				if e.Typeflag != tar.TypeReg {
					continue
				}
				got, err := iofs.ReadFile(img.FS(t.Context()), e.Name)
				if err == nil && string(got) != e.content {
					t.Errorf("each time: %s is wrong", e.Name)
				}
				if err == nil && e.Name == c.bad { // others are in the same cut
					t.Errorf("each time: %s: %v", e.Name, err)
				}
			}
			if warns := s.said(); len(warns) > 2 {
				t.Errorf("each time: warned of %q", warns)
			}
			// The server is right again.
			s.reg.Inject(registrytest.Blob, nil)
			image.PassMendPause(img)
			s.hasAll(img, files)
		})
	}
}

// chunkedFixture returns a layer of layerindex/zstdchunked/testdata, and its files as a
// pass over it finds them.
func chunkedFixture(t *testing.T, name string) (l sourcetest.Layer, files []tarEntry) {
	t.Helper()
	dir := filepath.Join("..", "..", "layerindex", "zstdchunked", "testdata")
	text, err := os.ReadFile(filepath.Join(dir, "layers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		Annotations map[string]string `json:"annotations"`
		DiffID      digest.Digest     `json:"diff_id"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	l = sourcetest.Layer{MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: all[name].DiffID, Annotations: all[name].Annotations}
	if l.Content, err = os.ReadFile(filepath.Join(dir, name+".layer")); err != nil {
		t.Fatal(err)
	}
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	s.opts.IndexTrust = image.TrustLocal
	img := s.mustOpen("imgfs", image.VouchedHere)
	err = iofs.WalkDir(img.FS(t.Context()), ".", func(path string, e iofs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := iofs.ReadFile(img.FS(t.Context()), path)
		files = append(files, tarEntry{Header: tar.Header{Typeflag: tar.TypeReg, Name: path, Size: int64(len(b))}, content: string(b)})
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	return l, files
}

// TestWrongTOC: tables of contents that cannot be, though the manifest has their digest.
// They are not used, and the layer is read whole.
func TestWrongTOC(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(toc) toc{
		"offset behind the end": set("d/one", "offset", 1<<40),
		"negative offset":       set("d/one", "offset", -1),
		"no member":             set("d/one", "offset", 17),
		"not monotonic":         func(x toc) toc { x.entry("last")["offset"] = x.entry("d/one")["offset"]; return x },
		"negative size":         set("d/one", "size", -5),
		"huge size":             set("d/one", "size", int64(1)<<62),
		"inner offset":          set("d/one", "innerOffset", int64(1)<<61),
		"no digest":             func(x toc) toc { delete(x.entry("d/one"), "digest"); delete(x.entry("d/one"), "chunkDigest"); return x },
		"name above":            set("d/one", "name", "../../etc/passwd"),
		"link to nothing":       set("hard", "linkName", "nowhere"),
		"type":                  set("d/one", "type", "door"),
		"nothing":               func(toc) toc { return toc{{"name": strings.Repeat("x", 100_000)}} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, standard(), edit)}})
			img, err := s.open()
			if err != nil {
				t.Fatal(err)
			}
			if image.Uses(img)[0].Vouched != image.VouchedHere {
				// It is not to be seen before something is read.
				for _, e := range standard() {
					if got, err := iofs.ReadFile(img.FS(t.Context()), e.Name); err == nil && e.Size > 0 && string(got) != e.content {
						t.Errorf("%s: %d bytes that are wrong", e.Name, len(got))
					}
				}
				if err := image.Check(t.Context(), img); err != nil && !errors.Is(err, image.ErrLiar) {
					t.Error(err)
				}
			}
			if warns := s.said(); len(warns) != 1 {
				t.Errorf("warned of %q", warns)
			}
			s.hasAll(s.mustOpen("imgfs", image.VouchedHere), standard())
		})
	}
}

// TestIndexOfAnotherLayer: under a layer's tag is the index of another one.
func TestIndexOfAnotherLayer(t *testing.T) {
	t.Parallel()
	mine, other := memberLayer(t, 6, standard()), gzipLayer(t, "evil", "evil")
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{other}})
	s.publish("idx")
	tag := func(l sourcetest.Layer) string { return "imgfs1.sha256-" + digest.FromBytes(l.Content).Encoded() }

	s.reg.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.URL.Path == "/v2/idx/manifests/"+tag(mine) || strings.HasPrefix(r.URL.Path, "/v2/idx/manifests/imgfs1.") && r.URL.Path != "/v2/idx/manifests/"+tag(other) {
			r = r.Clone(r.Context())
			r.URL.Path = "/v2/idx/manifests/" + tag(other)
		}
		serve(w, r)
	}))
	s = func() *served {
		n := serve(t, s.reg, sourcetest.Image{Layers: []sourcetest.Layer{mine}})
		n.opts.IndexRepos = []string{s.reg.Host() + "/idx"}
		return n
	}()
	s.hasAll(s.mustOpen("imgfs", image.VouchedHere), standard())
	if warns := s.said(); len(warns) > 0 {
		t.Errorf("warned of %q", warns)
	}
}

// noisy is content that takes windows of 32 KiB.
func noisy(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+130)
	for len(b) < n {
		if far := r.IntN(31_000); far > 100 && far < len(b) {
			b = append(b, b[len(b)-far:][:100]...)
		}
		for range 30 {
			b = append(b, byte(r.IntN(200)))
		}
	}
	b = b[:n]
	return string(b)
}

// TestRepositoryDies: the index repository is gone, or broken, when parts of an index are
// needed. The layer is indexed here.
func TestRepositoryDies(t *testing.T) {
	t.Parallel()
	entries := []tarEntry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: 24 << 20}, content: noisy(24 << 20)}}
	l := memberLayer(t, 6, entries)
	for name, outage := range map[string]func(s *registrytest.Server) registrytest.Fault{
		"404": outages["404"], "500": outages["500"], "resets": outages["resets"], "flips": func(*registrytest.Server) registrytest.Fault { return registrytest.FlipBit() }, "page": outages["page"],
		"hangs": outages["hangs"],
	} {
		t.Run(name, func(t *testing.T) {
			if name == "hangs" {
				testenv.Slow(t) // it is waited for twice
			}
			t.Parallel()
			s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
			s.publish("idx")
			s.opts.IndexRepos = []string{s.reg.Host() + "/idx"}
			img := s.mustOpen("imgfs", image.VouchedByRegistry)
			s.reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				if strings.HasPrefix(r.URL.Path, "/v2/idx/") {
					outage(s.reg)(w, r, serve)
					return
				}
				serve(w, r)
			}))
			f, err := img.FS(t.Context()).Open("big")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s.reg.Forget()
			begun, right, last := time.Now(), false, error(nil)
			for time.Since(begun) < time.Minute && !right {
				p := make([]byte, 1000)
				_, err := f.(interface {
					ReadAt(p []byte, off int64) (int, error)
				}).ReadAt(p, 20<<20)
				if right = err == nil; right && string(p) != entries[0].content[20<<20:][:1000] {
					t.Fatal("it is wrong")
				}
				if !right {
					last = err
					time.Sleep(100 * time.Millisecond)
				}
			}
			if took := time.Since(begun); !right || took > 50*time.Second {
				t.Errorf("it took %v to be read, before that %v", took, last)
			}
			s.hasAll(img, entries)
			begun = time.Now()
			img.Close()
			if took := time.Since(begun); took > time.Second {
				t.Errorf("it took %v to close", took)
			}
			if u := image.Uses(img)[0]; u.Vouched != image.VouchedHere {
				t.Errorf("it is read by %+v", u)
			}
			if warns := s.said(); len(warns) != 1 {
				t.Errorf("warned of %q", warns)
			}
		})
	}
}

// TestForeignOffline: what came by an index of others is there offline, whatever it was.
func TestForeignOffline(t *testing.T) {
	t.Parallel()
	for name, kind := range foreignKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.serve(t)
			s.opts.IndexTrust = image.TrustPublished
			img := s.mustOpen(kind.origin, kind.by)
			if _, err := iofs.ReadFile(img.FS(t.Context()), "d/one"); err != nil {
				t.Fatal(err)
			}
			img.Close()
			s.useCache(s.opts.Cache.Dir())
			s.opts.Offline = true
			s.reg.Forget()
			img = s.mustOpen(kind.origin, kind.by)
			if got, err := iofs.ReadFile(img.FS(t.Context()), "d/one"); err != nil || string(got) != standard()[1].content {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if got, err := iofs.ReadFile(img.FS(t.Context()), "last"); err != nil && !errors.Is(err, remote.ErrUnavailable) || err == nil && string(got) != "the end" {
				t.Errorf("last: %q, %v", got, err)
			}
			if n := s.reg.Count(); n > 0 {
				t.Errorf("%d requests", n)
			}
			if warns := s.said(); len(warns) > 0 {
				t.Errorf("warned of %q", warns)
			}
		})
	}
}
