package containerdstore

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// putImage writes an image as containerd does.
func putImage(tx *bbolt.Tx, namespace, name string, target ocispec.Descriptor) error {
	at, err := tx.CreateBucketIfNotExists([]byte("v1"))
	for _, key := range []string{namespace, "images", name, "target"} {
		if err != nil {
			return err
		}
		at, err = at.CreateBucketIfNotExists([]byte(key))
	}
	if err != nil {
		return err
	}
	return errors.Join(at.Put([]byte("digest"), []byte(target.Digest)), at.Put([]byte("mediatype"), []byte(target.MediaType)),
		at.Put([]byte("size"), binary.AppendVarint(nil, target.Size)))
}

// newStore writes a store with images, and returns its root.
func newStore(t *testing.T, update func(tx *bbolt.Tx) error) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{filepath.Dir(databaseFile), blobsDir + "/sha256"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	db, err := bbolt.Open(filepath.Join(root, databaseFile), 0o644, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(update); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return root
}

func open(t *testing.T, spec, name string) (*Source, error) {
	t.Helper()
	src, err := Open(t.Context(), spec, name)
	if err == nil {
		t.Cleanup(func() { src.Close() })
	}
	return src, err
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
		root := newStore(t, func(tx *bbolt.Tx) error { return putImage(tx, "default", "docker.io/library/x:latest", top) })
		for _, d := range store.Digests() {
			content, _ := store.Get(d)
			if err := os.WriteFile(filepath.Join(root, blobsDir, "sha256", d.Encoded()), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return open(t, "default@"+root, "x")
	}, nil)
}

// descOf describes what is not there.
func descOf(text string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text))}
}

func TestNames(t *testing.T) {
	root := newStore(t, func(tx *bbolt.Tx) error {
		return errors.Join(putImage(tx, "default", "docker.io/library/app:latest", descOf("app")), putImage(tx, "default", "quay.io/a/tool:1", descOf("a")),
			putImage(tx, "default", "quay.io/b/tool:1", descOf("b")), putImage(tx, "default", "quay.io/c/same:1", descOf("c")), putImage(tx, "default", "quay.io/d/same:1", descOf("c")),
			putImage(tx, "k8s.io", "sha256:"+strings.Repeat("0", 64), descOf("id")))
	})
	t.Setenv("CONTAINERD_NAMESPACE", "")
	for _, c := range []struct{ spec, name, want, says string }{
		{root, "app", "docker.io/library/app:latest", ""},
		{root, "docker.io/app", "docker.io/library/app:latest", ""},
		{"default@" + root, "a/tool:1", "quay.io/a/tool:1", ""},
		{root, "same:1", "quay.io/c/same:1", ""},
		{root, "@" + digest.FromString("b").String(), "quay.io/b/tool:1", ""},
		{"k8s.io@" + root, "sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 64), ""},
		{root, "tool:1", "", "ambiguous"},
		{root, "app:v1", "", `no image "app:v1"; there is "docker.io/library/app:latest"`},
		{root, "@x", "", "is not @ and a digest"},
		{"moby@" + root, "app", "", `no namespace "moby"; there is "default", "k8s.io"`},
		{"a/b", "app", "", "absolute path"}, {"a@b", "app", "", "absolute path"}, {"@/x", "app", "", "absolute path"},
		{"default@" + root + "/absent", "app", "", "no such"},
		{"default@" + root + "/" + blobsDir, "app", "", "there is no store of containerd in"},
	} {
		src, err := open(t, c.spec, c.name)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, remote.ErrNotFound)):
			t.Errorf("[%s]%s: got error %v, want one that says %q", c.spec, c.name, err, c.says)
		case c.says == "" && err != nil:
			t.Errorf("[%s]%s: %v", c.spec, c.name, err)
		case c.says == "" && src.name != c.want:
			t.Errorf("[%s]%s: got %s, want %s", c.spec, c.name, src.name, c.want)
		}
	}
	t.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	if _, err := open(t, root, "sha256:"+strings.Repeat("0", 64)); err != nil {
		t.Errorf("in the namespace of the environment: %v", err)
	}
}

