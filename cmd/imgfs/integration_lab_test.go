//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// forEachMounter runs a test for root, who mounts directly, and for a user
// who mounts through fusermount3; without root for the user alone.
func forEachMounter(t *testing.T, test func(t *testing.T, who account)) {
	t.Helper()
	needFUSE(t)
	who := thisUser()
	t.Run(who.name, func(t *testing.T) { test(t, who) })
	if who.uid != 0 {
		return
	}
	t.Run("user", func(t *testing.T) { test(t, otherUser(t)) })
}

// otherUser returns a user that is not root and can mount. Only root can ask
// for one.
func otherUser(t testing.TB) account {
	t.Helper()
	need(t, "fusermount3", "useradd", "userdel")
	who, err := makeUser()
	if err != nil {
		missing(t, "%v", err)
	}
	openDevice(t)
	return who
}

// makeUser adds a user to the machine, for this run of the tests:
// fusermount3 wants its users to have a name.
var makeUser = sync.OnceValues(func() (account, error) {
	name := fmt.Sprintf("imgfs-test-%d", os.Getpid())
	out, err := exec.Command("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", name).CombinedOutput()
	if err != nil {
		return account{}, fmt.Errorf("useradd: %w: %s", err, bytes.TrimSpace(out))
	}
	afterAllTests(func() error {
		if out, err := exec.Command("userdel", "--force", name).CombinedOutput(); err != nil {
			return fmt.Errorf("userdel: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return account{"user", uid, gid}, errors.Join(err1, err2)
})

// openDevice lets ordinary users use /dev/fuse during a test. Tests of other
// packages may do the same at the same time: each holds a shared lock, and
// the last to go restores the mode.
func openDevice(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var st unix.Stat_t
	if err := errors.Join(unix.Flock(fd, unix.LOCK_SH), unix.Fstat(fd, &st)); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o006 == 0o006 {
		return
	}
	if err := unix.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = unix.Chmod("/dev/fuse", st.Mode&0o777)
		}
	})
}

// A dockerRegistry is a running docker-registry.
type dockerRegistry struct {
	host string
	data string // its storage
}

// startRegistry runs docker-registry on a free port.
func startRegistry() (r *dockerRegistry, stop func() error, err error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		program, err = exec.LookPath("registry") // so Fedora calls it
	}
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(runDir, "registry-")
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	r = &dockerRegistry{host: l.Addr().String(), data: filepath.Join(dir, "data")}
	l.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", r.data, r.host)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(conf), 0o666); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program, "serve", path)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	}
	answers := func() bool {
		resp, err := http.Get("http://" + r.host + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	}
	if !eventually(20*time.Second, answers) {
		stop()
		return nil, nil, fmt.Errorf("%s does not answer:\n%s", program, &out)
	}
	return r, stop, nil
}

// newRegistry runs docker-registry until the end of the test.
func newRegistry(t testing.TB) *dockerRegistry {
	t.Helper()
	needRegistry(t)
	r, stop, err := startRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	return r
}

func needRegistry(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("registry"); err != nil {
		need(t, "docker-registry")
	}
	need(t, "skopeo")
}

// push copies an OCI layout into the registry, byte for byte.
func (r *dockerRegistry) push(layout, name string) error {
	return skopeoCopy("oci:"+layout+":"+labimage.Tag, "docker://"+r.host+"/"+name, "--preserve-digests", "--dest-tls-verify=false")
}

func skopeoCopy(from, to string, flags ...string) error {
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "copy", "--quiet", from, to}, flags...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + runDir, "TMPDIR=" + runDir, "XDG_RUNTIME_DIR=" + runDir}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// A lab is what many tests share: a docker-registry with images in it that
// skopeo has pushed there.
type lab struct {
	*dockerRegistry
	layouts map[string]string // the images as OCI layouts, by their name
}

// The images of the lab.
const (
	zoo    = "lab/zoo"
	goTree = "lab/gotree"
)

// labSource is a program that makes the lab's images. With the race detector,
// which the tests may have, that would take a minute.
const labSource = `package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/imgfs/imgfs/testdata/labimage"
)

func main() {
	if err := errors.Join(labimage.Zoo(os.Args[1]), labimage.GoTree(os.Args[2])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`

