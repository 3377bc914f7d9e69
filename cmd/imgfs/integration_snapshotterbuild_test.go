//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A buildEngine is BuildKit on a containerd with imgfs as its snapshotter. It has images and
// snapshots in the namespace that the engine's client has.
type buildEngine struct {
	*engine
	programs string
	flags    []string // of each build
}

// newBuildKit starts containerd, imgfs snapshotter and buildkitd.
func newBuildKit(t *testing.T) *buildEngine {
	t.Helper()
	needEngine(t)
	b := &buildEngine{programs: needBuilt(t, "docker")}
	b.engine = newEngine(t, "--xattrs")
	config := filepath.Join(b.dir, "buildkitd.toml")
	writeFile(t, config, fmt.Sprintf("[worker.containerd]\ndefaultCgroupParent = %q\n", "/"+b.space()))
	socket := filepath.Join(b.dir, "b.sock")
	cmd := b.program(filepath.Join(b.programs, "buildkitd"), "--config", config, "--addr", "unix://"+socket, "--root", filepath.Join(b.dir, "buildkit"),
		"--oci-worker=false", "--containerd-worker=true", "--containerd-worker-addr", b.address(), "--containerd-worker-namespace", b.space(),
		"--containerd-worker-snapshotter", "imgfs", "--containerd-worker-net", "host", "--containerd-worker-gc=false",
		"--allow-insecure-entitlement=security.insecure")
	// Without this an error of the way to find what has changed is hidden behind another one.
	cmd.Env = append(slices.Clone(b.env), "PATH="+b.path, "BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF=true")
	daemon := b.serves(socket, "buildkitd.log", cmd)
	b.env = append(b.env, "BUILDKIT_HOST=unix://"+socket)
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			t.Logf("buildkitd's log:\n%s", b.log("buildkitd.log"))
		}
	})
	return b
}

// newDockerBuild starts dockerd, which has BuildKit in it, and what that needs.
func newDockerBuild(t *testing.T) *buildEngine {
	t.Helper()
	d := newDocker(t, "--xattrs")
	d.env = append(d.env, "BUILDKIT_HOST=unix://"+d.host())
	// There is no bridge.
	return &buildEngine{engine: d.engine, programs: d.programs, flags: []string{"--allow=network.host", "--opt=force-network-mode=host"}}
}

// runStep is a step of a Dockerfile, for a runc that was built without seccomp.
func runStep(shell, script string) string {
	return fmt.Sprintf("RUN --security=insecure [%q, \"-c\", %q]\n", shell, script)
}

// builds builds a Dockerfile.
func (b *buildEngine) builds(t *testing.T, dockerfile string, flags ...string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "Dockerfile"), dockerfile)
	b.buildctl(append(append([]string{"build", "--progress=plain", "--allow=security.insecure", "--frontend=dockerfile.v0", "--local=context=" + dir, "--local=dockerfile=" + dir}, b.flags...), flags...)...)
}

func (b *buildEngine) buildctl(args ...string) {
	b.t.Helper()
	if r := b.finish(b.program(filepath.Join(b.programs, "buildctl"), args...)); r.code != 0 {
		b.t.Fatalf("buildctl %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
}

// TestSnapshotterBuildKit: what BuildKit builds on an image that was pulled lazily into its
// namespace needs no layer of it, as BuildKit finds the snapshots by their names. An image that
// it pulls itself it names to no snapshotter, and unpacks.
func TestSnapshotterBuildKit(t *testing.T) {
	testenv.Slow(t)
	for name, start := range map[string]func(*testing.T) *buildEngine{"buildkitd": newBuildKit, "dockerd": newDockerBuild} {
		t.Run(name, func(t *testing.T) { buildsOnLazy(t, start(t)) })
	}
}

func buildsOnLazy(t *testing.T, b *buildEngine) {
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	b.pull(image)
	moved := reg.Bytes(registrytest.Blob)
	out := filepath.Join(b.dir, "out")
	b.builds(t, "FROM "+image+" AS made\n"+runStep("bash", "/opt/tool built >/opt/made && cat /etc/motd >>/opt/made")+"FROM scratch\nCOPY --from=made /opt/made /\n", "--output=type=local,dest="+out)
	text, err := os.ReadFile(filepath.Join(out, "made"))
	if err != nil || string(text) != "tool: built\nthird layer\n" {
		t.Errorf("it has built %q, %v", text, err)
	}
	layers, _ := inspected(t, b.sandbox, "oci:"+runnables(t)["debian"])["Layers"].([]any)
	has := func() (n int) {
		kept := b.does("content", "ls", "-q")
		for _, l := range layers {
			if strings.Contains(kept, fmt.Sprint(l)) {
				n++
			}
		}
		return n
	}
	if n := has(); n > 0 || len(layers) < 3 {
		t.Errorf("the content store has %d of the base's %d layers", n, len(layers))
	}
	if n := len(mountsBelow(filepath.Join(b.root(), "chains"))); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	if more := reg.Bytes(registrytest.Blob) - moved; more > 0 {
		t.Errorf("%d bytes of blobs came for the build", more)
	}

	// An image has to have all of its layers.
	b.builds(t, "FROM "+image+"\n"+runStep("bash", "echo more >/opt/more"), "--output=type=image,name=registry.invalid/derived:latest")
	if n := has(); n != len(layers) {
		t.Errorf("the content store has %d of the base's %d layers", n, len(layers))
	}
	if got := b.runs("registry.invalid/derived:latest", "derived", "cat", "/opt/more", "/etc/motd"); got != "more\nthird layer\n" {
		t.Errorf("a container of what was built prints %q", got)
	}

	other := pushed(t, reg, "busybox")
	b.builds(t, "FROM "+other+" AS made\n"+runStep("sh", "cat page >/made")+"FROM scratch\nCOPY --from=made /made /\n", "--output=type=local,dest="+out)
	text, err = os.ReadFile(filepath.Join(out, "made"))
	if err != nil || string(text) != "page\n" {
		t.Errorf("it has built %q, %v", text, err)
	}
	if n := len(mountsBelow(filepath.Join(b.root(), "chains"))); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	b.buildctl("prune", "--all")
	b.does("image", "rm", "--sync", image, "registry.invalid/derived:latest")
	b.leavesNoTree()
}
