package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// pushSized puts an image of one layer behind the tag app:latest of a registry.
// Its manifest states another size of the layer than it has, by so many bytes.
func pushSized(t *testing.T, reg *registrytest.Server, layer sourcetest.Layer, by int64) {
	t.Helper()
	l := reg.PutBlob(layer.MediaType, layer.Content)
	l.Size += by
	config := reg.PutBlob(ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer.DiffID))
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{l}}
	m.SchemaVersion = 2
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	reg.Tag("app", "latest", reg.PutManifest(m.MediaType, data).Digest)
}

// sizedOptions are those to open an image of reg with, whose warnings go to warns.
func sizedOptions(t *testing.T, reg *registrytest.Server) (opts *image.Options, warns func() string) {
	var mu sync.Mutex
	var all []string
	return &image.Options{CacheDir: t.TempDir(), Platform: "linux/amd64",
			Warnf: func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, fmt.Sprintf(format, args...))
			},
			Registry: registry.Options{
				Sites: func(_ context.Context, ref remote.Reference) ([]*hosts.Site, error) {
					site := hosts.Canonical(ref)
					site.Scheme = "http"
					return []*hosts.Site{site}, nil
				},
				Credential: func(context.Context, string, string) (hosts.Credential, error) { return hosts.Credential{}, nil },
				MinBackoff: 1, MaxBackoff: 1,
			}}, func() string {
			mu.Lock()
			defer mu.Unlock()
			defer func() { all = nil }()
			return strings.Join(all, "\n")
		}
}

// TestLayerOfAnotherSize opens images of a registry whose manifests state a wrong
// size of a layer. The digest decides, with a warning, whichever way the registry
// serves it; what the cache knows is not asked for again.
func TestLayerOfAnotherSize(t *testing.T) {
	t.Parallel()
	content := text(300_000)
	layer := gzipLayer(t, "file", content)
	refused := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") != "" {
			registrytest.Status(403)(w, r, serve)
			return
		}
		serve(w, r)
	}
	for name, f := range map[string]registrytest.Fault{"ranges served": nil, "ranges ignored": registrytest.IgnoreRange(), "ranges refused": refused} {
		for _, by := range []int64{-1, 1, -1000, 1 << 33, 1 << 55, -1 << 40, -int64(len(layer.Content))} {
			t.Run(fmt.Sprintf("%s, by %d", name, by), func(t *testing.T) {
				t.Parallel()
				reg := registrytest.New(t, nil)
				pushSized(t, reg, layer, by)
				if f != nil {
					reg.Inject(registrytest.Blob, registrytest.Always(f))
				}
				opts, warns := sizedOptions(t, reg)
				for _, offline := range []bool{false, false, true} {
					opts.Offline = offline
					reg.Forget()
					img, err := image.Open(t.Context(), reg.Host()+"/app:latest", opts)
					if err != nil {
						t.Fatalf("offline %t: %v", offline, err)
					}
					got, err := iofs.ReadFile(img.FS(t.Context()), "file")
					if err != nil || string(got) != content {
						t.Errorf("offline %t: %d bytes, %v", offline, len(got), err)
					}
					if text := warns(); strings.Count(text, "its digest decides") != 1 {
						t.Errorf("offline %t: warnings %q", offline, text)
					}
					if err := img.Close(); err != nil {
						t.Error(err)
					}
				}
				for _, r := range reg.Requests(registrytest.Blob) {
					t.Errorf("asked again for %s", r.Path)
				}
			})
		}
	}
}

// TestLayerOfNoSize: what neither the manifest's size nor the registry's gives the
// digest to is refused, and a size that is too much is before anything is read.
func TestLayerOfNoSize(t *testing.T) {
	t.Parallel()
	layer := gzipLayer(t, "file", text(300_000))
	lies := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") == "" {
			registrytest.Status(400)(w, r, serve)
			return
		}
		registrytest.Header(func(h http.Header) {
			if first, _, ok := strings.Cut(h.Get("Content-Range"), "/"); ok {
				h.Set("Content-Range", fmt.Sprint(first, "/", len(layer.Content)-5))
			}
		})(w, r, serve)
	}
	for name, tc := range map[string]struct {
		fault registrytest.Fault
		by    int64
		most  int64
		want  error
		says  string
	}{
		"the registry says another":    {fault: lies, by: -3, want: remote.ErrUnavailable, says: fmt.Sprintf("with the %d bytes that the registry says it has", len(layer.Content)-5)},
		"other bytes":                  {fault: registrytest.FlipBit(), want: layerindex.ErrDigest},
		"other bytes, another size":    {fault: registrytest.FlipBit(), by: 2, want: remote.ErrUnavailable},
		"too big as the registry says": {by: -int64(len(layer.Content)) + 10, most: 1000, want: layerindex.ErrTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New(t, nil)
			pushSized(t, reg, layer, tc.by)
			opts, _ := sizedOptions(t, reg)
			opts.MaxBlob = tc.most
			r, err := image.Resolve(t.Context(), reg.Host()+"/app:latest", opts)
			if err != nil {
				t.Fatal(err)
			}
			if tc.fault != nil {
				reg.Inject(registrytest.Blob, registrytest.Always(tc.fault))
			}
			layers, err := r.OpenLayers(t.Context(), nil)
			if err == nil {
				layers.Close()
			}
			if !errors.Is(err, tc.want) || !strings.Contains(fmt.Sprint(err), tc.says) {
				t.Errorf("got %v, want %v, which says %q", err, tc.want, tc.says)
			}
			if n := reg.Bytes(registrytest.Blob); tc.most > 0 && n > int64(len(layer.Content))+1000 {
				t.Errorf("%d bytes were sent", n)
			}
		})
	}
}
