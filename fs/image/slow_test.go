package image_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// slowly answers rightly after a pause.
func slowly(pause time.Duration) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		serve(w, r)
	}
}

// TestSlowIndexRepository: an index repository that answers each request, and slowly, is
// not waited for, however many layers there are.
func TestSlowIndexRepository(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for name, c := range map[string]struct {
		kind  registrytest.Kind
		fault func(s *registrytest.Server) registrytest.Fault
		most  time.Duration
	}{
		"tags":           {registrytest.Manifest, func(*registrytest.Server) registrytest.Fault { return slowly(2800 * time.Millisecond) }, 12 * time.Second},
		"trickled tags":  {registrytest.Manifest, func(s *registrytest.Server) registrytest.Fault { return s.Trickle(0, 1, 500*time.Millisecond) }, 12 * time.Second},
		"trickled blobs": {registrytest.Blob, func(s *registrytest.Server) registrytest.Fault { return s.Trickle(0, 1, 500*time.Millisecond) }, 27 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var layers []sourcetest.Layer
			other := registrytest.New(t, nil)
			for i := range 48 {
				layers = append(layers, gzipLayer(t, fmt.Sprint("f", i), text(1000+i)))
				x := newLiarRegistry(t, layers[i])
				x.Server = other
				x.publish(x.own)
			}
			r := newLiarRegistry(t, layers[0])
			r.pushImage(layers...)
			opts, warns := sizedOptions(t, r.Server)
			opts.IndexRepos = []string{other.Host() + "/idx"}
			other.Inject(c.kind, registrytest.Always(c.fault(other)))
			begin := time.Now()
			img, err := r.open(opts)
			if err != nil {
				t.Fatalf("%v after %v: %s", err, time.Since(begin), warns())
			}
			defer img.Close()
			if d := time.Since(begin); d > c.most {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestSlowBeside: what may lie beside an image is not waited for if it does not come.
func TestSlowBeside(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for name, f := range map[string]func(s *registrytest.Server) registrytest.Fault{
		"refused": func(s *registrytest.Server) registrytest.Fault {
			return registrytest.Status(http.StatusServiceUnavailable)
		},
		"stalled": func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
		"trickled": func(s *registrytest.Server) registrytest.Fault {
			return s.Trickle(0, 1, 500*time.Millisecond)
		},
	} {
		for _, what := range []string{"referrers", "manifest", "ztoc"} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				r := &liarRegistry{Server: registrytest.New(t, &registrytest.Options{Referrers: true}), t: t}
				layer := gzipLayer(t, "f", text(1000))
				ztoc := r.PutBlob("application/octet-stream", []byte("ztoc"))
				ztoc.Annotations = map[string]string{"com.amazon.soci.image-layer-digest": layerDigest(layer), "com.amazon.soci.image-layer-mediaType": layer.MediaType}
				m := ocispec.Manifest{ArtifactType: soci.ArtifactTypeV2, Layers: []ocispec.Descriptor{ztoc}}
				m.Config = r.PutBlob(soci.ArtifactTypeV2, []byte("{}"))
				broken := r.PutArtifact("app", "", m).Digest
				r.annotations = map[string]string{soci.AnnotationIndex: broken.String()}
				if what == "ztoc" {
					broken = ztoc.Digest
				}
				fault := f(r.Server)
				only := func(w http.ResponseWriter, req *http.Request, serve http.HandlerFunc) {
					if what == "referrers" || strings.HasSuffix(req.URL.Path, broken.Encoded()) {
						fault(w, req, serve)
						return
					}
					serve(w, req)
				}
				kinds := []registrytest.Kind{registrytest.Manifest, registrytest.Blob}
				if what == "referrers" {
					r.annotations, kinds = nil, []registrytest.Kind{registrytest.Referrers}
				}
				for _, k := range kinds {
					r.Inject(k, registrytest.Always(only))
				}
				r.pushImage(layer)
				opts, warns := sizedOptions(t, r.Server)
				opts.IndexTrust = image.TrustPublished
				begin := time.Now()
				img, err := r.open(opts)
				if err != nil {
					t.Fatalf("%v after %v: %s", err, time.Since(begin), warns())
				}
				defer img.Close()
				if d := time.Since(begin); d > 12*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		}
	}
}
