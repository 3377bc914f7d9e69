package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Another program takes over, from a server that is stopped, too; the holder becomes one of
// that program, and goes on.
func TestUpgrade(t *testing.T) {
	s := newScene(t, fake{Held: 40})
	for i := range 3 {
		program := copyOfMe(t)
		if i == 1 {
			syscall.Kill(s.Server, syscall.SIGSTOP)
		}
		before := s.Server
		if err := s.client().Upgrade(t.Context(), open(t, program)); err != nil {
			t.Fatal(err)
		}
		if e := s.await("go"); e.Died != Replaced {
			t.Errorf("the new server was told that the old one was ended by %d", e.Died)
		}
		s.Server = s.await("serves").PID
		if syscall.Kill(before, 0) == nil {
			if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", before)); !strings.Contains(string(stat), ") Z ") {
				t.Error("the old server lives")
			}
		}
		if got := s.status(); got.Server != s.Server || got.Holder != s.Holder || got.Upgrades != i+1 || got.Restarts != i || got.State != StateWatch {
			t.Fatalf("after %d upgrades: %+v", i+1, got)
		}
		for _, pid := range []int{s.Holder, s.Server} {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe != program {
				t.Errorf("process %d is of %s, want %s", pid, exe, program)
			}
		}
		s.kill(s.Server)
		if e := s.await("starts"); len(e.Held) != 40 || e.Died != int(syscall.SIGKILL) {
			t.Errorf("%+v", e)
		}
		s.Server = s.await("serves").PID
	}
	syscall.Kill(s.Server, syscall.SIGUSR1)
	s.await("unmounted")
	s.awaitNone()
}

// Nothing changes if another program cannot take over.
func TestUpgradeRefused(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	for name, c := range map[string]struct {
		fake
		program, says string
	}{
		"refuses":     {fake{Refuse: "it shows another tree"}, "/proc/self/exe", "it shows another tree"},
		"hangs":       {fake{Hang: true, Flag: flag, Patience: 3 * time.Second}, "/proc/self/exe", "it was not ready within 3s"},
		"ends":        {fake{}, "/bin/true", "it ended with exit code 0 before it was ready"},
		"no program":  {fake{}, "/etc/passwd", "it could not be started: permission denied"},
		"fails after": {fake{Fail: true}, "/proc/self/exe", "it ended with exit code 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, c.fake)
			os.WriteFile(flag, nil, 0o600)
			err := s.client().Upgrade(t.Context(), open(t, c.program))
			var refused *RefusedError
			if !errors.As(err, &refused) || err.Error() != c.says || refused.Failed != c.Fail {
				t.Fatalf("%v, want %s", err, c.says)
			}
			os.Remove(flag)
			if c.Fail {
				s.Server = s.await("serves").PID
			}
			if got := s.status(); got.Server != s.Server || got.State != StateWatch {
				t.Errorf("%+v; the server was %d", got, s.Server)
			}
			s.kill(s.Server)
			s.await("serves")
		})
	}
}

// Who wants an upgrade goes away before the new program is ready.
func TestUpgradeCancelled(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	s := newScene(t, fake{Hang: true, Flag: flag})
	os.WriteFile(flag, nil, 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		s.await("starts")
		cancel()
	}()
	if err := s.client().Upgrade(ctx, open(t, "/proc/self/exe")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	os.Remove(flag)
	for s.status().State != StateWatch { // until the new one is killed
		time.Sleep(5 * time.Millisecond)
	}
	s.kill(s.Server)
	s.await("serves")
}

// The server dies while another program gets ready: that takes over.
func TestUpgradeMeetsDeath(t *testing.T) {
	s := newScene(t, fake{})
	done := make(chan error, 1)
	go func() { done <- s.client().Upgrade(context.Background(), open(t, "/proc/self/exe")) }()
	s.await("starts")
	_ = syscall.Kill(s.Server, syscall.SIGKILL)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.Server = s.await("serves").PID
	if got := s.status(); got.Server != s.Server || got.Holder != s.Holder {
		t.Errorf("%+v", got)
	}
}

// Nothing is left open after many deaths.
func TestNoDescriptorLeft(t *testing.T) {
	testenv.Slow(t)
	s := newScene(t, fake{Held: 10})
	count := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Holder))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	s.status()
	before := count()
	for range 50 {
		s.kill(s.Server)
		s.Server = s.await("serves").PID
	}
	if err := s.client().Upgrade(t.Context(), open(t, "/proc/self/exe")); err != nil {
		t.Fatal(err)
	}
	s.Server = s.await("serves").PID
	s.status()
	after := count()
	for end := time.Now().Add(10 * time.Second); after > before && time.Now().Before(end); after = count() {
		time.Sleep(time.Millisecond) // that of the last client is closed soon
	}
	if after > before {
		t.Errorf("%d descriptors after 50 deaths, %d before", after, before)
	}
	left, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Server))
	if len(left) > 60 {
		t.Errorf("a server has %d descriptors", len(left))
	}
}