var startLab = sync.OnceValues(func() (*lab, error) {
	r, stop, err := startRegistry()
	if err != nil {
		return nil, err
	}
	afterAllTests(stop)
	l := &lab{r, map[string]string{zoo: filepath.Join(runDir, "zoo"), goTree: filepath.Join(runDir, "gotree")}}
	source := filepath.Join(runDir, "lab.go")
	if err := os.WriteFile(source, []byte(labSource), 0o666); err != nil {
		return nil, err
	}
	if out, err := exec.Command("go", "run", source, l.layouts[zoo], l.layouts[goTree]).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making images: %w\n%s", err, out)
	}
	for name, dir := range l.layouts {
		if err := r.push(dir, name+":latest"); err != nil {
			return nil, err
		}
	}
	return l, nil
})

// newLab returns the lab, which the first test to ask for it sets up.
func newLab(t testing.TB) *lab {
	t.Helper()
	needRegistry(t)
	l, err := startLab()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// manifest returns the manifest of an image, and its digest.
func (l *lab) manifest(t testing.TB, name string) (m ocispec.Manifest, d digest.Digest) {
	t.Helper()
	var index ocispec.Index
	parse := func(v any, path ...string) {
		t.Helper()
		text := readFile(t, filepath.Join(append([]string{l.layouts[name]}, path...)...))
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	parse(&index, ocispec.ImageIndexFile)
	d = index.Manifests[0].Digest
	parse(&m, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
	return m, d
}

// A proxy stands before a registry and counts what is asked of it. It can be
// slow.
type proxy struct {
	server *httptest.Server
	host   string
	rate   atomic.Int64 // bytes of a blob in a second; 0 is no limit
	limit  atomic.Int64 // of sent, beyond which blobs wait; 0 is none
	sent   atomic.Int64 // bytes of blobs

	mu     sync.Mutex
	counts map[string]int // by method and kind: "HEAD manifests"
}

// newProxy starts a proxy that ends with the test.
func newProxy(t testing.TB, host string) *proxy {
	t.Helper()
	p := &proxy{counts: map[string]int{}}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	to.ModifyResponse = p.answer
	to.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.counts[r.Method+" "+kindOf(r.URL.Path)]++
		p.mu.Unlock()
		to.ServeHTTP(w, r)
	}))
	p.host = p.server.Listener.Addr().String()
	t.Cleanup(p.stop)
	return p
}

// kindOf says what a path of the distribution API is for.
func kindOf(path string) string {
	for _, kind := range []string{"manifests", "blobs", "tags"} {
		if strings.Contains(path, "/"+kind+"/") {
			return kind
		}
	}
	return path
}

func (p *proxy) answer(r *http.Response) error {
	if kindOf(r.Request.URL.Path) == "blobs" {
		r.Body = &slowBody{r.Body, p}
	}
	return nil
}

// A slowBody counts what is read of it, and gives no more than the proxy's
// rate allows.
type slowBody struct {
	io.ReadCloser
	p *proxy
}

func (b *slowBody) Read(buf []byte) (int, error) {
	const slices = 50 // of a second
	rate := b.p.rate.Load()
	if rate > 0 {
		time.Sleep(time.Second / slices)
		buf = buf[:min(len(buf), max(1, int(rate/slices)))]
	}
	for limit := b.p.limit.Load(); limit > 0 && b.p.sent.Load() >= limit; limit = b.p.limit.Load() {
		time.Sleep(time.Second / slices)
	}
	n, err := b.ReadCloser.Read(buf)
	b.p.sent.Add(int64(n))
	return n, err
}

// stop ends the proxy: nothing listens there any more.
func (p *proxy) stop() {
	p.limit.Store(0)
	p.server.CloseClientConnections()
	p.server.Close()
}

// asked returns what was asked since the last call, and forgets it.
func (p *proxy) asked() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = map[string]int{}
	return counts
}

// inGroup has a command lead a process group, as a shell does it for one that
// it runs in the foreground of a terminal.
func inGroup(cmd *exec.Cmd) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd
}
