package registry

import (
	"testing"
	"time"
)

// Requests that were under way together fail together, and that is one
// failure; those that were sent afterwards are more.
func TestHealthCounts(t *testing.T) {
	told := 0
	o := (&Options{StateChanged: func(string, bool, string) { told++ }}).withDefaults()
	h := newHealth(o, "a.example")
	for range downAfter - 1 {
		sent := time.Now()
		for range 16 {
			h.failed(t.Context(), sent, "reset")
		}
	}
	if s := h.state(); s.Down || told > 0 {
		t.Errorf("two failures of many requests each: %+v, told %d times", s, told)
	}
	h.failed(t.Context(), time.Now(), "reset")
	if s := h.state(); !s.Down || told != 1 || s.Since.After(time.Now()) {
		t.Errorf("the third: %+v, told %d times", s, told)
	}
	// With one try there is nothing to wait for.
	o.Tries = 1
	h = newHealth(o, "a.example")
	h.failed(t.Context(), time.Now(), "reset")
	if s := h.state(); !s.Down {
		t.Errorf("one failure where there is one try: %+v", s)
	}
}
