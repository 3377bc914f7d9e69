//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// The bcrypt hash of serverPassword.
const (
	serverUser     = "someone"
	serverPassword = "pass:word"
	htpasswd       = serverUser + ":$2b$05$JrExSVRVeaeLtPiMBvsASe5dTwRvlp7B.ZK3esVpfg.nGP7SYHI36\n"
)

// serverImage has files that are big enough to be fetched in parts.
func serverImage() []labimage.Layer {
	return []labimage.Layer{oneFile("a", seededNoise(1, 3_000_000)), oneFile("b", seededNoise(2, 1_000_000))}
}

// checkServerImage reads all of serverImage through a mount.
func checkServerImage(t *testing.T, dir string) {
	t.Helper()
	for name, want := range map[string]string{"a": seededNoise(1, 3_000_000), "b": seededNoise(2, 1_000_000)} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: error %v, or other content", name, err)
		}
	}
}

// freePort returns an address on loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startServer runs a server until the end of the test, and waits until it
// accepts connections at addr.
func startServer(t *testing.T, addr, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + runDir}
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s printed:\n%s", program, out.Bytes())
		}
	})
	accepts := func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !eventually(20*time.Second, accepts) {
		t.Fatalf("%s does not listen on %s", program, addr)
	}
}

// registryWith runs docker-registry with more configuration, http's within its
// braces and the rest behind it.
func registryWith(t *testing.T, http, rest string) (host string) {
	t.Helper()
	needRegistry(t)
	program := "docker-registry"
	if _, err := exec.LookPath(program); err != nil {
		program = "registry" // so Fedora calls it
	}
	dir, host := t.TempDir(), freePort(t)
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q%s}\n%s", filepath.Join(dir, "data"), host, http, rest)
	startServer(t, host, program, "serve", writeFile(t, filepath.Join(dir, "config.yml"), conf))
	return host
}

// serverCertificate makes a certificate for 127.0.0.1 and returns its file and
// that of its key.
func serverCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return writeFile(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		writeFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

// pushServerImage pushes serverImage with skopeo and returns its name.
func pushServerImage(t *testing.T, host string, flags ...string) string {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	_, err := labimage.Write(layout, serverImage()...)
	if err = errors.Join(err, skopeoCopy("oci:"+layout+":"+labimage.Tag, "docker://"+host+"/app:"+labimage.Tag, append(flags, "--preserve-digests", "--dest-tls-verify=false")...)); err != nil {
		t.Fatal(err)
	}
	return host + "/app:" + labimage.Tag
}

// TestServerHtpasswdTLS mounts from a docker-registry that wants user and
// password over TLS, with the files that podman reads.
func TestServerHtpasswdTLS(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	cert, key := serverCertificate(t)
	users := writeFile(t, filepath.Join(t.TempDir(), "htpasswd"), htpasswd)
	host := registryWith(t, fmt.Sprintf(", tls: {certificate: %s, key: %s}", cert, key), fmt.Sprintf("auth: {htpasswd: {realm: r, path: %s}}\n", users))
	image := pushServerImage(t, host, "--dest-creds", serverUser+":"+serverPassword)
	s := newSandbox(t)
	s.fails(cli.ExitFailure, []string{image, "no secure connection"}, "mount", image, s.mountpoint())
	certs := filepath.Join(s.dir, ".config/containers/certs.d", host)
	writeFile(t, filepath.Join(certs, "ca.crt"), readFile(t, cert))
	s.fails(cli.ExitFailure, []string{image, "podman login"}, "mount", image, s.mountpoint())
	auth := base64.StdEncoding.EncodeToString([]byte(serverUser + ":" + serverPassword))
	writeFile(t, filepath.Join(s.dir, "xdg-run/containers/auth.json"), fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, auth))
	s.umount(s.mount(image))
	s.dropBlobs()
	dir := s.mount(image)
	checkServerImage(t, dir)
	if total := s.stats(dir).Total; total.Fetched < 4_000_000 || total.Errors > 0 {
		t.Errorf("got %+v, want all of it fetched", total)
	}
	s.umount(dir)
}

