package cache

import (
	"os"
	"os/exec"
	"testing"
)

// Tests that need another process run this test binary again, with childEnvD
// naming what it is to do and the cache directory as its argument.
const childEnvD = "DIRECTORY_TEST_CHILD"

func mainD(m *testing.M) {
	switch os.Getenv(childEnvD) {
	case "":
		os.Exit(m.Run())
	case "claim":
		claimer(os.Args[1])
	case "log":
		writeLog(os.Args[1], os.Args[2])
	}
}

// child returns a command that runs the test binary as a child.
func childD(t testing.TB, what, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir)
	// The race detector waits for a second before it exits.
	cmd.Env = append(os.Environ(), childEnvD+"="+what, "GORACE=atexit_sleep_ms=0")
	return cmd
}

func openAt(t testing.TB, dir string) *directory {
	t.Helper()
	c, err := openDirectory(dir, directoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	return c
}
