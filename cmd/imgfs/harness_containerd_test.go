//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/engines"
)

// An engine is containerd with imgfs as its snapshotter.
type engine struct {
	*sandbox
	programs string   // the directory of containerd and ctr
	path     string   // PATH of containerd, with runc
	version  string   // for imgfs snapshotter config
	cri      string   // what containerd's configuration has for the CRI; "": it is turned off
	flags    []string // of imgfs snapshotter
	// Their processes; nil: they do not run.
	containerd, snapshotter *exec.Cmd
	stays                   []string // containers that run until the end
	below                   string   // where the snapshotter has its root; "": in the sandbox
}

// space returns the namespace of a test: runc keeps states by namespaces in one place of the
// machine.
func (e *engine) space() string {
	if e.cri != "" {
		return "k8s.io" // the CRI has no other
	}
	return filepath.Base(e.dir)
}

// needEngine skips a test where containers cannot be started as containerd does it.
func needEngine(t testing.TB) {
	t.Helper()
	needRoot(t)
	needFUSE(t)
}

// newEngine starts containerd 2.4, built for tests, and imgfs snapshotter with flags, in a new
// sandbox. It skips where that was not built and is not to be.
func newEngine(t testing.TB, flags ...string) *engine {
	t.Helper()
	e := builtEngine(t)
	e.flags = flags
	e.start()
	return e
}

// builtEngine is newEngine, before it is started.
func builtEngine(t testing.TB) *engine {
	t.Helper()
	needEngine(t)
	e := &engine{sandbox: newSandbox(t), version: "2.4"}
	dirs := []string{needBuilt(t, "containerd"), needBuilt(t, "runc")}
	e.programs, e.path = dirs[0], strings.Join(append(dirs, os.Getenv("PATH")), ":")
	return e
}

