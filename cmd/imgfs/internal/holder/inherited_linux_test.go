package holder

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What others have set in our variables is of no account, and a successor ignores the signals
// that the first server ignored, and no others.
func TestInherited(t *testing.T) {
	s := newScene(t, fake{Ours: true, Held: 2})
	ignored := ignoredBy(t, s.Server)
	for range 2 { // both made by the holder
		s.kill(s.Server)
		if e := s.await("starts"); len(e.Held) != 2 || e.Died == 11 {
			t.Fatalf("%+v", e)
		}
		s.Server = s.await("serves").PID
		if got := ignoredBy(t, s.Server); got != ignored {
			t.Errorf("a successor ignores the signals %s, the first server %s", got, ignored)
		}
	}
	s.kill(s.Holder)
	s.awaitHolder()
	s.status()
}

// ignoredBy are the signals that a process ignores.
func ignoredBy(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, ignored, ok := strings.Cut(string(status), "SigIgn:\t")
	if err != nil || !ok {
		t.Fatal(err)
	}
	return ignored[:16]
}
