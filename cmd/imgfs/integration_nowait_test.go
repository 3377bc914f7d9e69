//go:build linux

package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"golang.org/x/sys/unix"
)

// heldRegistry is a registry that answers for manifests when release is called.
func heldRegistry(t *testing.T) (reg *registrytest.Server, release func()) {
	t.Helper()
	reg = registrytest.New(t, nil)
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	reg.Inject(registrytest.Manifest, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		select {
		case <-gate:
			serve(w, r)
		case <-r.Context().Done():
		}
	}))
	return reg, release
}

// waiter starts a program that waits for a mount.
func (s *sandbox) waiter(args ...string) (cmd *exec.Cmd, out *bytes.Buffer, done chan error) {
	s.t.Helper()
	cmd, out, done = s.program(args[0], args[1:]...), &bytes.Buffer{}, make(chan error, 1)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		s.t.Fatalf("%q has not waited: %v\n%s", args, err, out)
	case <-time.After(200 * time.Millisecond):
	}
	return cmd, out, done
}

// ends checks that a program ends soon.
func ends(t *testing.T, what string, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatalf("%s still waits", what)
		return nil
	}
}

// logOf returns the log of mounts.
func (s *sandbox) logOf() string {
	text, _ := os.ReadFile(filepath.Join(s.cache, "imgfs.log"))
	return string(text)
}

// TestNoWait: imgfs mount --no-wait returns before the registry has said anything, and
// who looks into the mount waits, and sees the image.
func TestNoWait(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		reg, release := heldRegistry(t)
		image, _ := publish(t, reg, small)
		s := sandboxOf(t, who)
		dir := s.mountpoint()
		r := s.ok("mount", "--no-wait", image, dir)
		if r.took > soon || !mounted(dir) || !strings.HasPrefix(r.stdout, "mounting "+image+" on "+dir) {
			t.Fatalf("it took %v: %q", r.took, r.stdout)
		}
		if m := tool(t, "findmnt", "-n", "-o", "SOURCE,FSTYPE", dir); strings.Join(strings.Fields(m), " ") != image+" fuse.imgfs" {
			t.Errorf("findmnt: %q", m)
		}
		if out := s.ok("stats", "--json", dir).stdout; !strings.Contains(out, `"opening": true`) {
			t.Errorf("stats of a mount that waits: %s", out)
		}
		if r := s.ok("stats", dir); !strings.Contains(r.stdout, "not open yet") {
			t.Errorf("stats of a mount that waits: %s", r.stdout)
		}
		s.fails(cli.ExitFailure, []string{"already a mount point", "imgfs umount"}, "mount", image, dir)
		if r := s.finish(s.program("timeout", "5", "df", "--output=source", dir)); !strings.Contains(r.stdout, image) {
			t.Errorf("df: %+v", r)
		}
		_, out, done := s.waiter("cat", dir+"/etc/os-release")
		for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, os.Kill} { // each ends who waits
			var all []*exec.Cmd
			for _, args := range [][]string{{"ls", "--color=always", dir}, {"stat", dir}, {"stat", dir + "/etc"}} {
				cmd := s.program(args[0], args[1:]...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				all = append(all, cmd)
			}
			time.Sleep(200 * time.Millisecond)
			for _, cmd := range all {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != sig {
					t.Errorf("%q after %v: %v", cmd.Args, sig, err)
				}
			}
		}
		release()
		if err := ends(t, "cat", done); err != nil || out.String() != "NAME=small\n" {
			t.Errorf("cat: %v: %q", err, out)
		}
		if out := s.ok("stats", "--json", dir).stdout; !strings.Contains(out, `"opening": false`) {
			t.Errorf("stats: %s", out)
		}
		s.umount(dir)
	})
}

