package registry_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// fast returns options under which trying again is a matter of milliseconds.
// Timeouts are for a machine with more to do.
func fast() *registry.Options {
	return &registry.Options{
		Credential:    anonymous,
		Sites:         noFiles(),
		CertDirs:      []string{},
		DialTimeout:   5 * time.Second,
		HeaderTimeout: 5 * time.Second,
		StallTimeout:  5 * time.Second,
		ReadTimeout:   20 * time.Second,
		MinBackoff:    time.Millisecond,
		MaxBackoff:    5 * time.Millisecond,
	}
}

// anonymous has no credentials.
func anonymous(context.Context, string, string) (hosts.Credential, error) {
	return hosts.Credential{}, nil
}

// noFiles is the configuration of a machine without configuration files.
func noFiles() hosts.SiteFunc {
	conf, err := (&hosts.ConfigFiles{Registries: []string{}, HostDirs: []string{}, DaemonJSON: []string{}}).Load()
	if err != nil {
		panic(err)
	}
	return conf.Sites
}

// open returns the image app:latest of a server.
func open(t *testing.T, s *registrytest.Server, opts *registry.Options) *registry.Repository {
	t.Helper()
	client := registry.New(opts)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return client.Repository(reference(s))
}

// reference is that of the image app:latest of a server.
func reference(s *registrytest.Server) remote.Reference {
	return remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"}
}

// trust makes opts trust the certificate of s, if it has one.
func trust(t *testing.T, s *registrytest.Server, opts *registry.Options) {
	t.Helper()
	if s.Certificate() == nil {
		return
	}
	dir := t.TempDir()
	for _, host := range s.Hosts() {
		if err := os.MkdirAll(filepath.Join(dir, host), 0o777); err != nil {
			t.Fatal(err)
		}
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(dir, host, "ca.crt"), cert, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	opts.CertDirs = []string{dir}
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func blobOf(t *testing.T, r *registry.Repository, desc ocispec.Descriptor) remote.Blob {
	t.Helper()
	b, err := r.Blob(desc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check reads a range and compares it with content.
func check(ctx context.Context, b remote.Blob, content []byte, off, n int) error {
	p := make([]byte, n)
	got, err := b.ReadAt(ctx, p, int64(off))
	if !bytes.Equal(p[:got], content[off:off+got]) {
		return fmt.Errorf("bytes %d to %d: wrong bytes, and error %v", off, off+n-1, err)
	}
	if err != nil {
		return fmt.Errorf("bytes %d to %d: %d right bytes and then %w", off, off+n-1, got, err)
	}
	if got != n {
		return fmt.Errorf("bytes %d to %d: %d bytes without an error", off, off+n-1, got)
	}
	return nil
}
