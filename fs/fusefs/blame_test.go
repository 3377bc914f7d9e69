//go:build linux

package fusefs

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBlame: who is alone at kills is condemned at the sixth, and who is one of many at a
// machine's pace is not.
func TestBlame(t *testing.T) {
	for _, c := range []struct {
		died, begun, deaths int // deaths until it is condemned
	}{
		{int(unix.SIGSEGV), 1, 2}, {int(unix.SIGSEGV), 100, 2}, {0, 8, 2},
		{int(unix.SIGKILL), 1, 6}, {-1, 1, 6}, {int(unix.SIGTERM), 1, 6},
		{int(unix.SIGKILL), 2, 12}, {int(unix.SIGKILL), 8, 52}, {int(unix.SIGKILL), 10, 60}, {int(unix.SIGKILL), 10000, 60},
	} {
		sum, deaths := uint32(0), 0
		for ; sum < condemned; deaths++ {
			sum += blame(c.died, c.begun)
		}
		if deaths != c.deaths {
			t.Errorf("died by %d with %d begun: condemned after %d, want %d", c.died, c.begun, deaths, c.deaths)
		}
	}
	if blame(int(unix.SIGKILL), 1) >= suspect {
		t.Error("one SIGKILL makes a request suspect")
	}
}

// TestSucceedsKiller: a request that has servers killed, as by lack of memory, fails at the
// sixth.
func TestSucceedsKiller(t *testing.T) {
	w := mounters(t)[0]
	h := keep(t, w, task{Tree: "survive"})
	reader := start(t, w.uid, task{Role: "read", Dir: filepath.Join(h.dir, "crash")})
	reader.next() // its thread
	// A request that another program has on its way shares the blame for one death.
	for servers := 1; ; servers++ {
		select {
		case <-h.dies():
			if servers == 10 {
				t.Fatal("ten servers have died, and the reader has no answer")
			}
			said := h.next(int(unix.SIGKILL))
			for ; said == "" && servers < 10; servers++ { // it was killed before it could say a word
				said = h.next(int(unix.SIGKILL))
			}
			if said != "ready" {
				t.Fatalf("the next server says %q", said)
			}
			continue
		case line := <-reader.events:
			if servers <= 6 || !strings.Contains(line, unix.EIO.Error()) {
				t.Errorf("%d servers have died, and the reader says %q, want EIO after six or more", servers-1, line)
			}
			return
		case <-time.After(time.Minute):
			t.Fatal("the server neither dies nor answers")
		}
	}
}
