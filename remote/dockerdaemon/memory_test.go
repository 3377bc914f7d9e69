package dockerdaemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerdaemon"
)

// A memory is one in memory.
type memory struct {
	documents map[digest.Digest][]byte
	names     map[string]ocispec.Descriptor
}

func newMemory() *memory {
	return &memory{make(map[digest.Digest][]byte), make(map[string]ocispec.Descriptor)}
}

func (m *memory) Reference(name string) (ocispec.Descriptor, bool) {
	desc, ok := m.names[name]
	return desc, ok
}

func (m *memory) KeepReference(name string, desc ocispec.Descriptor) { m.names[name] = desc }

func (m *memory) KeptMeta(d digest.Digest) ([]byte, bool) {
	content, ok := m.documents[d]
	return content, ok && digest.FromBytes(content) == d
}

func (m *memory) KeepMeta(d digest.Digest, content []byte) { m.documents[d] = content }

// gets returns how often the image was asked for.
func (f *fake) gets() (n int) {
	for _, path := range f.requests() {
		if strings.HasSuffix(path, "/get") {
			n++
		}
	}
	return n
}

// opened opens the image of a fake.
func (f *fake) opened(t *testing.T, m *memory, now bool) (*dockerdaemon.Source, *remote.Image) {
	t.Helper()
	src, err := dockerdaemon.Open(t.Context(), "app", &dockerdaemon.Options{Host: f.host, Memory: m, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	img, err := remote.Open(t.Context(), src, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	return src, img
}

func contentOf(t *testing.T, b remote.Blob) string {
	t.Helper()
	p := make([]byte, b.Size())
	if n, err := b.ReadAt(t.Context(), p, 0); n < len(p) || err != nil && err != io.EOF {
		t.Errorf("read %d of %d bytes, error %v", n, len(p), err)
	}
	return string(p)
}

// An image that was streamed before is streamed again when a layer is read, once.
func TestRemembered(t *testing.T) {
	f, m := newFake(t, nil), newMemory()
	_, first := f.opened(t, m, false)
	want := contentOf(t, first.Layers[0])
	if n := f.gets(); n != 1 || len(m.documents) != 2 || len(m.names) != 1 {
		t.Fatalf("the image was streamed %d times, and %d documents and %d names are remembered", n, len(m.documents), len(m.names))
	}
	src, img := f.opened(t, m, false)
	if img.Top.Digest != first.Top.Digest || string(img.Config) != string(first.Config) || len(img.Layers) != 1 || img.Layers[0].Size() != first.Layers[0].Size() {
		t.Errorf("it is another image: %+v", img)
	}
	if n := f.gets(); n != 1 {
		t.Errorf("it was streamed %d times, and nothing of it was read", n)
	}
	if !remote.IsLocal(img.Layers[0].Blob) {
		t.Error("what is streamed is not on this machine")
	}
	var readers sync.WaitGroup
	for range 20 {
		readers.Go(func() {
			if contentOf(t, img.Layers[0]) != want {
				t.Error("the layer has other bytes")
			}
		})
	}
	readers.Wait()
	if n := f.gets(); n != 2 {
		t.Errorf("it was streamed %d times, want 2", n)
	}
	if err := errors.Join(src.Close(), src.Close()); err != nil {
		t.Error(err)
	}
	if _, err := img.Layers[0].ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Error("it is read after it was closed")
	}
	if f.opened(t, m, true); f.gets() != 3 {
		t.Error("it was not streamed though it was to be")
	}
}

// What is remembered is used only if it belongs to the image that the daemon has.
func TestForgotten(t *testing.T) {
	_, id := image(t)
	other := digest.FromString("{}")
	for name, damage := range map[string]func(m *memory){
		"no config":        func(m *memory) { delete(m.documents, digest.Digest(id)) },
		"no manifest":      func(m *memory) { delete(m.documents, m.names["docker-daemon:"+id].Digest) },
		"no name":          func(m *memory) { clear(m.names) },
		"a damaged config": func(m *memory) { m.documents[digest.Digest(id)] = []byte("{}") },
		"another manifest": func(m *memory) {
			m.documents[other] = []byte("{}")
			m.names["docker-daemon:"+id] = ocispec.Descriptor{Digest: other, Size: 2}
		},
		"other layers": func(m *memory) {
			manifest := fmt.Sprintf(`{"config":{"digest":%q},"layers":[{"digest":%q}]}`, id, other)
			d := digest.FromString(manifest)
			m.documents[d] = []byte(manifest)
			m.names["docker-daemon:"+id] = ocispec.Descriptor{Digest: d}
		},
	} {
		f, m := newFake(t, nil), newMemory()
		f.opened(t, m, false)
		damage(m)
		if _, img := f.opened(t, m, false); f.gets() != 2 || len(img.Layers) != 1 {
			t.Errorf("%s: it was streamed %d times, want 2", name, f.gets())
		}
		if f.opened(t, m, false); f.gets() != 2 {
			t.Errorf("%s: it is not remembered", name)
		}
	}
}

// What the daemon sends is the image that was asked for, or nothing.
func TestAnotherImage(t *testing.T) {
	archive, id := image(t)
	manifest := fmt.Sprintf(`{"config":{"digest":%q}}`, id)
	index := fmt.Sprintf(`{"manifests":[{"digest":%q},{"digest":%q}]}`, digest.FromString("absent"), digest.FromString(manifest))
	layout := tarOf(t, "blobs/sha256/"+digest.FromString(manifest).Encoded(), manifest, "blobs/sha256/"+digest.FromString(index).Encoded(), index)
	layout = append(layout[:len(layout)-1024:len(layout)-1024], archive...)
	lying := tarOf(t, "blobs/sha256/"+digest.FromString("another").Encoded(), manifest)
	lying = append(lying[:len(lying)-1024:len(lying)-1024], archive...)
	another := digest.FromString("another").String()
	for _, c := range []struct {
		name, id, ref, more string
		sent                []byte
		ok                  bool
	}{
		{"its config", id, id, "", archive, true},
		{"another", another, "app", "", archive, false},
		{"another for an ID", id, another, "", archive, false},
		{"a manifest", digest.FromString(manifest).String(), "app", "", layout, true},
		{"an index", digest.FromString(index).String(), digest.FromString(index).String(), "", layout, true},
		{"a blob that is another", another, "app", "", lying, false},
		{"containerd's, not sent", another, another, `,"Descriptor":{"digest":"` + another + `"}`, archive, true},
		{"containerd's, and wrong", another, "app", `,"Descriptor":{"digest":"` + another + `"}`, lying, false},
	} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case strings.HasSuffix(r.URL.Path, "/json"):
				fmt.Fprintf(w, `{"Id":%q%s}`, c.id, c.more)
			case strings.HasSuffix(r.URL.Path, "/get"):
				_, _ = w.Write(c.sent)
			default:
				return false
			}
			return true
		})
		m := newMemory()
		src, err := dockerdaemon.Open(t.Context(), c.ref, &dockerdaemon.Options{Host: f.host, Memory: m})
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), "the daemon sends another image, whose config is "+id)) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if err == nil {
			src.Close()
		}
		if known := len(m.names) > 0; known != (c.id == id && c.ok) {
			t.Errorf("%s: is remembered: %t", c.name, known)
		}
	}
}

