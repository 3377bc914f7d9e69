//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A criEngine is an engine whose containerd is asked as Kubernetes does, by crictl.
type criEngine struct {
	*engine
	client string // crictl
	pause  string // the image that keeps a pod
	images string // the socket for calls about images
	pods   int
}

// The configurations of the CRI plugin, beside what imgfs snapshotter config prints: images
// of pods, containers without rights that this machine may not give, and no files of this
// machine. %[1]q is the image, %[2]q a directory.
const (
	criOld = `
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[1]q
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %[2]q
  conf_dir = %[2]q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = %[3]q
`
	criNew = `
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %[1]q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%[2]q]
  conf_dir = %[2]q
  use_internal_loopback = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  Root = %[3]q
[plugins."io.containerd.nri.v1.nri"]
  disable = true
`
)

// forEachCRI runs a test with the containerd that is installed and with the one that was
// built for tests, each with imgfs snapshotter and flags of it.
func forEachCRI(t *testing.T, flags func(e *engine) []string, test func(t *testing.T, c *criEngine)) {
	t.Helper()
	for _, version := range []string{"1.6", "2.4"} {
		t.Run(version, func(t *testing.T) {
			c := newCRI(t, version, flags)
			defer c.removesPods() // before containerd ends, which it does with t's context
			test(t, c)
		})
	}
}

