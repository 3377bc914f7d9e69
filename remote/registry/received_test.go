package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// received returns what has come for a source or blob.
func received(t *testing.T, x any) int64 {
	t.Helper()
	n, ok := x.(remote.Counted).TakeReceived()
	if !ok {
		t.Fatalf("%T does not count", x)
	}
	return n
}

// sent returns how many bytes a registry has sent in its answers: at least so many, if
// it gets that far in a moment. It counts them after it has sent them.
func sent(s *registrytest.Server, least int64, kinds ...registrytest.Kind) int64 {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		n := int64(0)
		for _, record := range s.Requests(kinds...) {
			if record.Method != "HEAD" {
				n += record.Bytes
			}
		}
		if n >= least || time.Since(begun) > 5*time.Second {
			return n
		}
	}
}

// What came for a blob is what the registry sent, whether or not it was of use.
func TestTakeReceivedBlob(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	const off, n = 300_000, 100_000
	for _, tt := range []struct {
		name  string
		fault func(int) registrytest.Fault
		least int64
	}{
		{"none", nil, n},
		{"broken off twice", registrytest.Times(2, registrytest.Truncate(20_000)), n},
		{"refused first", registrytest.Once(registrytest.Status(500)), n + 1},
		{"wrong bytes", registrytest.Once(registrytest.FlipBit()), n},
		{"sent whole", registrytest.Once(registrytest.IgnoreRange()), off + n},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.Forget()
			s.Inject(registrytest.Blob, tt.fault)
			defer s.Inject(registrytest.Blob, nil)
			p := make([]byte, n)
			if m, err := b.ReadAt(t.Context(), p, off); m != n || err != nil {
				t.Fatalf("got %d bytes and error %v", m, err)
			}
			got := received(t, b)
			most := sent(s, got, registrytest.Blob)
			// Of an answer that is ended early more may have been sent than came.
			if exact := tt.name != "sent whole"; got < tt.least || got > most || exact && got != most {
				t.Errorf("%d bytes count as received; the registry sent %d, and %d are the least", got, most, tt.least)
			}
			if again := received(t, b); again != 0 {
				t.Errorf("%d bytes count twice", again)
			}
		})
	}
}

// A blob that is sent whole and read to its end counts once.
func TestTakeReceivedWhole(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)).(remote.WholeBlob)
	if _, err := b.ReadRange(t.Context(), make([]byte, 10), 50, nil); !errors.Is(err, remote.ErrWhole) {
		t.Fatalf("got error %v, want ErrWhole", err)
	}
	var all bytes.Buffer
	if err := b.ReadWhole(t.Context(), &all, 0); err != nil || !bytes.Equal(all.Bytes(), content) {
		t.Fatalf("got %d bytes and error %v", all.Len(), err)
	}
	if got := received(t, b); got != int64(len(content)) {
		t.Errorf("%d bytes count as received, want %d", got, len(content))
	}
}

// Manifests, configs, lists of tags and refusals count for the repository, also
// with a mirror before it.
func TestTakeReceivedDocuments(t *testing.T) {
	s := registrytest.New(t, nil)
	config := s.PutBlob(ocispec.MediaTypeImageConfig, []byte(`{"os":"linux"}`))
	manifest := s.PutManifest(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[]}`))
	ref := reference(s)
	s.Tag(ref.Repository, ref.Tag, manifest.Digest)
	r := open(t, s, fast())
	for _, step := range []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"resolve", func(ctx context.Context) error { _, err := r.Resolve(ctx); return err }},
		{"manifest", func(ctx context.Context) error { _, err := r.Fetch(ctx, manifest); return err }},
		{"config", func(ctx context.Context) error { _, err := r.Fetch(ctx, config); return err }},
		{"config, refused first", func(ctx context.Context) error {
			s.Inject(registrytest.Blob, registrytest.Once(registrytest.Status(500)))
			_, err := r.Fetch(ctx, config)
			return err
		}},
		{"resolve by GET", func(ctx context.Context) error {
			s.Inject(registrytest.Manifest, registrytest.Once(registrytest.Status(405)))
			_, err := r.Resolve(ctx)
			return err
		}},
		{"tags", func(ctx context.Context) error { _, err := r.Tags(ctx); return err }},
	} {
		s.Forget()
		if err := step.do(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := received(t, r)
		if want := sent(s, got, registrytest.Manifest, registrytest.Blob, registrytest.Tags); got != want || want == 0 && step.name != "resolve" {
			t.Errorf("%s: %d bytes count as received, the registry sent %d", step.name, got, want)
		}
	}
}

// A stream tells of each byte once, however it came.
func TestStreamArrived(t *testing.T) {
	content := noise(1, 3<<20)
	for name, fault := range map[string]func(int) registrytest.Fault{
		"ranges":     nil,
		"broken off": registrytest.Times(3, registrytest.Truncate(100_000)),
		"sent whole": registrytest.Always(registrytest.IgnoreRange()),
		"whole then broken": func(n int) registrytest.Fault {
			return whole(registrytest.Truncate((n + 1) * 1_000_000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, nil)
			s.Inject(registrytest.Blob, fault)
			b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			sum, calls := 0, 0
			r := remote.NewStream(t.Context(), b, &remote.StreamOptions{Arrived: func(n int) {
				sum += n
				calls++
			}})
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("got %d bytes and error %v", len(got), err)
			}
			if sum != len(content) || calls < 3 {
				t.Errorf("told %d times of %d bytes, want %d", calls, sum, len(content))
			}
		})
	}
}