// needBuilt returns the directory of programs that were built for tests. It skips where they
// were not and are not to be.
func needBuilt(t testing.TB, name string) string {
	t.Helper()
	find := engines.Built
	if os.Getenv("IMGFS_ENGINES") == "build" {
		find = engines.Build
	}
	dir, err := find(t.Context(), name)
	if errors.Is(err, engines.ErrNotBuilt) {
		t.Skipf("%v; IMGFS_ENGINES=build has it built, which takes minutes", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newOldEngine is newEngine with the containerd that is installed.
func newOldEngine(t testing.TB) *engine {
	t.Helper()
	e := oldEngine(t)
	e.start()
	return e
}

// oldEngine is newOldEngine, before it is started.
func oldEngine(t testing.TB) *engine {
	t.Helper()
	needEngine(t)
	need(t, "containerd", "ctr", "containerd-shim-runc-v2", "runc")
	program, err := exec.LookPath("containerd")
	if err != nil {
		t.Fatal(err)
	}
	return &engine{sandbox: newSandbox(t), programs: filepath.Dir(program), path: os.Getenv("PATH")}
}

func (e *engine) start() {
	e.t.Helper()
	if err := os.Mkdir(filepath.Join(e.dir, "xdg-run"), 0o700); err != nil { // for ctr
		e.t.Fatal(err)
	}
	e.t.Cleanup(e.stop)
	e.startSnapshotter()
	e.startContainerd()
}

func (e *engine) address() string { return filepath.Join(e.dir, "c.sock") }
func (e *engine) socket() string  { return filepath.Join(e.dir, "s.sock") }
func (e *engine) root() string    { return filepath.Join(cmp.Or(e.below, e.dir), "snapshotter") }

// serves starts a program that listens on a socket.
func (e *engine) serves(socket, log string, cmd *exec.Cmd) *exec.Cmd {
	e.t.Helper()
	out, err := os.OpenFile(filepath.Join(e.dir, log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}) {
		e.t.Fatalf("%q does not listen:\n%s", cmd.Args, e.log(log))
	}
	return cmd
}

func (e *engine) log(name string) string {
	text, _ := os.ReadFile(filepath.Join(e.dir, name)) // "" says as much
	return string(text)
}

func (e *engine) startSnapshotter() {
	e.t.Helper()
	args := append([]string{"snapshotter", "-v", "--address", e.socket(), "--root", e.root()}, e.flags...)
	e.snapshotter = e.serves(e.socket(), "snapshotter.log", e.command(args...))
}

func (e *engine) startContainerd() {
	e.t.Helper()
	config := filepath.Join(e.dir, "config.toml")
	if err := os.WriteFile(config, []byte(e.config()), 0o600); err != nil {
		e.t.Fatal(err)
	}
	cmd := e.program(filepath.Join(e.programs, "containerd"), "--config", config)
	cmd.Env = append(slices.Clone(e.env), "PATH="+e.path)
	e.containerd = e.serves(e.address(), "containerd.log", cmd)
}

// config returns a configuration of containerd: what imgfs snapshotter config prints, and
// where things are in the sandbox.
func (e *engine) config() string {
	e.t.Helper()
	args := []string{"snapshotter", "config", "--address", e.socket(), "--root", e.root()}
	if slices.Contains(e.flags, "--remap-ids") {
		args = append(args, "--remap-ids")
	}
	if e.version != "" {
		args = append(args, "--version", e.version)
	}
	printed := e.ok(append(args, "containerd")...).stdout
	version, rest, ok := strings.Cut(printed, "\n")
	if !ok || !strings.HasPrefix(version, "version = ") {
		e.t.Fatalf("imgfs snapshotter config printed\n%s", printed)
	}
	disabled := ""
	if e.cri == "" {
		disabled = `disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]`
	}
	return fmt.Sprintf(`%s
root = %q
state = %q
%s
[grpc]
  address = %q
%s%s`, version, filepath.Join(e.dir, "root"), filepath.Join(e.dir, "state"), disabled, e.address(), rest, e.cri)
}

// kill ends a process as the kernel does when memory is short.
func (e *engine) kill(cmd **exec.Cmd) {
	e.t.Helper()
	_ = (*cmd).Process.Kill()
	_ = (*cmd).Wait()
	*cmd = nil
}

// stop ends all processes.
func (e *engine) stop() {
	for _, name := range e.stays {
		if e.containerd != nil && e.snapshotter != nil {
			e.end(name)
		}
	}
	for _, pid := range e.shims() {
		e.endShim(pid)
	}
	for _, cmd := range []*exec.Cmd{e.containerd, e.snapshotter} {
		if cmd != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	e.removeGroups()
	states, _ := filepath.Glob("/run/containerd/runc/" + e.space() + "*") // the pattern is a good one
	for _, dir := range states {
		if err := os.RemoveAll(dir); err != nil {
			e.t.Error(err)
		}
	}
	if e.t.Failed() {
		e.t.Logf("the snapshotter's log:\n%s", e.log("snapshotter.log"))
	}
}

// shims are the processes that containerd has started for containers.
func (e *engine) shims() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if words := cmdline(pid); len(words) > 0 && filepath.Base(words[0]) == "containerd-shim-runc-v2" && slices.Contains(words, e.address()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeGroups removes the control groups of containers, which have ended.
func (e *engine) removeGroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		groups, _ := filepath.Glob(pattern + e.space() + "*") // the pattern is a good one
		for _, group := range groups {
			var all []string
			err := filepath.WalkDir(group, func(name string, d os.DirEntry, err error) error {
				if d != nil && d.IsDir() {
					all = append(all, name)
				}
				return err
			})
			for _, dir := range slices.Backward(all) {
				err = errors.Join(err, os.Remove(dir))
			}
			if err != nil {
				e.t.Error(err)
			}
		}
	}
}

// endShim ends the process of a container, which is its child, and the shim.
func (e *engine) endShim(pid int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // it may have ended
	for _, child := range append(strings.Fields(string(text)), strconv.Itoa(pid)) {
		if n, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL) // likewise
		}
	}
}

// ctr returns a command of containerd's client, in a namespace.
func (e *engine) ctr(namespace string, args ...string) *exec.Cmd {
	return e.program(filepath.Join(e.programs, "ctr"), append([]string{"--address", e.address(), "--namespace", namespace}, args...)...)
}

// does runs a command of containerd's client, which must succeed, and returns what it prints.
func (e *engine) does(args ...string) string {
	e.t.Helper()
	r := e.finish(e.ctr(e.space(), args...))
	if r.code != 0 {
		e.t.Fatalf("ctr %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// pull pulls an image with imgfs as the snapshotter.
func (e *engine) pull(image string, flags ...string) {
	e.t.Helper()
	e.does(append(append([]string{"image", "pull", "--plain-http", "--snapshotter", "imgfs"}, flags...), image)...)
}

// runs runs a command in a new container and returns what it prints.
func (e *engine) runs(image, name string, words ...string) string {
	e.t.Helper()
	return e.does(append([]string{"run", "--rm", "--snapshotter", "imgfs", image, name}, words...)...)
}

// keeps runs a command in a container that stays, until end is called.
func (e *engine) keeps(image, name string, words ...string) {
	e.t.Helper()
	e.does(append([]string{"run", "--detach", "--snapshotter", "imgfs", image, name}, words...)...)
	e.stays = append(e.stays, name)
}

// end ends a container, and removes it.
func (e *engine) end(name string) {
	e.t.Helper()
	e.stays = slices.DeleteFunc(e.stays, func(n string) bool { return n == name })
	var r result
	if !eventually(20*time.Second, func() bool {
		e.finish(e.ctr(e.space(), "task", "rm", "--force", name))
		r = e.finish(e.ctr(e.space(), "container", "rm", name))
		return r.code == 0
	}) {
		e.t.Errorf("the container %s cannot be removed: %s", name, r.stderr)
	}
}

// blobs counts what the content store has.
func (e *engine) blobs() int {
	e.t.Helper()
	return len(strings.Fields(e.does("content", "ls", "-q")))
}

// pushed lets a registry hold an image to run, and returns its name.
func pushed(t testing.TB, reg *registrytest.Server, name string) string {
	t.Helper()
	if err := reg.PushLayout(runnables(t)[name], name); err != nil {
		t.Fatal(err)
	}
	return reg.Host() + "/" + name + ":latest"
}
