//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

const (
	faultFile    = 600_000 // bytes of a file in the image
	faultTimeout = time.Second
)

// A mountFault is a fault of docs/faults.md under the readers of a mount.
type mountFault struct {
	server registrytest.Options // besides TLS
	kind   registrytest.Kind    // of the requests that fail; default Blob
	// mild is over soon: readers get the right bytes. hard is not: they get
	// an error, after a wait in which they can be killed unless it comes at once.
	mild, hard         func(s *registrytest.Server) func(int) registrytest.Fault
	mildOnce, hardOnce func(s *registrytest.Server) // done beside them
	atOnce             bool
	errno              syscall.Errno // of hard; default EIO
	everyone           bool          // hard is not only about one layer
}

// The faults that docs/faults.md has for mounts.
func TestMountFault01RangeIgnored(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{
		mild: always(wholeBlob(nil)),
		hard: func(s *registrytest.Server) func(int) registrytest.Fault {
			return registrytest.Always(wholeBlob(s.Stall(1000)))
		},
	})
}

func TestMountFault05Reset(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{mild: times(3, registrytest.Reset(10_000)), hard: always(registrytest.Reset(-1))})
}

func TestMountFault08Stall(t *testing.T) {
	testenv.Slow(t)
	stall := func(n, count int) func(s *registrytest.Server) func(int) registrytest.Fault {
		return func(s *registrytest.Server) func(int) registrytest.Fault {
			return registrytest.Times(count, s.Stall(n))
		}
	}
	testMountFault(t, mountFault{mild: stall(1000, 1), hard: stall(-1, 1<<30)})
}

func TestMountFault12TokenRefused(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{
		server:   registrytest.Options{Login: registrytest.Bearer},
		kind:     registrytest.Token,
		mildOnce: (*registrytest.Server).RevokeTokens,
		hardOnce: (*registrytest.Server).RevokeTokens,
		hard:     func(s *registrytest.Server) func(int) registrytest.Fault { return registrytest.Always(s.Stall(-1)) },
		everyone: true,
	})
}

func TestMountFault13OtherRefusal(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{
		server:   registrytest.Options{Login: registrytest.Bearer, RefusedStatus: 403},
		mildOnce: (*registrytest.Server).RevokeTokens,
		hard:     always(registrytest.Status(403)),
		atOnce:   true,
		errno:    syscall.EACCES,
	})
}

func TestMountFault17URLExpired(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{
		server:   registrytest.Options{CDN: true},
		kind:     registrytest.CDN,
		mildOnce: (*registrytest.Server).ExpireURLs,
		hard:     always(registrytest.Status(403)),
		atOnce:   true,
	})
}

func TestMountFault19RetryAfter(t *testing.T) {
	testenv.Slow(t)
	wait := registrytest.Status(429, "Retry-After", "1")
	testMountFault(t, mountFault{mild: times(1, wait), hard: always(wait), everyone: true})
}

func TestMountFault20ServerErrors(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{mild: times(2, registrytest.Status(500)), hard: always(registrytest.Status(502))})
}

func TestMountFault23FlippedBit(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{mild: times(1, registrytest.FlipBit()), hard: always(registrytest.FlipBit()), atOnce: true})
}

func TestMountFault25BlobGone(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{hard: always(registrytest.Status(404)), atOnce: true})
}

// Fifty bytes a second are as good as none.
func TestMountFault26Trickle(t *testing.T) {
	testenv.Slow(t)
	testMountFault(t, mountFault{hard: func(s *registrytest.Server) func(int) registrytest.Fault {
		return registrytest.Always(s.Trickle(1000, 1, 20*time.Millisecond))
	}})
}

func TestMountFault29RangeRefused(t *testing.T) {
	testenv.Slow(t)
	ranged := func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") != "" {
			registrytest.Status(416)(w, r, serve)
			return
		}
		serve(w, r)
	}
	testMountFault(t, mountFault{mild: always(ranged), hard: always(registrytest.Status(416)), atOnce: true})
}

