//go:build linux

package hostile

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// expect runs a command that has to fail with one of the errors named.
func (v *verdict) expect(whys []string, args ...string) {
	v.t.Helper()
	u := v.run(nil, args...)
	v.ends = v.oneLine(u.stderr)
	for _, why := range whys {
		if u.code == 1 && strings.Contains(u.stderr, why) {
			return
		}
	}
	v.t.Errorf("exit code %d, %q; want 1 and an error with one of %q", u.code, u.stderr, whys)
}

// TestHostileArchives opens files that are no archives, or too big.
func TestHostileArchives(t *testing.T) {
	testenv.Slow(t)
	j := setUp(t)
	r := newReport(j)
	mib := map[bool]int{true: 10 << 10, false: 1 << 10}[j.size.full]
	dir := t.TempDir()
	zip := filepath.Join(dir, "zeros")
	writeGzip(t, zip, mib, nil)
	tarred := filepath.Join(dir, "tarred")
	writeGzip(t, tarred, 7*mib, bomb(int64(7*mib)<<20))
	fifo := filepath.Join(dir, "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	for _, c := range []struct{ name, of, file, why string }{
		{"zeros", fmt.Sprint(mib, " MiB of zeros as gzip"), zip, "archive"},
		{"tar of zeros", fmt.Sprint(7*mib, " MiB of zeros in a tar as gzip"), tarred, "--"},
		{"zeros without end", "/dev/zero", "/dev/zero", "/dev/zero"},
		{"directory", "a directory", dir, dir},
	} {
		for _, transport := range []string{"oci-archive:", "docker-archive:"} {
			t.Run(c.name+" "+transport, func(t *testing.T) {
				j.empty(t)
				v := &verdict{t: t, j: j, attack: Attack{Name: transport + " " + c.name}, image: transport + c.file}
				v.expect([]string{c.why}, "ls", transport+c.file)
				r.add(v, c.of)
			})
		}
	}
	t.Run("fifo", func(t *testing.T) {
		j.empty(t)
		v := &verdict{t: t, j: j, attack: Attack{Name: "pipe"}}
		run := j.start(t, nil, "ls", "oci-archive:"+fifo)
		time.AfterFunc(300*time.Millisecond, func() { run.signal(syscall.SIGTERM) })
		u := run.wait()
		v.judge(u)
		v.ends = v.oneLine(u.stderr)
		r.add(v, "a pipe that nobody writes to")
	})
	r.print(t)
}

// writeGzip writes MiB of zeros behind a head, compressed.
func writeGzip(t *testing.T, path string, mib int, head []byte) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	z := gzip.NewWriter(f)
	z.Write(head)
	must(t, z.Close())
	member := gzipMember(make([]byte, 64<<20))
	for range mib / 64 {
		_, err := f.Write(member)
		must(t, err)
	}
}

// TestHostileRegistries asks registries with bad manners.
func TestHostileRegistries(t *testing.T) {
	testenv.Slow(t)
	j := setUp(t)
	r := newReport(j)
	for _, c := range registryAttacks() {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			j.empty(t)
			dir := filepath.Join(t.TempDir(), "layout")
			m := NewImage(dir)
			size := map[bool]int64{true: 100 << 20, false: 10 << 20}[j.size.full]
			if c.bigger {
				size *= 4 // than the cache takes of one layer
			}
			m.Gzip(func(tar *Tar) { tar.random(size) })
			if c.claim > 0 {
				m.Manifest.Layers[0].Size = c.claim
			}
			must(t, m.Write())
			s := NewRegistry(dir, c.manners)
			defer s.Close()
			v := &verdict{t: t, j: j, attack: Attack{Name: c.name}, image: s.Image()}
			if c.whys != nil {
				args := append(strings.Fields(c.command), s.Image())
				if args[0] == "mount" {
					args = append(args, j.dir())
				}
				v.expect(c.whys, args...)
			} else {
				v.opens(v.run(nil, "ls", s.Image()), 0, 0)
				v.mount()
			}
			if c.claim > 0 && s.Sent.Load() > 1<<10 { // its config
				t.Errorf("%d bytes of blobs were fetched before it was refused", s.Sent.Load())
			}
			r.add(v, c.of)
		})
	}
	r.print(t)
}

// A registryAttack is a registry's bad manners.
type registryAttack struct {
	name, of string
	claim    int64 // the layer's size, if it lies
	bigger   bool
	command  string
	whys     []string // what the error says; nil if the image opens
	manners  Manners
}

func registryAttacks() []registryAttack {
	manifest := func(_ *Registry, what string) bool { return strings.HasPrefix(what, "manifests/") }
	layer := func(s *Registry, what string) bool { return s.size(what) > 1<<20 }
	endless := func(of func(*Registry, string) bool, status int, begin, rest string) Manners {
		return func(s *Registry, w http.ResponseWriter, r *http.Request, what string) bool {
			if of(s, what) {
				s.Endless(w, r, status, begin, rest)
			}
			return of(s, what)
		}
	}
	return []registryAttack{
		{name: "huge layer", of: "a layer that says it has 2^50 bytes", claim: 1 << 50, command: "ls", whys: []string{"--max-layer-size"}},
		{name: "whole blobs", of: "200 and the whole blob for every range, of a layer that does not fit", bigger: true, manners: func(_ *Registry, _ http.ResponseWriter, r *http.Request, _ string) bool {
			r.Header.Del("Range")
			return false
		}},
		{name: "endless layer", of: "a layer that does not end", command: "ls", whys: []string{"not what the manifest says", "unavailable"}, manners: endless(layer, 200, "", "x")},
		{name: "endless manifest", of: "a manifest that does not end", command: "ls", whys: []string{"bytes", "MiB"}, manners: endless(manifest, 200, `{"schemaVersion":2,"annotations":{"a":"`, "x")},
		{name: "endless refusal", of: "401 with a body that does not end", command: "ls", whys: []string{"401"}, manners: endless(manifest, 401, "", "x")},
		{name: "endless absence", of: "404 with a body that does not end", command: "ls", whys: []string{"404", "not found", "no such"}, manners: endless(manifest, 404, `{"errors":[{"code":"`, "x")},
		{name: "trickle", of: "a byte of a manifest each 100 ms", command: "mount -f --read-timeout=2s --retries=0", whys: []string{"nothing came", "timeout"}, manners: func(s *Registry, w http.ResponseWriter, r *http.Request, what string) bool {
			if manifest(s, what) {
				s.Trickle(w, r, 1<<20, 100*time.Millisecond)
			}
			return manifest(s, what)
		}},
	}
}

// random writes a file of size bytes that no compression makes smaller.
func (t *Tar) random(size int64) {
	t.Header(Header{Name: "random", Size: size})
	io.CopyN(t.w, noise{}, size)
}

// noise is the same every time.
type noise struct{}

func (noise) Read(p []byte) (int, error) {
	x := uint64(88172645463325252)
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x >> 32)
	}
	return len(p), nil
}
