package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// bothProtocols runs a test over HTTP/1.1 and HTTP/2, with options that trust
// the server.
func bothProtocols(t *testing.T, server registrytest.Options, test func(t *testing.T, s *registrytest.Server, opts *registry.Options)) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			server := server
			server.TLS = proto == "HTTP/2.0"
			s, opts := registrytest.New(t, &server), fast()
			trust(t, s, opts)
			test(t, s, opts)
			for _, r := range s.Requests(registrytest.Blob) {
				if r.Proto != proto {
					t.Errorf("a request came by %s, want %s", r.Proto, proto)
				}
			}
		})
	}
}

// A relay passes bytes on to a server, until it falls silent: then connections
// stay open and carry nothing.
type relay struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	conns []*relayed
}

// A relayed is a connection by way of a relay.
type relayed struct {
	net.Conn
	silent chan struct{}
	once   sync.Once
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.carry(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *relay) carry(conn net.Conn) {
	defer conn.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	c := &relayed{Conn: conn, silent: make(chan struct{})}
	r.mu.Lock()
	r.conns = append(r.conns, c)
	r.mu.Unlock()
	go func() {
		// Broken connections are no matter here.
		_, _ = io.Copy(server, c)
		server.Close()
	}()
	_, _ = io.Copy(c, server)
}

// Read and Write lose what comes once the connection is silent.
func (c *relayed) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		select {
		case <-c.silent:
			if err == nil {
				continue
			}
		default:
		}
		return n, err
	}
}

func (c *relayed) Write(p []byte) (int, error) {
	select {
	case <-c.silent:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

// silence lets the connections there are fall silent; new ones work. It
// returns how many there are.
func (r *relay) silence() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.once.Do(func() { close(c.silent) })
	}
	return len(r.conns)
}

// A connection that is kept for the next request has died, and nobody said so.
func TestFault11SilentConnection(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		relay := newRelay(t, s.Host())
		host := relay.l.Addr().String()
		if len(opts.CertDirs) > 0 {
			if err := os.Rename(filepath.Join(opts.CertDirs[0], s.Host()), filepath.Join(opts.CertDirs[0], host)); err != nil {
				t.Fatal(err)
			}
		}
		opts.HeaderTimeout, opts.StallTimeout = 200*time.Millisecond, 200*time.Millisecond
		client := registry.New(opts)
		defer client.Close()
		content := noise(1, blobSize)
		b := blobOf(t, client.Repository(remote.Reference{Registry: host, Repository: "app", Tag: "latest"}), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		for range 3 {
			readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
			if relay.silence() == 0 {
				t.Fatal("the readers did not come by way of the relay")
			}
		}
		start := time.Now()
		readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s to notice", d)
		}
		if n := s.Count(registrytest.Blob); n > 60 {
			t.Errorf("got %d requests for 20 reads", n)
		}
	})
}

// A credential helper hangs, breaks or is gone when a token has expired in the
// middle of a blob's life.
func TestFault15Helper(t *testing.T) {
	testenv.Slow(t)
	const good = `echo '{"Username":"u","Secret":"secret-p"}'`
	for _, tc := range []struct{ name, script, says string }{
		{"hangs", `echo $$ >"$0.pid"; sleep 600 & wait`, "docker-credential-fault-%s: no answer within 300ms"},
		{"hangs in another session", `setsid sh -c 'echo $$ >"$0.pid"; sleep 600 & wait' "$0"`, "docker-credential-fault-%s: no answer within 300ms"},
		{"breaks", `echo secret-p; exit 3`, "docker-credential-fault-%s: it ends with exit status 3"},
		{"junk", `echo secret-p`, "docker-credential-fault-%s: its output is not JSON"},
		{"absent", "", "401"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin := t.TempDir()
			t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(proto, func(t *testing.T) {
					testHelperFault(t, filepath.Join(bin, "docker-credential-fault-"+tc.name), tc.script, good, tc.says, proto)
				})
			}
		})
	}
}

