package blobs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Tests that need another process run this test binary again, with childEnv
// naming what it is to do and the cache directory as its argument.
const childEnv = "BLOBCACHE_TEST_CHILD"

// asCutsEnv, if it is set, is for cachetest.AsCuts.
const asCutsEnv = "BLOBCACHE_TEST_CUTS"

func TestMain(m *testing.M) {
	cachetest.AsCuts = os.Getenv(asCutsEnv) != ""
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "hammer":
		hammer(os.Args[1])
	case "crowd":
		crowd(os.Args[1])
	case "stream":
		streamHalf(os.Args[1])
	case "use":
		useAll(os.Args[1])
	case "use without":
		if err := deny(os.Args[2:]); err != nil {
			fmt.Println("failed:", err)
			return
		}
		useAll(os.Args[1])
	case "prune without":
		if err := deny(os.Args[3:]); err != nil {
			fmt.Println("failed:", err)
			return
		}
		pruneTo(os.Args[1], os.Args[2])
	}
}

// child returns a command that runs the test binary as a child.
func child(t testing.TB, what, dir string) *exec.Cmd {
	t.Helper()
	return testenv.Child(t, childEnv, what, dir)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// pruneTo is the child that prunes a cache directory to a size.
func pruneTo(dir, size string) {
	c, err := openTest(dir, nil)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	defer c.Close()
	to, err := strconv.ParseInt(size, 10, 64)
	if err == nil {
		_, err = c.Prune(directory.PruneOptions{To: to})
	}
	if err != nil {
		fmt.Println("failed:", err)
	}
}

// What is true of chunks of one size is true of cuts that happen to be: the other tests run
// once more with them, but for those of recordings, of the check of the whole blob, and of
// names and files as chunks have them.
func TestAsCuts(t *testing.T) {
	t.Parallel()
	if cachetest.AsCuts {
		t.Skip("this is it")
	}
	if testing.Short() {
		t.Skip("takes as long as all others")
	}
	const skip = "Cuts|Patched|Condemn|Kill$|Crowd|OtherChunks|Without|Damaged|Sparse|Fill$|DiskFullOfCache|Local$|Prune$|Holdings|Record|NeedsAll|Hollow|StreamOnce|StreamKilled|Whole|LyingIndex"
	cmd := exec.Command(os.Args[0], "-test.skip="+skip)
	cmd.Env = append(os.Environ(), asCutsEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
