//go:build linux

package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// inItsOwn has a shell exec a program behind mounts that end with it: those that it makes
// itself, and those that keep what it writes to /run and /etc from this machine.
const inItsOwn = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work overlay /etc
exec "$@"`

// A realDaemon is one that speaks docker's API, in namespaces of its own: without a
// network, and such that nothing is left when it ends.
type realDaemon struct {
	t    *testing.T
	host string
	http *http.Client
}

// startDaemon starts one. args returns its arguments, of which dir is where all of its
// files go, and socket what it is to listen at.
func startDaemon(t *testing.T, program string, args func(dir, socket string) []string) *realDaemon {
	t.Helper()
	dir := publicDir(t)
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", append([]string{"-c", inItsOwn, "sh", program}, args(dir, socket)...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespaces to be had here: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		// All that ran in its namespace of processes ended before it.
		if mounts, running := mountsBelow(dir), processes(dir); len(mounts)+len(running) > 0 {
			t.Errorf("%s left the mounts %q and the processes %d", program, mounts, running)
		}
	})
	d := &realDaemon{t: t, host: "unix://" + socket, http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
	t.Cleanup(d.http.CloseIdleConnections)
	for range 300 {
		if resp, err := d.http.Get("http://d/_ping"); err == nil {
			resp.Body.Close()
			return d
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log)
			t.Skipf("%s does not run here:\n%s", program, said[max(0, len(said)-2000):])
		case <-time.After(100 * time.Millisecond):
		}
	}
	said, _ := os.ReadFile(log)
	t.Fatalf("%s does not answer:\n%s", program, said[max(0, len(said)-2000):])
	return nil
}

// dockerd returns the arguments of one.
func dockerd(dir, socket string) []string {
	return []string{"--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid", "-H", "unix://" + socket,
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=warn"}
}

// ask makes a request, which must succeed, and writes the answer to a writer.
func (d *realDaemon) ask(method, path string, body io.Reader, to io.Writer) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://d"+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var said strings.Builder
	if resp.StatusCode != http.StatusOK {
		to = &said
	}
	if _, err := io.Copy(to, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("%s %s: %s, error %v\n%s", method, path, resp.Status, err, said.String())
	}
}

// load gives the daemon an archive, as docker load does.
func (d *realDaemon) load(archive string) {
	d.t.Helper()
	var said strings.Builder
	d.ask("POST", "/images/load?quiet=1", strings.NewReader(archive), &said)
	if strings.Contains(said.String(), `"error`) {
		d.t.Fatalf("it is not loaded: %s", said.String())
	}
}

// save writes an image to a file, as docker save does.
func (d *realDaemon) save(ref string) (file string) {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.t.TempDir(), "saved.tar"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	d.ask("GET", "/images/"+ref+"/get", nil, f)
	return f.Name()
}

// id returns that of an image.
func (d *realDaemon) id(ref string) string {
	d.t.Helper()
	var said strings.Builder
	d.ask("GET", "/images/"+ref+"/json", nil, &said)
	var image struct{ ID string }
	if err := json.Unmarshal([]byte(said.String()), &image); err != nil {
		d.t.Fatal(err)
	}
	return image.ID
}

// TestRealDaemon reads an image that a daemon of docker and one of podman have, by its
// name, ID and short ID, and compares it with what docker save writes of it.
func TestRealDaemon(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	for program, args := range map[string]func(dir, socket string) []string{
		"dockerd": dockerd,
		"podman": func(dir, socket string) []string {
			return []string{"--root", dir + "/data", "--runroot", dir + "/exec", "--tmpdir", dir + "/tmp", "system", "service", "--time", "0", "unix://" + socket}
		},
	} {
		t.Run(program, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed", program)
			}
			d := startDaemon(t, program, args)
			d.load(saved(t, storeLayers()...))
			id := d.id("app:v1")
			if !strings.HasPrefix(id, "sha256:") {
				id = "sha256:" + id
			}
			archive := "docker-archive:" + d.save("app:v1")
			s := newSandbox(t)
			s.env = append(s.env, "DOCKER_HOST="+d.host)
			list, conf, doc := s.ok("ls", "-lR", archive).stdout, s.ok("cat", archive+":/etc/conf", "/big").stdout, inspected(t, s, archive)
			if !strings.HasPrefix(conf, "two and more0123") || !strings.Contains(list, "suid") {
				t.Fatalf("docker-archive: reads %q and lists\n%s", conf[:min(len(conf), 100)], list)
			}
			for _, ref := range []string{"app:v1", id, strings.TrimPrefix(id, "sha256:")[:12]} {
				name := "docker-daemon:" + ref
				if got := s.ok("ls", "-lR", name).stdout; got != strings.ReplaceAll(list, archive, name) {
					t.Errorf("%s: ls -lR prints\n%s\nand of docker save\n%s", name, got, list)
				}
				if got := s.ok("cat", name, "/etc/conf", "/big").stdout; got != conf {
					t.Errorf("%s: cat prints %d bytes, and of docker save %d", name, len(got), len(conf))
				}
				if got := inspected(t, s, name); !reflect.DeepEqual(got, doc) {
					t.Errorf("%s: inspect prints\n%v\nand of docker save\n%v", name, got, doc)
				}
			}
			s.fails(cli.ExitFailure, []string{"docker-daemon:absent:v1: not found: "}, "ls", "docker-daemon:absent:v1")
			s.fails(cli.ExitFailure, []string{"not found"}, "ls", "docker-daemon:sha256:"+strings.Repeat("0", 64))
		})
	}
}

// inspected returns what imgfs inspect prints of an image, but for its name.
func inspected(t *testing.T, s *sandbox, name string) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(s.ok("inspect", name).stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["Digest"] == nil {
		t.Errorf("%s: inspect has no digest: %v", name, doc)
	}
	delete(doc, "Name")
	return doc
}
