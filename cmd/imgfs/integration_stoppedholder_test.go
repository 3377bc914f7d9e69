//go:build linux

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestStoppedHolder: a holder that is stopped is named with what continues it, while the
// server lives and when it is dead.
func TestStoppedHolder(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mount(image)
	before, keeps := s.stats(dir), s.holder(dir)
	member := `"holderStopped":`
	if r := s.ok("stats", "--json", dir); strings.Contains(r.stdout, member) {
		t.Errorf("its holder runs, and stats say %s", r.stdout)
	}
	testenv.Stop(t, keeps)
	cont := fmt.Sprintf("kill -CONT %d", keeps)
	if r := s.ok("stats", dir); !strings.Contains(r.stdout, fmt.Sprintf("recovery  process %d, which would take over, is stopped; %s", keeps, cont)) {
		t.Errorf("stats say %s", r.stdout)
	}
	if r := s.ok("stats", "--json", dir); !strings.Contains(r.stdout, member) {
		t.Errorf("stats say %s", r.stdout)
	}

	s.signal(before.PID, syscall.SIGKILL)
	if !eventually(soon, func() bool { return len(serving(dir)) == 0 }) {
		t.Fatal("the server does not end")
	}
	says := fmt.Sprintf("process %d, which would restart its server, is stopped", keeps)
	if rows := s.ps(); len(rows) != 1 || rows[0].Health != serve.HealthStopped || rows[0].Why != says+"; "+cont || rows[0].PID != 0 {
		t.Errorf("ps says %+v", rows)
	}
	if r := s.ok("ps"); !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), "stopped: process") {
		t.Errorf("ps says %s", r.stdout)
	}
	for _, args := range [][]string{{"stats", dir}, {"mount", image, dir}, {"upgrade", dir}} {
		s.fails(1, []string{says, "hint: " + cont}, args...)
	}
	s.signal(keeps, syscall.SIGCONT)
	s.served(dir, before)
	s.umount(dir)
}