// TestDiscarded: what is not there says how it is fetched.
func TestDiscarded(t *testing.T) {
	root := newStore(t, func(tx *bbolt.Tx) error { return putImage(tx, "default", "quay.io/a/tool:1", descOf("a")) })
	src, err := open(t, "default@"+root, "quay.io/a/tool:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.Resolve(t.Context())
	var store *remote.StoreError
	if !errors.Is(err, remote.ErrNotFound) || !errors.As(err, &store) || !strings.Contains(store.Command, "ctr -n default content fetch quay.io/a/tool:1") {
		t.Errorf("got error %v and %v, want ErrNotFound and the command that fetches", err, store)
	}
}

// many writes so many images that the database has branches.
func many(tx *bbolt.Tx) error {
	for i := range 3000 {
		name := "quay.io/a/" + digest.FromString(strings.Repeat("x", i)).Encoded() + ":1"
		if err := putImage(tx, "default", name, descOf(name)); err != nil {
			return err
		}
	}
	return nil
}

// TestDatabase compares what is read with what bbolt reads.
func TestDatabase(t *testing.T) {
	root := newStore(t, many)
	file := filepath.Join(root, databaseFile)
	want := map[string]string{}
	db, err := bbolt.Open(file, 0o644, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		images := tx.Bucket([]byte("v1")).Bucket([]byte("default")).Bucket([]byte("images"))
		return images.ForEach(func(k, _ []byte) error {
			want[string(k)] = string(images.Bucket(k).Bucket([]byte("target")).Get([]byte("digest")))
			return nil
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if len(want) != 3000 {
		t.Fatalf("bbolt reads %d images", len(want))
	}
	tried := 0
	for name, d := range want {
		if tried++; tried > 300 {
			break
		}
		src, err := open(t, "default@"+root, name)
		if err != nil || src.top.Digest.String() != d {
			t.Fatalf("%s: got %v and error %v, want %s", name, src, err, d)
		}
	}
	_, err = open(t, "default@"+root, "absent")
	var none *remote.NameError
	if !errors.As(err, &none) || len(none.Names) != len(want) {
		t.Errorf("got error %v, want one that has all names", err)
	}
}

// TestDamaged reads databases in which bytes are others, or the end is missing. Whatever
// comes of it, it is an image or an error.
func TestDamaged(t *testing.T) {
	testenv.Slow(t)
	root := newStore(t, many)
	file := filepath.Join(root, databaseFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	wrong := 0
	for i := range 50 {
		damaged := append([]byte(nil), whole...)
		for range 1 + random.IntN(2000) {
			at := random.IntN(len(damaged))
			if random.IntN(2) == 0 { // headers of pages and their elements
				at = at&^4095 + random.IntN(64)
			}
			damaged[at] = byte(random.Uint32())
		}
		if i%3 == 0 { // the meta pages are right
			copy(damaged[:8192], whole[:8192])
		}
		if i%5 == 0 {
			damaged = damaged[:random.IntN(len(damaged))]
		}
		if err := os.WriteFile(file, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"absent", "@" + digest.FromString("absent").String(), "quay.io/a/" + digest.FromString("x").Encoded() + ":1"} {
			if _, err := open(t, "default@"+root, name); err != nil {
				wrong++
			}
		}
	}
	if wrong == 0 {
		t.Error("no database was damaged")
	}
	// A page that is its own child.
	loop := append([]byte(nil), whole...)
	for at := 2 * 4096; at < len(loop); at += 4096 {
		if p := page(loop[at : at+4096]); p.flags()&pageBranch != 0 {
			for i := range p.count() {
				order.PutUint64(loop[at+headerSize*(i+1)+8:], uint64(at/4096))
			}
		}
	}
	if err := os.WriteFile(file, loop, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, "default@"+root, "absent"); !errors.Is(err, errDatabase) {
		t.Errorf("with pages that are their own children: got error %v, want %v", err, errDatabase)
	}
}

// TestWritten reads a database while it is written, under the lock of who writes it.
func TestWritten(t *testing.T) {
	root := newStore(t, many)
	db, err := bbolt.Open(filepath.Join(root, databaseFile), 0o644, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			name := "quay.io/b/" + digest.FromString(strings.Repeat("y", i%500)).Encoded() + ":1"
			err := db.Update(func(tx *bbolt.Tx) error {
				if i%1000 < 500 {
					return putImage(tx, "default", name, descOf(name))
				}
				return tx.Bucket([]byte("v1")).Bucket([]byte("default")).Bucket([]byte("images")).DeleteBucket([]byte(name))
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	read, busy := 0, 0
	for i := range 300 {
		name := "quay.io/a/" + digest.FromString(strings.Repeat("x", i*10)).Encoded() + ":1"
		src, err := open(t, "default@"+root, name)
		switch {
		case errors.Is(err, errChanged):
			busy++
		case err != nil || src.top.Digest != descOf(name).Digest:
			t.Errorf("%s: got %v and error %v", name, src, err)
		default:
			read++
		}
	}
	close(done)
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if t.Logf("%d were read, %d were not as the database was written all the time", read, busy); read == 0 {
		t.Error("nothing could be read")
	}
}

// TestLinks: nothing is read through links.
func TestLinks(t *testing.T) {
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{})
	root := newStore(t, func(tx *bbolt.Tx) error { return putImage(tx, "default", "x", top) })
	manifest, _ := store.Get(top.Digest)
	outside := filepath.Join(t.TempDir(), "manifest")
	if err := errors.Join(os.WriteFile(outside, manifest, 0o644), os.Symlink(outside, filepath.Join(root, blobsDir, "sha256", top.Digest.Encoded()))); err != nil {
		t.Fatal(err)
	}
	src, err := open(t, "default@"+root, "x")
	if err == nil {
		_, err = src.Fetch(t.Context(), top)
	}
	if err == nil {
		t.Error("a blob that is a link was read")
	}
}
