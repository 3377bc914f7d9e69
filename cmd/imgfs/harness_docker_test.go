//go:build linux

package main

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A dockerEngine is dockerd, on a containerd with imgfs as its snapshotter.
type dockerEngine struct {
	*engine
	programs string    // the directory of dockerd, docker, buildkitd and buildctl
	dockerd  *exec.Cmd // nil: it does not run
}

// newDocker starts containerd, imgfs snapshotter with flags, and dockerd.
func newDocker(t testing.TB, flags ...string) *dockerEngine {
	t.Helper()
	needEngine(t)
	d := &dockerEngine{programs: needBuilt(t, "docker")}
	d.engine = newEngine(t, flags...)
	d.env = append(d.env, "DOCKER_HOST=unix://"+d.host(), "DOCKER_CONFIG="+filepath.Join(d.dir, "docker"), "DOCKER_BUILDKIT=0")
	t.Cleanup(d.stop)
	d.startDocker()
	return d
}

func (d *dockerEngine) host() string { return filepath.Join(d.dir, "d.sock") }

// startDocker starts dockerd with what imgfs snapshotter config prints, and what keeps it
// from the network of this machine and to the sandbox.
func (d *dockerEngine) startDocker() {
	d.t.Helper()
	var config map[string]any
	if err := json.Unmarshal([]byte(d.ok("snapshotter", "config", "--containerd", d.address(), "docker").stdout), &config); err != nil {
		d.t.Fatal(err)
	}
	maps.Copy(config, map[string]any{
		"data-root": filepath.Join(d.dir, "docker-data"), "exec-root": filepath.Join(d.dir, "docker-exec"), "pidfile": filepath.Join(d.dir, "docker.pid"),
		"hosts": []string{"unix://" + d.host()}, "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "userland-proxy": false,
		"live-restore": true, "seccomp-profile": "unconfined", // runc is built without seccomp
		"builder":       map[string]any{"entitlements": map[string]bool{"security-insecure": true, "network-host": true}},
		"cgroup-parent": "/" + d.space(), "containerd-namespace": d.space(), "containerd-plugins-namespace": d.space() + "-plugins",
	})
	text, err := json.Marshal(config)
	if err != nil {
		d.t.Fatal(err)
	}
	file := filepath.Join(d.dir, "daemon.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.program(filepath.Join(d.programs, "dockerd"), "--config-file", file)
	cmd.Env = append(slices.Clone(d.env), "PATH="+d.path)
	d.dockerd = d.serves(d.host(), "dockerd.log", cmd)
}

// stop ends dockerd, and takes away the mounts that it leaves.
func (d *dockerEngine) stop() {
	if d.dockerd != nil {
		_ = d.dockerd.Process.Signal(syscall.SIGTERM)
		_ = d.dockerd.Wait()
	}
	// The network namespace of the machine stays mounted when dockerd ends.
	names, _ := filepath.Glob(filepath.Join(d.dir, "docker-exec/netns/*")) // the pattern is a good one
	for _, name := range names {
		_ = unix.Unmount(name, unix.MNT_DETACH)
	}
	if d.t.Failed() {
		log := d.log("dockerd.log")
		d.t.Logf("dockerd's log:\n%s", log[max(0, len(log)-8000):])
	}
}

// docker runs a command of docker's client, which must succeed, and returns what it prints.
func (d *dockerEngine) docker(args ...string) string {
	d.t.Helper()
	r := d.finish(d.program(filepath.Join(d.programs, "docker"), args...))
	if r.code != 0 {
		d.t.Fatalf("docker %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// prints runs a command in a new container and returns what it prints.
func (d *dockerEngine) prints(image string, words ...string) string {
	d.t.Helper()
	return d.docker(append([]string{"run", "--rm", "--network=host", image}, words...)...)
}

// digests returns what the content store has of the namespace of docker.
func (d *dockerEngine) digests() []string {
	d.t.Helper()
	return strings.Fields(d.does("content", "ls", "-q"))
}
