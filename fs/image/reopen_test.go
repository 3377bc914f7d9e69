package image_test

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// shown returns a digest of all that a tree shows: inode numbers, attributes, xattrs, link
// targets, and names in the order in which directories list them.
func shown(t testing.TB, tree *fs.Tree) string {
	t.Helper()
	sum := sha256.New()
	show(sum, tree.Root(), "")
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func show(to hash.Hash, n fs.Node, name string) {
	target := ""
	kind := n.Mode() & syscall.S_IFMT
	if kind == syscall.S_IFLNK {
		target = n.Target()
	}
	fmt.Fprintf(to, "%q %d %+v %q %q\n", name, n.Ino(), n.Attr(), n.Xattrs(), target)
	if kind == syscall.S_IFDIR {
		for child, of := range n.Children() {
			show(to, of, name+"/"+child)
		}
	}
}

// contents reads all regular files of a tree.
func contents(t testing.TB, img *image.Image) string {
	t.Helper()
	sum := sha256.New()
	fsys := img.FS(t.Context())
	err := iofs.WalkDir(fsys, ".", func(name string, d iofs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintf(sum, "%q\n", name)
		_, err = io.Copy(sum, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// A first is an image as the first process has it.
type first struct {
	name, identity, shown, contents string
	files                           []image.Held
}

// held opens an image as the first process does, holds it and closes it.
func holdImage(t testing.TB, name string, opts *image.Options) *first {
	t.Helper()
	img, err := image.Open(t.Context(), name, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	x := &first{name: name, identity: img.Identity(), shown: shown(t, img.Tree())}
	if x.files, err = img.Held(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.CloseHeld(x.files) })
	x.contents = contents(t, img)
	return x
}

// again opens the image as the next process does, and compares what it shows.
func (x *first) again(t testing.TB, opts image.Options) *image.Image {
	t.Helper()
	opts.Held = x.files
	img, err := image.Open(t.Context(), x.name, &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	if got := img.Identity(); got != x.identity {
		t.Errorf("the identity is %s, and was %s", got, x.identity)
	}
	if got := shown(t, img.Tree()); got != x.shown {
		t.Error("the tree shows something else")
	}
	return img
}

// exampleRegistry serves an image, and returns what it is called.
func exampleRegistry(t testing.TB) (*registrytest.Server, string) {
	t.Helper()
	dir, name := exampleImage()
	t.Cleanup(func() { os.RemoveAll(dir) })
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(strings.TrimPrefix(name, "oci:"), "app"); err != nil {
		t.Fatal(err)
	}
	return reg, reg.Host() + "/app:latest"
}

// TestHeldRegistry: an image of a registry is opened again without a request, though all
// of the cache is gone.
func TestHeldRegistry(t *testing.T) {
	for _, left := range []string{"all", "nothing", "no directory"} {
		for _, offline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s left, offline %v", left, offline), func(t *testing.T) {
				reg, name := exampleRegistry(t)
				opts := image.Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
				x := holdImage(t, name, &opts)
				switch left {
				case "nothing":
					if err := os.RemoveAll(opts.CacheDir); err != nil {
						t.Fatal(err)
					}
					if err := os.Mkdir(opts.CacheDir, 0o700); err != nil {
						t.Fatal(err)
					}
				case "no directory":
					if err := os.RemoveAll(opts.CacheDir); err != nil {
						t.Fatal(err)
					}
				}
				reg.Forget()
				opts.Offline = offline
				img := x.again(t, opts)
				if n := reg.Count(); n != 0 {
					t.Errorf("opening it took %d requests", n)
				}
				if left == "all" || !offline {
					if got := contents(t, img); got != x.contents {
						t.Error("the files have other contents")
					}
				}
				if n := len(reg.Requests(registrytest.Manifest)); n != 0 {
					t.Errorf("reading took %d requests for manifests", n)
				}
			})
		}
	}
}

// TestHeldForeign: a layer that was opened by an index of somebody else is opened by that
// again, without a request and without the cache; and once it was proven it is read by our
// own, while the tree stays.
func TestHeldForeign(t *testing.T) {
	t.Parallel()
	for name, kind := range foreignKinds {
		for _, proven := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, proven %v", name, proven), func(t *testing.T) {
				t.Parallel()
				s := kind.serve(t)
				s.opts.IndexTrust = image.TrustPublished
				img := s.mustOpen(kind.origin, kind.by)
				x := &first{name: img.Name(), identity: img.Identity(), shown: shown(t, img.Tree())}
				by := kind.by
				if proven {
					changed := img.Reheld()
					if err := image.Check(t.Context(), img); err != nil {
						t.Fatal(err)
					}
					if by != image.VouchedHere {
						select {
						case <-changed:
						default:
							t.Error("nobody is told that another index is to be held")
						}
					}
					by = image.VouchedHere
				}
				if got := img.Identity(); got != x.identity {
					t.Errorf("the identity has become %s, and was %s", got, x.identity)
				}
				var err error
				if x.files, err = img.Held(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { image.CloseHeld(x.files) })
				if err := img.Close(); err != nil {
					t.Fatal(err)
				}
				s.newCache()
				s.reg.Forget()
				next := x.again(t, s.opts)
				if n := s.reg.Count(); n != 0 {
					t.Errorf("opening it took %d requests", n)
				}
				if got := image.Uses(next)[0].Vouched; got != by {
					t.Errorf("it is vouched for by %q, want %q", got, by)
				}
				s.hasAll(next, standard())
				if n := s.reg.Count(registrytest.Manifest, registrytest.Referrers); n != 0 {
					t.Errorf("reading it took %d requests for metadata", n)
				}
				if warns := s.said(); len(warns) > 0 {
					t.Errorf("warned of %q", warns)
				}
				// And so does the one after that.
				if x.files, err = next.Held(); err != nil {
					t.Fatal(err)
				}
				defer image.CloseHeld(x.files)
				s.hasAll(x.again(t, s.opts), standard())
			})
		}
	}
}

