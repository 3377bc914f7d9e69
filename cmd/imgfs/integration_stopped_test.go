//go:build linux

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestStoppedProcesses: a server that is stopped is named with what continues it, and
// unmounting ends what is stopped. The same program takes a stopped one's place.
func TestStoppedProcesses(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	stop := func(pids ...int) {
		t.Helper()
		for _, pid := range pids {
			testenv.Stop(t, pid)
		}
	}
	dir := s.mount(image)
	before := s.stats(dir)
	stop(before.PID)
	says := fmt.Sprintf("process %d, which serves it, is stopped", before.PID)
	s.fails(1, []string{says, fmt.Sprintf("kill -CONT %d, or imgfs upgrade ", before.PID)}, "stats", dir)
	if r := s.ok("upgrade", dir); !strings.HasSuffix(r.stdout, " serves it now\n") {
		t.Errorf("upgrade says %q", r.stdout)
	}
	s.served(dir, before)
	stop(s.holder(dir))
	s.fails(1, []string{fmt.Sprintf("process %d, which would restart its server, is stopped", s.holder(dir)), "kill -CONT "}, "upgrade", dir)
	stop(s.daemon(dir))
	s.ok("umount", dir)
	s.endSoon(dir)

	dir = s.mount(image, "--no-recover")
	s.fails(1, []string{"its server cannot be changed: " + s.stats(dir).Recovery.Why, "hint: "}, "upgrade", dir)
	pid := s.daemon(dir)
	stop(pid)
	s.fails(1, []string{fmt.Sprintf("process %d, which serves it, is stopped", pid), fmt.Sprintf("kill -CONT %d", pid)}, "upgrade", dir)
	s.ok("umount", dir)
	s.endSoon(dir)
}
