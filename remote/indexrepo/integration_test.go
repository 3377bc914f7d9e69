package indexrepo_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// A realServer is a registry of somebody else, with its data in a directory.
type realServer struct {
	program string
	conf    string // the file's path
	host    string
}

// newRealServer returns a registry that is not running. It skips the test if the program
// is not installed.
func newRealServer(t *testing.T, program string) *realServer {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" && program == "docker-registry" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir := t.TempDir()
	s := &realServer{program: program, conf: filepath.Join(dir, "config.yml"), host: l.Addr().String()}
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), s.host)
	if err := os.WriteFile(s.conf, []byte(conf), 0o666); err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs the registry until stop or the end of the test.
func (s *realServer) start(t *testing.T) (stop func()) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(s.program, "serve", s.conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() {
		if stop(); t.Failed() {
			t.Logf("%s printed at last:\n%s", s.program, out.Bytes()[max(0, out.Len()-4096):])
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.host); err == nil {
			c.Close()
			return stop
		} else if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", s.program, err)
		}
	}
}

// collect has the registry remove what it takes for garbage, untagged manifests too.
func (s *realServer) collect(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(s.program, "garbage-collect", "-m", s.conf).CombinedOutput(); err != nil {
		t.Fatalf("%s garbage-collect: %v\n%s", s.program, err, out)
	}
}

// TestRealRegistries: of many who publish at the same time in the registries that people
// have, each has all that they published found, also when garbage has been collected.
// registry3 is distribution 3, where somebody has installed it under this name.
func TestRealRegistries(t *testing.T) {
	testenv.Slow(t)
	for _, program := range []string{"docker-registry", "registry3"} {
		t.Run(program, func(t *testing.T) {
			s := newRealServer(t, program)
			stop := s.start(t)
			publishers(t, s.host)
			findAll(t, s.host)
			stop()
			s.collect(t)
			s.start(t)
			findAll(t, s.host)
		})
	}
}
