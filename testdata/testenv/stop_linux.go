package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Stop stops a process, and waits until none of its threads runs any more: one that
// has been told may still answer a request.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("stop process %d: %v", pid, err)
	}
	for end := time.Now().Add(10 * time.Second); !Stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// Stopped reports whether all threads of a process are stopped.
func Stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if _, state, ok := strings.Cut(string(text), ") "); err != nil || !ok || state[0] != 'T' {
			return false
		}
	}
	return err == nil && len(threads) > 0
}