// TestNoWaitHandler: a program that handles SIGINT goes on after it: what it waited for
// fails.
func TestNoWaitHandler(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	need(t, "bash")
	reg, _ := heldRegistry(t)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mountpoint()
	s.ok("mount", "--no-wait", image, dir)
	cmd, out, done := s.waiter("bash", "-c", `trap "echo trapped" INT; cd "$1" || echo failed`, "bash", dir)
	for range 10 { // bash tries again, by another spelling
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
			if !strings.Contains(out.String(), "trapped") || !strings.Contains(out.String(), "failed") {
				t.Errorf("cd: %s", out)
			}
			s.umount(dir)
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	t.Errorf("cd waits on: %s", out)
	_ = cmd.Process.Kill()
	<-done
}

// TestNoWaitEnds: whatever ends a mount that waits leaves nothing.
func TestNoWaitEnds(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		reg, _ := heldRegistry(t)
		image, _ := publish(t, reg, small)
		s := sandboxOf(t, who)
		for _, test := range []struct {
			name string
			end  func(dir string)
		}{
			{"imgfs umount", func(dir string) { s.ok("umount", dir) }},
			{"umount", func(dir string) { tool(t, "umount", dir) }},
			{"lazy", func(dir string) {
				cmd, _, done := s.waiter("ls", dir)
				s.fails(cli.ExitFailure, []string{"in use"}, "umount", dir)
				s.ok("umount", "-l", dir)
				if err := unix.Kill(cmd.Process.Pid, unix.SIGINT); err != nil {
					t.Fatal(err)
				}
				_ = ends(t, "ls", done)
			}},
			{"SIGTERM", func(dir string) {
				_, out, done := s.waiter("ls", dir)
				if err := unix.Kill(s.daemon(dir), unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if err := ends(t, "ls", done); err == nil {
					t.Errorf("ls has seen something: %s", out)
				}
			}},
			{"SIGKILL", func(dir string) {
				_, _, done := s.waiter("ls", dir)
				if err := unix.Kill(s.daemon(dir), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = ends(t, "ls", done)
				s.ok("umount", dir)
			}},
		} {
			dir := s.mountpoint()
			s.ok("mount", "--no-wait", "--no-recover", image, dir)
			test.end(dir)
			if !eventually(5*time.Second, func() bool { return !mounted(dir) }) {
				t.Errorf("%s: it is still mounted", test.name)
			}
			s.waitGone(dir)
		}
	})
}

// TestNoWaitFails: what can be told at once is, and what cannot is in the log when the
// mount is gone.
func TestNoWaitFails(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		reg, release := heldRegistry(t)
		image, _ := publish(t, reg, small)
		s := sandboxOf(t, who)
		dir := s.mountpoint()
		s.fails(cli.ExitUsage, []string{"--no-wait and - exclude"}, "mount", "--no-wait", "-", dir)
		s.fails(cli.ExitFailure, []string{"no such file"}, "mount", "--no-wait", "oci:"+dir+"/missing", dir)
		s.fails(cli.ExitFailure, []string{"invalid reference"}, "mount", "--no-wait", "app:bad:tag", dir)
		s.fails(cli.ExitFailure, []string{"mountpoint does not exist"}, "mount", "--no-wait", image, dir+"/missing")

		s.ok("mount", "--no-wait", reg.Host()+"/missing:1", dir)
		_, out, done := s.waiter("ls", dir)
		release()
		if err := ends(t, "ls", done); err == nil {
			t.Errorf("ls of what cannot be opened: %s", out)
		}
		if !eventually(5*time.Second, func() bool { return !mounted(dir) }) {
			t.Error("it is still mounted")
		}
		s.waitGone(dir)
		if log := s.logOf(); !strings.Contains(log, dir+": "+reg.Host()+"/missing:1") || strings.Count(log, "missing:1") != 1 {
			t.Errorf("the log: %s", log)
		}
		r := s.fails(cli.ExitFailure, []string{"missing:1"}, "mount", "-f", "--no-wait", reg.Host()+"/missing:1", dir)
		if strings.Count(r.stderr, "missing:1") != 1 || mounted(dir) {
			t.Errorf("in the foreground: %s", r.stderr)
		}
	})
}

// TestOneOfManyMounts: of many that mount on one directory at once, one does.
func TestOneOfManyMounts(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		reg := registrytest.New(t, nil)
		image, _ := publish(t, reg, small)
		s := sandboxOf(t, who)
		s.ok("ls", image)
		dir := s.mountpoint()
		const many = 6
		var all [many]result
		var done sync.WaitGroup
		for i := range all {
			done.Go(func() { all[i] = s.run("mount", image, dir) })
		}
		done.Wait()
		good := 0
		for _, r := range all {
			if r.code == 0 {
				good++
			} else if !strings.Contains(r.stderr, "already a mount point") {
				t.Errorf("one that failed: %s", r.stderr)
			}
		}
		if n := len(mountsBelow(dir)); good != 1 || n != 1 {
			t.Errorf("%d have mounted, and there are %d mounts", good, n)
		}
		if text, err := os.ReadFile(dir + "/etc/os-release"); err != nil && !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s %v", text, err)
		}
		s.umount(dir)
	})
}