// TestHeldReplaced: an index file in the cache that says something else than the held one
// loses to that, and so does a name that leads to another image by now.
func TestHeldReplaced(t *testing.T) {
	reg, name := exampleRegistry(t)
	opts := image.Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
	x := holdImage(t, name, &opts)
	replaced := 0
	err := filepath.WalkDir(filepath.Join(opts.CacheDir, "indexes"), func(file string, d iofs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		replaced++
		if err := os.WriteFile(file+"2", []byte("something else"), 0o600); err != nil {
			return err
		}
		return os.Rename(file+"2", file)
	})
	if err != nil || replaced == 0 {
		t.Fatalf("%d files, %v", replaced, err)
	}
	reg.Forget()
	x.name = reg.Host() + "/other:latest"
	img := x.again(t, opts)
	if n := reg.Count(); n != 0 || img.Name() != name {
		t.Errorf("opening %s took %d requests", img.Name(), n)
	}
	if got := contents(t, img); got != x.contents {
		t.Error("the files have other contents")
	}
}

// TestHeldNotKept: indexes that could not be stored are held as well.
func TestHeldNotKept(t *testing.T) {
	for _, why := range []string{"full", "read-only"} {
		t.Run(why, func(t *testing.T) {
			reg, name := exampleRegistry(t)
			opts := image.Options{CacheDir: t.TempDir(), CacheSize: 1}
			if why == "read-only" {
				opts.CacheSize = -1
				testenv.SmallDisk(t, opts.CacheDir, 64<<20)
				if err := os.Chmod(opts.CacheDir, 0o700); err != nil {
					t.Fatal(err)
				}
				image.CloseHeld(holdImage(t, name, &opts).files)
				if err := os.RemoveAll(filepath.Join(opts.CacheDir, "indexes")); err != nil {
					t.Fatal(err)
				}
				testenv.RemountReadOnly(t, opts.CacheDir)
			}
			x := holdImage(t, name, &opts)
			reg.Forget()
			img := x.again(t, opts)
			if n := reg.Count(); n != 0 {
				t.Errorf("opening it took %d requests", n)
			}
			if got := contents(t, img); got != x.contents {
				t.Error("the files have other contents")
			}
		})
	}
}

// TestHeldLocal: what lies on this machine is read on when its path leads nowhere any
// more.
func TestHeldLocal(t *testing.T) {
	for _, kind := range []string{"oci", "oci-archive", "docker-archive", "-"} {
		t.Run(kind, func(t *testing.T) {
			dir, name, stdin := localImage(t, kind)
			opts := image.Options{CacheDir: filepath.Join(t.TempDir(), "cache"), Stdin: stdin}
			x := holdImage(t, name, &opts)
			for _, gone := range []string{dir, opts.CacheDir} {
				if err := os.RemoveAll(gone); err != nil {
					t.Fatal(err)
				}
			}
			opts.Stdin, opts.Offline = nil, true
			img := x.again(t, opts)
			if why := img.NotHeld(); why != "" {
				t.Errorf("not held: %s", why)
			}
			if img.Name() != name {
				t.Errorf("it is called %q, and was %q", img.Name(), name)
			}
			if got := contents(t, img); got != x.contents {
				t.Error("the files have other contents")
			}
			var err error
			if x.files, err = img.Held(); err != nil {
				t.Fatal(err)
			}
			defer image.CloseHeld(x.files)
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, x.again(t, opts)); got != x.contents {
				t.Error("the second time the files have other contents")
			}
		})
	}
}

