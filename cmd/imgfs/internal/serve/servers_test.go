package serve

import (
	"fmt"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry"
)

// TestServersChange: servers that were down before somebody listened are logged, and
// then each change.
func TestServersChange(t *testing.T) {
	var said []string
	log := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	var s Servers
	s.Changed("early.example", false, "nobody listens")
	s.Watch(func() []registry.HostState {
		return []registry.HostState{{Host: "a.example", Since: time.Now()}, {Host: "b.example", Down: true, Since: time.Now(), Reason: "refused"}}
	})
	s.logTo(log)
	s.Changed("b.example", true, "")
	want := []string{"registry b.example: down: refused", "registry b.example: it answers again"}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", said, want)
	}
	if got := s.states(); len(got) != 2 || got[0].Host != "b.example" || got[1].Down {
		t.Errorf("got %+v, want what is down first", got)
	}
}
