package serve

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestServerByName finds a process by its command line, and what it is doing.
func TestServerByName(t *testing.T) {
	dir := t.TempDir()
	end, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command("sh", "-c", "read line; exit", "mount", "--", "image", dir)
	cmd.Stdin = end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	got := 0
	for begun := time.Now(); got == 0 && time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		got = serverByName(&Running{Dir: dir})
	}
	if got != cmd.Process.Pid {
		t.Errorf("got process %d, want %d", got, cmd.Process.Pid)
	}
	if p, ok := lookAt(got); !ok || p.memory < 4096 || p.stopped {
		t.Errorf("process %d: got %+v, %v", got, p, ok)
	}
	if pid := serverByName(&Running{Dir: dir + "x"}); pid != 0 {
		t.Errorf("process %d serves what nobody does", pid)
	}
	in.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("reading nothing is no success") // sh says so
	}
	if _, ok := lookAt(got); ok {
		t.Errorf("process %d has ended, and is there", got)
	}
	for _, none := range []int{0, -1} {
		if _, ok := lookAt(none); ok {
			t.Errorf("there is a process %d", none)
		}
	}
}