// TestServerPullThrough mounts from a docker-registry that is a cache of
// another one: what it does not have yet it sends whole, whatever the range.
func TestServerPullThrough(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	origin := registryWith(t, "", "")
	image := pushServerImage(t, origin)
	host := registryWith(t, "", fmt.Sprintf("proxy: {remoteurl: %q}\n", "http://"+origin))
	s := newSandbox(t)
	s.ok("index", image)
	s.dropBlobs()
	p := newProxy(t, host)
	dir := s.mount(p.host + "/app:" + labimage.Tag)
	if asked := p.asked(); asked["GET blobs"] > 1 { // the config's
		t.Errorf("mounting asked for %v, with all indexes there", asked)
	}
	checkServerImage(t, dir)
	if total := s.stats(dir).Total; total.Errors > 0 || total.Bad > 0 {
		t.Errorf("got %+v", total)
	}
	// Each layer once, and what is asked for while the first answer begins.
	if sent := p.sent.Load(); sent < 4_000_000 || sent > 3*4_000_000 {
		t.Errorf("%d bytes were sent for an image of 4 MB", sent)
	}
	s.umount(dir)
	// The second time it has it, and serves ranges.
	s.dropBlobs()
	dir = s.mount(p.host + "/app:" + labimage.Tag)
	if _, err := headOf(filepath.Join(dir, "b"), 100); err != nil {
		t.Error(err)
	}
	checkServerImage(t, dir)
	s.umount(dir)
}

// nginxConf is a mirror: a reverse proxy that only lets readers through, and
// keeps blobs, in slices.
const nginxConf = `daemon off;
master_process off;
error_log stderr error;
pid %[1]s/pid;
events { worker_connections 256; }
http {
  access_log %[1]s/access.log;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache keys_zone=blobs:1m;
  server {
    listen %[2]s;
    location /v2/ {
      limit_except GET HEAD { deny all; }
      proxy_pass http://%[3]s;
      proxy_set_header Host $http_host;
    }
    location ~ ^/v2/.*/blobs/ {
      proxy_pass http://%[3]s;
      proxy_cache blobs;
      proxy_cache_valid 200 206 1h;
      proxy_cache_key $uri$http_range;
      proxy_set_header Range $http_range;
      proxy_set_header Host $http_host;
    }
  }
}
`

// TestServerNginxMirror has nginx before a docker-registry, as a mirror of a
// registry that hosts.toml names.
func TestServerNginxMirror(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	need(t, "nginx")
	origin, back := registryWith(t, "", ""), registryWith(t, "", "")
	image := pushServerImage(t, origin)
	pushServerImage(t, back)
	dir, host := publicDir(t), freePort(t)
	conf := writeFile(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConf, dir, host, back))
	startServer(t, host, "nginx", "-p", dir, "-c", conf)
	s := newSandbox(t)
	// As containerd has it.
	writeFile(t, filepath.Join(s.dir, ".config/containerd/certs.d", origin, "hosts.toml"), fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", "http://"+origin, "http://"+host))
	mountAndRead := func(when string) (mirrored int) {
		t.Helper()
		before := strings.Count(readFile(t, filepath.Join(dir, "access.log")), "/blobs/")
		m := s.mount(image)
		checkServerImage(t, m)
		if total := s.stats(m).Total; total.Errors > 0 {
			t.Errorf("%s: got %+v", when, total)
		}
		s.umount(m)
		s.dropBlobs()
		return strings.Count(readFile(t, filepath.Join(dir, "access.log")), "/blobs/") - before
	}
	s.ok("index", image)
	s.dropBlobs()
	if n := mountAndRead("by way of nginx"); n < 2 {
		t.Errorf("nginx was asked for blobs %d times: the registry is read past its mirror", n)
	}
	mountAndRead("with what nginx keeps")
	// Without the mirror the registry itself is asked.
	pid := strings.TrimSpace(readFile(t, filepath.Join(dir, "pid")))
	tool(t, "kill", "-STOP", pid)
	defer tool(t, "kill", "-CONT", pid)
	m := s.mount(image, "--read-timeout=10s")
	checkServerImage(t, m)
	s.umount(m)
}
