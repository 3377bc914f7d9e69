//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// childrenOf returns the processes of imgfs that a process has started.
func childrenOf(parent int) (pids []int) {
	for _, pid := range processes("") {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // or it has ended
		if strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestSurviveStart kills servers while they mount. Either the command says that there is a
// mount, and there is, or nothing is left: no mount, no process and no directory.
func TestSurviveStart(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "fusermount3")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for name, s := range users(t) {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			first := s.mountMade(image)
			base := filepath.Dir(first)
			s.ok("umount", first)
			s.waitGone(s.dir)
			for when, come := range map[string]func(dir string, server int) bool{
				"it runs":    func(string, int) bool { return true },
				"it mounts":  func(dir string, _ int) bool { return len(mountsBelow(dir)) > 0 },
				"it is held": func(_ string, server int) bool { return len(childrenOf(server)) > 0 },
			} {
				for _, made := range []bool{false, true} {
					args, dir := []string{"mount", image}, base
					if !made {
						dir = s.mountpoint()
						args = append(args, dir)
					}
					var out bytes.Buffer
					cmd := s.command(args...)
					cmd.Stdout, cmd.Stderr = &out, &out
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					var server []int
					eventually(soon, func() bool { server = childrenOf(cmd.Process.Pid); return len(server) > 0 })
					ended := make(chan error, 1)
					go func() { ended <- cmd.Wait() }()
					for len(ended) == 0 && len(server) > 0 && !come(dir, server[0]) {
						time.Sleep(time.Millisecond)
					}
					if len(server) > 0 {
						_ = syscall.Kill(server[0], syscall.SIGKILL)
					}
					err := ends(t, "the command", ended)
					if err == nil {
						at := mountsBelow(dir)
						if len(at) != 1 {
							t.Fatalf("killed when %s: the command said %q, and mounted are %q", when, &out, at)
						}
						s.holds(filepath.Join(at[0], "etc/os-release"), "NAME=small\n")
						s.ok("umount", at[0])
					} else if !strings.Contains(out.String(), "ended before the mount was ready") {
						t.Errorf("killed when %s: %v, %s", when, err, &out)
					}
					if !eventually(soon, func() bool {
						names, _ := os.ReadDir(base)
						return len(mountsBelow(dir)) == 0 && len(processes(image)) == 0 && len(names) == 0
					}) {
						names, _ := os.ReadDir(base)
						t.Fatalf("killed when %s: mounted are %q, processes %v, and %v is left in %s\n%s", when, mountsBelow(dir), processes(image), names, base, s.logOf())
					}
				}
			}
		})
	}
}