// What a server says of what it refuses is in the log, and in the stats if it is
// down.
func TestMountFault31Words(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	t.Parallel()
	says := func(status int, text string) registrytest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"message":"%s\n\u001b[31m eyJhbGciOiJub25lIn0.e30. "}]}`, text)
		}
	}
	m := newFaultMount(t, mountFault{}, false)
	for _, tc := range []struct {
		status     int
		file, text string
	}{{404, "mild", "the layer was moved to tape"}, {503, "hard", "the tape robot is busy"}} {
		m.inject(always(says(tc.status, tc.text)), nil, tc.file, false)
		if r := m.read("cat", tc.file); r.code != 1 {
			t.Errorf("%d: exit code %d", tc.status, r.code)
		}
		log := readFile(t, filepath.Join(m.cache, "imgfs.log"))
		if !strings.Contains(log, tc.text+` \x1b[31m …`) || strings.Contains(log, "eyJ") {
			t.Errorf("%d: the log is %q, want what the registry says, without its token", tc.status, log)
		}
	}
	got := m.stats(m.dir)
	if len(got.Servers) != 1 || !strings.Contains(got.Servers[0].Reason, "503 Service Unavailable: the tape robot is busy") {
		t.Errorf("stats: got %+v", got.Servers)
	}
	m.reg.Inject(m.kind, nil)
	m.umount(m.dir)
}

func always(f registrytest.Fault) func(*registrytest.Server) func(int) registrytest.Fault {
	return func(*registrytest.Server) func(int) registrytest.Fault { return registrytest.Always(f) }
}

func times(n int, f registrytest.Fault) func(*registrytest.Server) func(int) registrytest.Fault {
	return func(*registrytest.Server) func(int) registrytest.Fault { return registrytest.Times(n, f) }
}

// wholeBlob sends the whole blob where a range was asked for, with a fault in
// it if f is one.
func wholeBlob(f registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if f == nil {
			registrytest.IgnoreRange()(w, r, serve)
			return
		}
		registrytest.IgnoreRange()(w, r, func(w http.ResponseWriter, r *http.Request) { f(w, r, serve) })
	}
}

// onlyFor has a fault only for requests whose path has a digest in it.
func onlyFor(d digest.Digest, next func(int) registrytest.Fault) func(int) registrytest.Fault {
	var mu sync.Mutex
	n := 0
	return registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !strings.Contains(r.URL.Path, d.String()) {
			serve(w, r)
			return
		}
		mu.Lock()
		n++
		fault := next(n)
		mu.Unlock()
		if fault == nil {
			serve(w, r)
			return
		}
		fault(w, r, serve)
	})
}

// seededNoise is a file's content that does not compress and is like no other.
func seededNoise(seed byte, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // it does not fail
	return string(b)
}

// oneFile is a layer of one file.
func oneFile(name, content string) labimage.Layer {
	return func(a *labimage.Archive) error { return a.File(name, content) }
}

// testMountFault reads through a mount with cat and sha256sum while a fault
// lasts, over HTTP/1.1 and HTTP/2.
func testMountFault(t *testing.T, c mountFault) {
	needFUSE(t)
	need(t, "cat", "sha256sum")
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			m := newFaultMount(t, c, proto == "HTTP/2.0")
			m.mild()
			m.hard()
			m.after()
			for _, r := range m.reg.Requests(registrytest.Blob, registrytest.CDN) {
				if r.Proto != proto {
					t.Errorf("a request came by %s, want %s", r.Proto, proto)
				}
			}
		})
	}
}

// A faultMount is a mount of which layers are fetched from a registry with
// faults: those of the files mild, hard and other.
type faultMount struct {
	*sandbox
	mountFault
	reg    *registrytest.Server
	dir    string
	layers map[string]digest.Digest // by the file in them
	files  map[string]string
}

func newFaultMount(t *testing.T, c mountFault, h2 bool) *faultMount {
	c.server.TLS = h2
	if c.kind == "" {
		c.kind = registrytest.Blob
	}
	if c.errno == 0 {
		c.errno = syscall.EIO
	}
	m := &faultMount{sandbox: newSandbox(t), mountFault: c, reg: registrytest.New(t, &c.server),
		layers: map[string]digest.Digest{}, files: map[string]string{}}
	names := []string{"mild", "hard", "other", "another"}
	var layers []labimage.Layer
	for i, name := range names {
		m.files[name] = seededNoise(byte(i+1), faultFile)
		layers = append(layers, oneFile(name, m.files[name]))
	}
	image, _ := publish(t, m.reg, layers...)
	flags := []string{"--tls-verify=false"}
	m.ok(append([]string{"index", image}, flags...)...)
	m.dropBlobs()
	m.dir = m.mount(image, append(flags, "--read-timeout="+faultTimeout.String())...)
	for i, l := range m.stats(m.dir).Layers {
		m.layers[names[i]] = l.Digest
	}
	// The mount knows where the layers are, and has a token. On a busy machine
	// that can take longer than a read may.
	for _, name := range names {
		var b string
		var err error
		if !eventually(20*time.Second, func() bool {
			b, err = headOf(filepath.Join(m.dir, name), 1)
			return err == nil
		}) || b != m.files[name][:1] {
			t.Fatalf("%s: %q, %v", name, b, err)
		}
	}
	m.dropChunks()
	return m
}

// headOf reads the first bytes of a file past the page cache.
func headOf(path string, n int) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, n)
	got, err := f.Read(b)
	return string(b[:got]), err
}

// dropChunks takes from the cache what the mount has fetched, as somebody
// else may.
func (m *faultMount) dropChunks() {
	m.t.Helper()
	m.ok("cache", "prune", "--all")
}

// read reads a file with a program to its end.
func (m *faultMount) read(program, name string) result {
	return m.finish(m.program(program, filepath.Join(m.dir, name)))
}

// right checks that cat and sha256sum both have the right bytes.
func (m *faultMount) right(when, name string) {
	m.t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if r := m.read("cat", name); r.code != 0 || r.stdout != m.files[name] {
			m.t.Errorf("%s: cat %s: exit code %d, %d bytes that are right: %t; %s", when, name, r.code, len(r.stdout), r.stdout == m.files[name], r.stderr)
		}
	})
	wg.Go(func() {
		want := fmt.Sprintf("%x", sha256.Sum256([]byte(m.files[name])))
		if r := m.read("sha256sum", name); r.code != 0 || !strings.HasPrefix(r.stdout, want) {
			m.t.Errorf("%s: sha256sum %s: exit code %d, %s%s", when, name, r.code, r.stdout, r.stderr)
		}
	})
}

// inject begins a fault, for the layer of one file or for all.
func (m *faultMount) inject(next func(*registrytest.Server) func(int) registrytest.Fault, once func(*registrytest.Server), name string, everyone bool) {
	if next != nil {
		f := next(m.reg)
		if !everyone {
			f = onlyFor(m.layers[name], f)
		}
		m.reg.Inject(m.kind, f)
	}
	if once != nil {
		once(m.reg)
	}
}

// asked counts requests for the layer of a file.
func (m *faultMount) asked(name string) (n int) {
	for _, r := range m.reg.Requests(registrytest.Blob, registrytest.CDN) {
		if strings.Contains(r.Path, m.layers[name].String()) {
			n++
		}
	}
	return n
}

func (m *faultMount) mild() {
	m.t.Helper()
	if m.mountFault.mild == nil && m.mildOnce == nil {
		return
	}
	m.reg.Forget()
	m.inject(m.mountFault.mild, m.mildOnce, "mild", false)
	m.right("a fault that passes", "mild")
	m.right("a fault of another layer", "other")
	m.reg.Inject(m.kind, nil)
	if n := m.asked("mild"); n > 12 {
		m.t.Errorf("%d requests for a file of three chunks", n)
	}
}

func (m *faultMount) hard() {
	m.t.Helper()
	m.reg.Forget()
	m.inject(m.mountFault.hard, m.hardOnce, "hard", m.everyone)
	if !m.atOnce {
		m.killed()
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for _, program := range []string{"cat", "sha256sum"} {
		wg.Go(func() {
			r := m.read(program, "hard")
			if r.code != 1 || !strings.Contains(strings.ToLower(r.stderr), m.errno.Error()) || program == "sha256sum" && r.stdout != "" || !strings.HasPrefix(m.files["hard"], r.stdout) {
				m.t.Errorf("%s: exit code %d, %d bytes, %q; want %v and no wrong byte", program, r.code, len(r.stdout), r.stderr, m.errno)
			}
		})
	}
	if !m.everyone {
		m.right("another layer", "another")
	}
	wg.Wait()
	// The kernel asks again for each page that readahead did not bring.
	if took := time.Since(begun); took > 8*faultTimeout {
		m.t.Errorf("EIO took %s", took)
	}
	if n := m.asked("hard"); n > 60 {
		m.t.Errorf("%d requests while the fault lasts", n)
	}
}

// killed ends readers while they wait: with Ctrl-C and kill -9.
func (m *faultMount) killed() {
	m.t.Helper()
	path := filepath.Join(m.dir, "hard")
	before := m.reg.Count(m.kind)
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}
	var readers []*exec.Cmd
	for range signals {
		cmd := m.program("cat", path)
		if err := cmd.Start(); err != nil {
			m.t.Fatal(err)
		}
		readers = append(readers, cmd)
	}
	waits := func() bool {
		for _, cmd := range readers {
			if !waitsFor(cmd.Process.Pid, path) {
				return false
			}
		}
		return m.reg.Count(m.kind) > before
	}
	if !eventually(10*time.Second, waits) {
		m.t.Error("nobody waits for a read")
	}
	begun := time.Now()
	for i, cmd := range readers {
		if err := cmd.Process.Signal(signals[i]); err != nil {
			m.t.Error(err)
		}
	}
	for i, cmd := range readers {
		var status *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &status) || status.Sys().(syscall.WaitStatus).Signal() != signals[i] {
			m.t.Errorf("cat ended with %v, want %v", err, signals[i])
		}
	}
	if took := time.Since(begun); took > faultTimeout/2 {
		m.t.Errorf("readers took %s to end", took)
	}
}

// waitsFor tells whether a process has a file open and sleeps.
func waitsFor(pid int, path string) bool {
	if at, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", pid)); err != nil || at != path {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := bytes.Cut(text, []byte(") "))
	return err == nil && ok && (state[0] == 'S' || state[0] == 'D')
}

// after ends the fault: without another mount everything can be read, and
// nothing wrong is in the cache.
func (m *faultMount) after() {
	m.t.Helper()
	m.reg.Inject(m.kind, nil)
	for name := range m.files {
		m.right("after the fault", name)
	}
	m.umount(m.dir)
	if r := m.run("cache", "verify"); r.code != 0 || strings.Contains(r.stdout, "removed") {
		m.t.Errorf("cache verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
