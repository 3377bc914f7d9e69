package scrub

import (
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	for text, want := range map[string]string{
		`Get "https://h.example/a?sig=x&y": EOF`:        `Get "https://h.example/a": EOF`,
		`http://user:pass@h.example:80/a/b?x failed`:    `http://h.example:80/a/b failed`,
		`parse "/a/b?sig=x": bad, and why?`:             `parse "/a/b": bad, and why?`,
		"one\nline\x1b[31m \u009b \u202e \xff":          `one line\x1b[31m \u009b \u202e \xff`,
		`HTTPS://h.example/a?sig=x`:                     `HTTPS://h.example/a`,
		"dial tcp 127.0.0.1:80: connection refused":     "dial tcp 127.0.0.1:80: connection refused",
		"of " + strings.Repeat("é", 300):                "of " + strings.Repeat("é", 198) + "…",
		`https://a.example/?x=1 https://b.example/?y=2`: `https://a.example/ https://b.example/`,
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q): got %q, want %q", text, got, want)
		}
	}
}
