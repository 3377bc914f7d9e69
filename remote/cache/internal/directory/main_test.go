package directory

import (
	"os"
	"os/exec"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// Tests that need another process run this test binary again, with childEnv
// naming what it is to do and the cache directory as its argument.
const childEnv = "DIRECTORY_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "claim":
		claimer(os.Args[1])
	case "log":
		writeLog(os.Args[1], os.Args[2])
	}
}

// child returns a command that runs the test binary as a child.
func child(t testing.TB, what, dir string) *exec.Cmd {
	t.Helper()
	return testenv.Child(t, childEnv, what, dir)
}

func openAt(t testing.TB, dir string) *Dir {
	t.Helper()
	c, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
