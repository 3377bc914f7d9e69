//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestInterruptedIndexing ends imgfs mount while layers arrive, slowly.
// Nothing may be left: no mount, no process, no half file.
func TestInterruptedIndexing(t *testing.T) {
	testenv.Slow(t)
	l := newLab(t)
	ways := []struct {
		name string
		code int // -1: killed
		said string
		tmp  bool // whether files may stay in tmp, where the next run removes them
		end  func(cmd *exec.Cmd, child int) error
	}{
		// A terminal sends it to the whole process group.
		{"Ctrl-C", 1, "interrupted", false, func(cmd *exec.Cmd, _ int) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }},
		{"SIGTERM", 1, "interrupted", false, func(cmd *exec.Cmd, _ int) error { return cmd.Process.Signal(syscall.SIGTERM) }},
		{"SIGHUP", 1, "interrupted", false, func(cmd *exec.Cmd, _ int) error { return cmd.Process.Signal(syscall.SIGHUP) }},
		{"SIGQUIT", 1, "interrupted", false, func(cmd *exec.Cmd, _ int) error { return cmd.Process.Signal(syscall.SIGQUIT) }},
		{"SIGTERM of the child", 1, "interrupted", false, func(_ *exec.Cmd, child int) error { return syscall.Kill(child, syscall.SIGTERM) }},
		{"SIGKILL", -1, "", false, func(cmd *exec.Cmd, _ int) error { return cmd.Process.Kill() }},
		{"SIGKILL of the child", 1, "ended before the mount was ready", true, func(_ *exec.Cmd, child int) error { return syscall.Kill(child, syscall.SIGKILL) }},
	}
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		p := newProxy(t, l.host)
		image := p.host + "/" + goTree
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				s := s.in(t)
				p.rate.Store(500_000)
				dir := s.mountpoint()
				cmd := inGroup(s.command("mount", image, dir))
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				child := s.indexing(p, dir)
				begun := time.Now()
				if err := way.end(cmd, child); err != nil {
					t.Error(err)
				}
				_ = cmd.Wait() // the exit code tells
				if code := cmd.ProcessState.ExitCode(); code != way.code || !strings.Contains(out.String(), way.said) || strings.Count(out.String(), "\n") > 2 {
					t.Errorf("exit code %d, output %q, want %d, and a line with %q", code, &out, way.code, way.said)
				}
				s.gone(dir)
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("it took %v to end", took)
				}
				if left := files(t, filepath.Join(s.cache, "tmp")); len(left) > 0 && !way.tmp {
					t.Errorf("left in the cache: %q", left)
				}
				s.onlyWhole(l.layouts[goTree])
			})
		}
		p.rate.Store(0)
		s.umount(s.mount(image))
		if left := files(t, filepath.Join(s.cache, "tmp")); len(left) > 0 {
			t.Errorf("left in the cache: %q", left)
		}
	})
}

// indexing waits until layers are being read through a proxy, for a mount on
// dir, and returns the process that reads them.
func (s *sandbox) indexing(p *proxy, dir string) (child int) {
	s.t.Helper()
	before := p.sent.Load()
	reads := func() bool {
		for _, pid := range processes(dir) {
			if slices.Contains(cmdline(pid), "--"+detachedFlag) {
				child = pid
			}
		}
		return child != 0 && p.sent.Load() > before+300_000 && len(files(s.t, filepath.Join(s.cache, "tmp"))) > 0
	}
	if !eventually(20*time.Second, reads) {
		s.t.Fatalf("nothing is read: child %d, %d bytes", child, p.sent.Load()-before)
	}
	return child
}

// onlyWhole checks that the cache has only whole blobs of a layout, and not
// the biggest, for which there was no time.
func (s *sandbox) onlyWhole(layout string) {
	s.t.Helper()
	const most = 1 << 20
	for _, path := range append(files(s.t, filepath.Join(s.cache, "blobs")), files(s.t, filepath.Join(s.cache, "indexes"))...) {
		want, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", filepath.Base(path)))
		if err != nil || len(want) > most {
			s.t.Errorf("%s is in the cache: a blob of %d bytes, %v", path, len(want), err)
			continue
		}
		if strings.HasPrefix(path, filepath.Join(s.cache, "indexes")) {
			continue
		}
		// The blob, and then what is known of its parts.
		got, err := os.ReadFile(path)
		if err != nil || len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
			s.t.Errorf("%s is not whole: %d of %d bytes, %v", path, len(got), len(want), err)
		}
	}
}