// A stream that begins late ends with the last who waits for it, or with the source, and
// the next reader has another one.
func TestStreamedLate(t *testing.T) {
	archive, _ := image(t)
	hang := make(chan bool, 1) // what the next stream does
	begun, ended := make(chan struct{}, 10), make(chan struct{}, 10)
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/get") {
			return false
		}
		if <-hang {
			_, _ = w.Write(archive[:1000])
			_ = http.NewResponseController(w).Flush()
			begun <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
			return true
		}
		_, _ = w.Write(archive)
		return true
	})
	m := newMemory()
	hang <- false
	f.opened(t, m, false)
	src, img := f.opened(t, m, false)
	read := func(ctx context.Context) error {
		_, err := img.Layers[0].ReadAt(ctx, make([]byte, 10), 0)
		return err
	}

	hang <- true
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	stays, leaves := context.WithCancel(t.Context())
	go func() { errs <- read(ctx) }()
	<-begun
	go func() { errs <- read(stays) }()
	time.Sleep(50 * time.Millisecond) // it waits, too
	cancel()
	if err := <-errs; err != context.Canceled {
		t.Errorf("who leaves gets error %v", err)
	}
	select {
	case <-ended:
		t.Error("the stream ended though somebody waits")
	case <-time.After(50 * time.Millisecond):
	}
	leaves()
	if err := <-errs; err != context.Canceled {
		t.Errorf("the last who leaves gets error %v", err)
	}
	<-ended

	hang <- false
	if err := read(t.Context()); err != nil {
		t.Errorf("the next reader gets error %v", err)
	}
	if n := f.gets(); n != 3 {
		t.Errorf("it was streamed %d times, want 3", n)
	}
	src.Close()

	src, img = f.opened(t, m, false)
	hang <- true
	go func() { errs <- read(t.Context()) }()
	<-begun
	src.Close()
	if err := <-errs; err == nil {
		t.Error("a read goes on though the source is closed")
	}
	<-ended
}
