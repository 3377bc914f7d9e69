package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Child returns a command that runs the test binary again, with arguments, and
// with a variable by which its TestMain knows what it is to do.
func Child(t testing.TB, variable, what string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	// The race detector waits for a second before it exits.
	cmd.Env = append(os.Environ(), variable+"="+what, "GORACE=atexit_sleep_ms=0")
	return cmd
}
