package runner

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

	"github.com/imgfs/imgfs/testdata/labimage"
)

// A Daemon is a process that serves something in the foreground.
type Daemon struct {
	PID     int
	process *os.Process
	done    chan struct{}
	err     error        // once done
	out     bytes.Buffer // its output, once done
}

// start starts a program that stays, and returns when it is ready. It is stopped
// when the group ends.
func (r *Runner) start(ready func() bool, stop func(*Daemon) error, environment []string, args ...string) (*Daemon, error) {
	cmd := r.command(context.WithoutCancel(r.Ctx), args[0], args[1:])
	cmd.Env = append(cmd.Env, environment...)
	d := &Daemon{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &d.out, &d.out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.PID, d.process = cmd.Process.Pid, cmd.Process
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	r.AtEnd(func() error { return stop(d) })
	for !ready() {
		select {
		case <-d.done:
			// The program's own message matters most, and comes first.
			return nil, fmt.Errorf("%s\n%q ended before it was ready: %w", bytes.TrimSpace(d.out.Bytes()), args, d.err)
		case <-r.Ctx.Done():
			return nil, r.Ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return d, nil
}

// Serve starts a program that mounts on dir and stays, and returns when
// something is mounted there.
func (r *Runner) Serve(dir string, environment []string, args ...string) (*Daemon, error) {
	mounted := func() bool {
		table, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && len(MountsBelow(string(table), dir)) > 0
	}
	unmounted := func(d *Daemon) error {
		if d.ends(10 * time.Second) {
			return nil
		}
		return errors.Join(fmt.Errorf("process %d had to be killed", d.PID), syscall.Kill(d.PID, syscall.SIGKILL))
	}
	return r.start(mounted, unmounted, environment, args...)
}

// Start starts a program that stays, and returns when it is ready. It is stopped at the end of
// the group, if it was not before.
func (r *Runner) Start(ready func() bool, environment []string, args ...string) (*Daemon, error) {
	return r.start(ready, (*Daemon).Stop, environment, args...)
}

// Stop asks a daemon to end and waits for that. One that does not is killed, which is an
// error; one that has ended by itself is none.
func (d *Daemon) Stop() error {
	_ = d.process.Signal(syscall.SIGTERM) // it may have ended
	if d.ends(10 * time.Second) {
		return nil
	}
	err := d.process.Kill()
	<-d.done
	return errors.Join(fmt.Errorf("process %d had to be killed", d.PID), err)
}

// Ended waits for the end of a daemon whose mount is gone. It must be a good
// end.
func (d *Daemon) Ended() error {
	if !d.ends(10 * time.Second) {
		return fmt.Errorf("process %d still runs after its mount has gone", d.PID)
	}
	if d.err != nil {
		return fmt.Errorf("process %d, which served a mount: %w\n%s", d.PID, d.err, &d.out)
	}
	return nil
}

func (d *Daemon) ends(within time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		return false
	}
}

// kill ends a daemon. If the daemon had ended by itself, the error has its output.
func (d *Daemon) kill() error {
	err := d.process.Kill()
	<-d.done
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d ended by itself:\n%s", d.PID, &d.out)
	}
	return err
}

// LookRegistry returns the path of Debian's docker-registry, or why it is not
// there.
func LookRegistry() (program, missing string) {
	for _, name := range []string{"docker-registry", "registry"} { // as Debian and as Fedora call it
		if program, err := exec.LookPath(name); err == nil {
			return program, ""
		}
	}
	return "", "not installed: docker-registry"
}

// Registry returns where a registry listens, which runs until the group ends.
func (r *Runner) Registry() (string, error) {
	if r.registry != "" {
		return r.registry, nil
	}
	program, missing := LookRegistry()
	if missing != "" {
		return "", errors.New(missing)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	host := l.Addr().String()
	l.Close()
	conf := filepath.Join(r.Dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n",
		filepath.Join(r.Dir, "registry"), host)
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		return "", err
	}
	answers := func() bool {
		resp, err := http.Get("http://" + host + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	if _, err := r.start(answers, (*Daemon).kill, nil, program, "serve", conf); err != nil {
		return "", err
	}
	r.registry = host
	return host, nil
}

// Push copies an image into the registry, byte for byte, and returns its reference
// there.
func (r *Runner) Push(img *labimage.Image, name string) (string, error) {
	host, err := r.Registry()
	if err != nil {
		return "", err
	}
	_, err = r.Output("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+img.Layout+":"+labimage.Tag, "docker://"+host+"/"+name)
	return host + "/" + name, err
}