// newCRI starts containerd of a version with the CRI, and imgfs snapshotter.
func newCRI(t testing.TB, version string, flags func(e *engine) []string) *criEngine {
	t.Helper()
	c := &criEngine{client: filepath.Join(needBuilt(t, "crictl"), "crictl")}
	config := criNew
	if version == "1.6" {
		c.engine, config = oldEngine(t), criOld
	} else {
		c.engine = builtEngine(t)
	}
	c.pause, c.images = pauseImage(t), c.address()
	for _, dir := range []string{"cni", "logs"} {
		if err := os.Mkdir(filepath.Join(c.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.cri = fmt.Sprintf(config, c.pause, filepath.Join(c.dir, "cni"), filepath.Join(c.dir, "runc"))
	if flags != nil {
		c.flags = flags(c.engine)
	}
	c.noNetwork()
	c.start()
	t.Cleanup(func() {
		if t.Failed() {
			text := c.log("containerd.log")
			t.Logf("the end of containerd's log:\n%s", text[max(0, len(text)-8000):])
		}
	})
	return c
}

// noNetwork has pods with a network of their own have one without anything in it: its plugin
// does nothing, and says what is wanted of it.
func (c *criEngine) noNetwork() {
	c.t.Helper()
	const plugin = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}], "ips": [{"address": "192.0.2.2/32", "interface": 0}]}' ;;
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
esac
`
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"none":             {plugin, 0o755},
		"10-test.conflist": {`{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "none"}]}`, 0o644},
	} {
		if err := os.WriteFile(filepath.Join(c.dir, "cni", name), []byte(file.text), file.mode); err != nil {
			c.t.Fatal(err)
		}
	}
}

// removesPods removes all pods that a test has left, if it failed.
func (c *criEngine) removesPods() {
	c.t.Helper()
	if c.containerd == nil || c.snapshotter == nil {
		return
	}
	if r := c.finish(c.crictl("rmp", "--all", "--force")); r.code != 0 {
		c.t.Errorf("crictl rmp --all: %s", r.stderr)
	}
}

// pauseImage serves an image that does nothing until it is ended, and returns its name.
func pauseImage(t testing.TB) string {
	t.Helper()
	images, err := labimage.Runnables(programs(t))
	if err != nil {
		t.Fatal(err)
	}
	img := images[slices.IndexFunc(images, func(r labimage.Runnable) bool { return r.Name == "busybox" })]
	img.Config.Entrypoint, img.Config.Cmd, img.Config.WorkingDir = nil, []string{"sleep", "1000000"}, ""
	img.Layers = img.Layers[:1]
	layout := filepath.Join(publicDir(t), "pause")
	if _, err := img.Write(layout); err != nil {
		t.Fatal(err)
	}
	reg := registrytest.New(t, nil)
	if err := reg.PushLayout(layout, "pause"); err != nil {
		t.Fatal(err)
	}
	return reg.Host() + "/pause:latest"
}

// writeJSON writes a file for crictl, and returns its name.
func (c *criEngine) writeJSON(name string, content any) string {
	c.t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.dir, name+".json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// crictl returns a command of crictl.
func (c *criEngine) crictl(args ...string) *exec.Cmd {
	c.t.Helper()
	return c.program(c.client, append([]string{"--config", c.clientConfig()}, args...)...)
}

// clientConfig writes the configuration of crictl, and returns its name.
func (c *criEngine) clientConfig() string {
	c.t.Helper()
	config := filepath.Join(c.dir, "crictl.yaml")
	text := fmt.Sprintf("runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\ntimeout: 120\n", c.address(), c.images)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return config
}

// execs runs a command in a container, and returns what it prints.
func (c *criEngine) execs(id string, words ...string) string {
	c.t.Helper()
	got := c.asks(append([]string{"exec", "--sync", id}, words...)...)
	return strings.TrimRight(got, "\n") + "\n" // crictl adds empty lines
}

// asks runs crictl, which must succeed, and returns what it prints.
func (c *criEngine) asks(args ...string) string {
	c.t.Helper()
	r := c.finish(c.crictl(args...))
	if r.code != 0 {
		c.t.Fatalf("crictl %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// pulls pulls an image with a credential, "" for none.
func (c *criEngine) pulls(image, creds string) result {
	c.t.Helper()
	args := []string{"pull"}
	if creds != "" {
		args = append(args, "--creds", creds)
	}
	return c.finish(c.crictl(append(args, image)...))
}

// A pod is one that runs, and what it was made of.
type pod struct {
	id, config string
	namespaces map[string]any // NamespaceOption of the CRI
}

// pod starts a pod in the network of this machine.
func (c *criEngine) pod() pod {
	c.t.Helper()
	return c.podIn(map[string]any{"network": 2})
}

// podIn starts a pod in namespaces.
func (c *criEngine) podIn(namespaces map[string]any) pod {
	c.t.Helper()
	c.pods++
	name := fmt.Sprint("pod", c.pods)
	config := c.writeJSON(name, map[string]any{
		"metadata":      map[string]any{"name": name, "namespace": filepath.Base(c.dir), "uid": filepath.Base(c.dir) + name, "attempt": 1},
		"log_directory": filepath.Join(c.dir, "logs"),
		"linux":         map[string]any{"cgroup_parent": "/", "security_context": map[string]any{"namespace_options": namespaces}},
	})
	return pod{strings.TrimSpace(c.asks("runp", config)), config, namespaces}
}

// starts starts a container in a pod, and returns its id. The result is that of the step that
// was the last.
func (c *criEngine) starts(p pod, image, name string, words ...string) (id string, r result) {
	c.t.Helper()
	config := c.writeJSON(name, map[string]any{
		"metadata": map[string]any{"name": name}, "image": map[string]any{"image": image},
		"command": words, "log_path": name + ".log", "linux": map[string]any{"security_context": map[string]any{"namespace_options": p.namespaces}},
	})
	r = c.finish(c.crictl("create", p.id, config, p.config))
	if id = strings.TrimSpace(r.stdout); r.code != 0 {
		return "", r
	}
	return id, c.finish(c.crictl("start", id))
}

// mustStart is starts, which must succeed.
func (c *criEngine) mustStart(p pod, image, name string, words ...string) (id string) {
	c.t.Helper()
	id, r := c.starts(p, image, name, words...)
	if r.code != 0 {
		c.t.Fatalf("container %s: exit code %d\n%s%s", name, r.code, r.stdout, r.stderr)
	}
	return id
}

// prints runs a command in a new container, and returns what it prints and its exit code.
func (c *criEngine) prints(p pod, image, name string, words ...string) (text string, code int) {
	c.t.Helper()
	id := c.mustStart(p, image, name, words...)
	var status struct {
		Status struct {
			State    string
			ExitCode int
		}
	}
	if !eventually(60*time.Second, func() bool {
		if err := json.Unmarshal([]byte(c.asks("inspect", "--output", "json", id)), &status); err != nil {
			c.t.Fatal(err)
		}
		return status.Status.State == "CONTAINER_EXITED"
	}) {
		c.t.Fatalf("container %s does not end: %v", name, status)
	}
	log, err := os.ReadFile(filepath.Join(c.dir, "logs", name+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) { // TIME STREAM F TEXT
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			text += fields[3]
		}
	}
	return text, status.Status.ExitCode
}