func testHelperFault(t *testing.T, program, bad, good, says, proto string) {
	write := func(script string) {
		t.Helper()
		// Renamed, so that nobody runs it while it is being written.
		err := os.WriteFile(program+".new", []byte("#!/bin/sh\n"+script+"\n"), 0o755)
		if err := errors.Join(err, os.Rename(program+".new", program)); err != nil {
			t.Fatal(err)
		}
	}
	name := strings.TrimPrefix(filepath.Base(program), "docker-credential-")
	conf := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `{"credsStore": %q}`, name), 0o600); err != nil {
		t.Fatal(err)
	}
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, User: "u", Password: "secret-p", TLS: proto == "HTTP/2.0"})
	opts := fast()
	trust(t, s, opts)
	// A busy machine may take its time to start a helper: only one that hangs is
	// not waited for.
	patient := (&hosts.AuthFiles{Path: conf, HelperTimeout: 20 * time.Second}).Credential
	hasty := (&hosts.AuthFiles{Path: conf, HelperTimeout: 300 * time.Millisecond}).Credential
	var hurry atomic.Bool
	opts.Credential = func(ctx context.Context, host, repository string) (hosts.Credential, error) {
		if hurry.Load() {
			return hasty(ctx, host, repository)
		}
		return patient(ctx, host, repository)
	}
	content := noise(1, blobSize)
	write(good)
	b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Fatal(err)
	}

	write(bad)
	if bad == "" {
		if err := os.Remove(program); err != nil {
			t.Fatal(err)
		}
	}
	hurry.Store(strings.Contains(says, "no answer"))
	s.RevokeTokens()
	s.Forget()
	if strings.Contains(says, "%s") {
		says = fmt.Sprintf(says, strings.TrimPrefix(name, "fault-"))
	}
	start := time.Now()
	readers(t, 5, func(i int) error {
		_, err := b.ReadAt(t.Context(), make([]byte, 1000), int64(i)*1000)
		if !errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			return fmt.Errorf("got error %v, want %v with %q", err, remote.ErrUnauthorized, says)
		}
		return nil
	})
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("five readers waited %s for the helper", d)
	}
	if n := s.Count(); n > 15 {
		t.Errorf("got %d requests", n)
	}
	// It is empty if the helper had no time to write its number.
	if pid, err := os.ReadFile(program + ".pid"); err == nil && len(pid) > 0 {
		var group int
		if _, err := fmt.Sscan(string(pid), &group); err != nil {
			t.Fatal(err)
		}
		left := running(t, group)
		// What is not our child ends soon after it was killed.
		for end := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(end); left = running(t, group) {
			time.Sleep(5 * time.Millisecond)
		}
		if len(left) > 0 {
			t.Errorf("the helper or its child still runs: %q", left)
		}
	}
	write(good)
	hurry.Store(false)
	readers(t, 5, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
}

// A helper may take its own time, however short those of requests are; and
// who ends it before says which one it was.
func TestFault15SlowHelper(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	write := func(path, text string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(filepath.Join(bin, "docker-credential-slow"), "#!/bin/sh\nsleep 0.7\necho '{\"Username\":\"u\",\"Secret\":\"secret-p\"}'\n")
	write(filepath.Join(bin, "docker-credential-hangs"), "#!/bin/sh\nsleep 600 & wait\n")
	for _, tc := range []struct {
		name, helper string
		timeout      time.Duration // of a read
		says         string
	}{
		{"slow", "slow", 20 * time.Second, ""},
		{"hangs", "hangs", 20 * time.Second, "docker-credential-hangs: no answer within 1s"},
		{"hangs longer than a read waits", "hangs", 500 * time.Millisecond, "docker-credential-hangs: killed before it answered"},
	} {
		for _, login := range []registrytest.Login{registrytest.Basic, registrytest.Bearer} {
			t.Run(fmt.Sprint(tc.name, "/", login), func(t *testing.T) {
				t.Parallel()
				s := registrytest.New(t, &registrytest.Options{Login: login, User: "u", Password: "secret-p"})
				conf := write(filepath.Join(t.TempDir(), "config.json"), fmt.Sprintf(`{"credsStore": %q}`, tc.helper))
				opts := fast()
				opts.ReadTimeout, opts.HeaderTimeout, opts.StallTimeout = tc.timeout, 100*time.Millisecond, 100*time.Millisecond
				opts.Credential = (&hosts.AuthFiles{Path: conf, HelperTimeout: time.Second}).Credential
				content := noise(1, blobSize)
				b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
				err := check(t.Context(), b, content, 0, 10)
				if tc.says == "" && err != nil {
					t.Error(err)
				}
				if tc.says != "" && (!errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("got error %v, want %v with %q", err, remote.ErrUnauthorized, tc.says)
				}
			})
		}
	}
}

// running returns the processes of a group that are not just waiting to be
// waited for.
func running(t *testing.T, group int) (left []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// proc(5): the name is in parentheses, then come state, parent and group.
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 2 && f[2] == fmt.Sprint(group) && f[0] != "Z" && f[0] != "X" {
			left = append(left, string(text))
		}
	}
	return left
}
