package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A Registry is Debian's docker-registry on a free port of loopback.
type Registry struct {
	Host    string // where it listens
	program string
	cmd     *exec.Cmd
	out     bytes.Buffer
	ended   chan struct{}
}

// LookRegistry returns the path of the registry's program.
func LookRegistry() (string, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return exec.LookPath("registry") // so Fedora calls it
	}
	return program, nil
}

// StartRegistry runs a registry that keeps its blobs in dir, and waits until it
// answers or ctx ends. It must be ended with Stop, whatever becomes of ctx.
func StartRegistry(ctx context.Context, dir string) (*Registry, error) {
	r := &Registry{ended: make(chan struct{})}
	var err error
	if r.program, err = LookRegistry(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.Host = l.Addr().String()
	l.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n",
		filepath.Join(dir, "registry"), r.Host)
	path := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(path, []byte(conf), 0o666); err != nil {
		return nil, err
	}
	r.cmd = exec.Command(r.program, "serve", path)
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir} // REGISTRY_… would change it
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}          // Ctrl-C is not for it
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait() // it is killed
		close(r.ended)
	}()
	if err := r.await(ctx); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// await waits until the registry answers.
func (r *Registry) await(ctx context.Context) error {
	for {
		resp, err := http.Get("http://" + r.Host + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-r.ended:
			return errors.New("the registry does not start")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends the registry. If it had ended by itself that is an error, with what
// it printed.
func (r *Registry) Stop() error {
	err := r.cmd.Process.Kill()
	<-r.ended
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s ended by itself:\n%s", r.program, &r.out)
	}
	return err
}
