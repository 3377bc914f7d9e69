package registry_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A manifest whose blob is being put by somebody else, which docker-registry 2.8 does
// not know for a moment, is put again.
func TestPutManifestBlobUnknown(t *testing.T) {
	t.Parallel()
	unknown := registrytest.Refuse(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
	for times, want := range map[int]error{2: nil, 100: remote.ErrNotFound} {
		s, opts := writable(t, nil)
		r := open(t, s, opts)
		s.Inject(registrytest.Manifest, registrytest.Times(times, unknown))
		_, err := r.PutManifest(t.Context(), manifestType, []byte(testManifest), "tag")
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d times: got error %v, want %v", times, err, want)
		}
		if n := s.Count(registrytest.Manifest); want == nil && n < 3 || n > 10 {
			t.Errorf("%d times: %d requests", times, n)
		}
	}
}

// A blob that is there is not sent, and what is sent is told.
func TestPutBlobProgress(t *testing.T) {
	t.Parallel()
	content := noise(4, 300_000)
	for _, chunk := range []int64{0, 100_000, -1} {
		s, opts := writable(t, nil)
		r := loggedIn(t, s, opts)
		s.Inject(registrytest.Upload, nth(2, registrytest.ResetBody(50_000)))
		var told []int64
		put := func() error {
			return r.PutBlob(t.Context(), descriptorOf(content), bytes.NewReader(content), &registry.PutOptions{Chunk: chunk, Progress: func(n int64) { told = append(told, n) }})
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if len(told) < 2 || told[len(told)-1] != int64(len(content)) || !slices.IsSorted(told) || len(slices.Compact(slices.Clone(told))) != len(told) {
			t.Errorf("chunk %d: told %v", chunk, told)
		}
		s.Forget()
		told = nil
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if n := s.Count(registrytest.Upload); n > 0 || !slices.Equal(told, []int64{int64(len(content))}) {
			t.Errorf("chunk %d: there already: %d requests, told %v", chunk, n, told)
		}
	}
	// Where HEAD is refused it is sent.
	s, opts := writable(t, nil)
	r := loggedIn(t, s, opts)
	s.Inject(registrytest.Blob, registrytest.Always(registrytest.Status(405)))
	if err := r.PutBlob(t.Context(), descriptorOf(content), bytes.NewReader(content), nil); err != nil {
		t.Errorf("HEAD refused: %v", err)
	}
}

// What is refused is said, and where.
func TestPushRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		want   error
		say    string
	}{
		"401": {401, remote.ErrUnauthorized, "401"}, // package image has the hint
		"403": {403, remote.ErrUnauthorized, "403"},
		"404": {404, remote.ErrNotFound, "app to be made before"},
		"405": {405, remote.ErrUnavailable, "405"},
		"413": {413, remote.ErrUnavailable, "413"},
		"500": {500, remote.ErrUnavailable, "500"},
	} {
		s, opts := writable(t, nil)
		r := open(t, s, opts)
		s.Inject(registrytest.Upload, registrytest.Always(registrytest.Status(tc.status)))
		s.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(tc.status)))
		_, failed := r.PutManifest(t.Context(), manifestType, []byte(testManifest), "tag")
		for _, err := range []error{failed, r.PutBlob(t.Context(), descriptorOf([]byte("x")), strings.NewReader("x"), nil)} {
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.say) || !strings.Contains(err.Error(), s.Host()+"/app") {
				t.Errorf("%s: got error %v, want %v with %q", name, err, tc.want, tc.say)
			}
		}
	}
	s := registrytest.New(t, nil)
	if err := open(t, s, fast()).PutBlob(t.Context(), descriptorOf([]byte("x")), strings.NewReader("x"), nil); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("a registry that only reads: got error %v, want %v", err, remote.ErrUnavailable)
	}
}