// TestHeldPruned: what is held stays in the cache when it is pruned, and goes when nobody
// holds it any more.
func TestHeldPruned(t *testing.T) {
	_, name := exampleRegistry(t)
	opts := image.Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
	a, b := holdImage(t, name, &opts), holdImage(t, name, &opts)
	prune := func() cache.PruneResult {
		t.Helper()
		disk, err := cache.Open(opts.CacheDir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		done, err := disk.Prune(cache.PruneOptions{All: true, To: -1})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	first := prune()
	if first.Indexes != 0 || first.Held == 0 {
		t.Errorf("%d indexes were removed and %d stayed, want none and all", first.Indexes, first.Held)
	}
	image.CloseHeld(a.files)
	if again := prune(); again.Indexes != 0 || again.Held != first.Held {
		t.Errorf("with one of two mounts %d indexes were removed and %d stayed, want none and %d", again.Indexes, again.Held, first.Held)
	}
	image.CloseHeld(b.files)
	if last := prune(); last.Held != 0 || last.Indexes != first.Held {
		t.Errorf("with no mount %d indexes were removed and %d stayed, want %d and none", last.Indexes, last.Held, first.Held)
	}
}

// TestHeldNameless: an image that was opened without a name cannot be held.
func TestHeldNameless(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", "x"))
	img, err := o.open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if files, err := img.Held(); err == nil || len(files) != 0 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// localImage writes an image of a kind, and returns the directory that it is in, its name,
// and what is on standard input.
func localImage(t testing.TB, kind string) (dir, name string, stdin func() (io.ReadCloser, error)) {
	t.Helper()
	dir, name = exampleImage()
	t.Cleanup(func() { os.RemoveAll(dir) })
	layout := strings.TrimPrefix(name, "oci:")
	layout, _, _ = strings.Cut(layout, ":")
	if kind == "oci" {
		return dir, name, nil
	}
	file := filepath.Join(dir, "image.tar")
	if kind == "docker-archive" {
		writeManifestJSON(t, layout)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(layout)), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if kind == "-" {
		return dir, "-", func() (io.ReadCloser, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			r, w := io.Pipe()
			go func() {
				_, err := io.Copy(w, f)
				f.Close()
				w.CloseWithError(err)
			}()
			return r, nil
		}
	}
	return dir, kind + ":" + file, nil
}

// writeManifestJSON makes a layout one that docker save writes, too, whose layers are
// compressed.
func writeManifestJSON(t testing.TB, layout string) {
	t.Helper()
	img, err := image.Resolve(t.Context(), "oci:"+layout, &image.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	layers := []string{}
	for _, l := range img.Layers {
		layers = append(layers, blob(l.Digest()))
	}
	content, err := json.Marshal([]any{map[string]any{"Config": blob(img.ConfigDescriptor.Digest), "Layers": layers}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layout, "manifest.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestHeldDamaged: what is held may come from a later version, or be damaged: then the image
// does not open, or it opens from the cache as it was.
func TestHeldDamaged(t *testing.T) {
	_, name := exampleRegistry(t)
	opts := image.Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
	x := holdImage(t, name, &opts)
	opts.Offline = true
	good := x.files
	record := make([]byte, 1<<20)
	n, err := good[0].File.ReadAt(record, 0)
	if err != io.EOF {
		t.Fatalf("the record has %d bytes, error %v", n, err)
	}
	written := func(text string) *os.File {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		return f
	}
	// with returns the files with another one in the place of one of them.
	with := func(at int, text string) []image.Held {
		files := append([]image.Held(nil), good...)
		files[at].File = written(text)
		return files
	}
	text := string(record[:n])
	later := strings.Replace(text, `"version":1`, `"version":2`, 1)
	if later == text || len(good) < 2 || !strings.HasPrefix(good[1].Name, "index-") {
		t.Fatalf("the record is %s, of %v", text, good)
	}
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for what, c := range map[string]struct {
		files []image.Held
		says  string
	}{
		"later version":    {with(0, later), "of version 2, and not 1"},
		"half a record":    {with(0, text[:n/2]), "what is held of the image: "},
		"empty record":     {with(0, ""), "what is held of the image: "},
		"no record":        {good[1:], "of version 0, and not 1"},
		"empty index":      {with(1, ""), "what is held of it: "},
		"index of nothing": {with(1, strings.Repeat("x", 1<<16)), "what is held of it: "},
	} {
		before := descriptors()
		next := opts
		next.Held = c.files
		img, err := image.Open(t.Context(), name, &next)
		if err == nil {
			img.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", what, err, c.says)
		}
		if after := descriptors(); after > before {
			t.Errorf("%s: %d descriptors were open, and %d are", what, before, after)
		}
	}
	x.files = good[:1] // the last server was killed before it could give all of them
	if got := contents(t, x.again(t, opts)); got != x.contents {
		t.Error("without the indexes the files have other contents")
	}
}
