package scrub

import (
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	for text, want := range map[string]string{
		`Get "https://h.example/a?sig=x&y": EOF`:                     `Get "https://h.example/a": EOF`,
		`http://user:pass@h.example:80/a/b?x failed`:                 `http://h.example:80/a/b failed`,
		`parse "/a/b?sig=x": bad, and why?`:                          `parse "/a/b": bad, and why?`,
		"token eyJhbGciOiJS.eyJpc3MiOi.sig-_x is bad, eyJ.a is none": "token … is bad, eyJ.a is none",
		"one\nline\x1b[31m \u009b \u202e \xff":                       `one line\x1b[31m \u009b \u202e \xff`,
		`HTTPS://h.example/a?sig=x`:                                  `HTTPS://h.example/a`,
		"dial tcp 127.0.0.1:80: connection refused":                  "dial tcp 127.0.0.1:80: connection refused",
		"of " + strings.Repeat("é", 300):                             "of " + strings.Repeat("é", 198) + "…",
		"Authorization: Bearer 0123456789abcdefghij sent":            "Authorization: Bearer … sent",
		"basic authentication is wanted, the token expired":          "basic authentication is wanted, the token expired",
		"for X-Amz-Signature=abc&user_token=def, and sig=g":          "for X-Amz-Signature=…&user_token=…, and sig=…",
		"password: hunter2hunter2, Secret:\"abc-12345678\"":          "password: …, Secret:\"…\"",
		"no token: 401, the token: unauthorized":                     "no token: 401, the token: unauthorized",
		"with ghp_0123456789abcdefXYZ and glpat-abcdefghijkl-1":      "with ghp_… and glpat-…",
		`https://a.example/?x=1 https://b.example/?y=2`:              `https://a.example/ https://b.example/`,
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"ERROR:\n  no account\x1b[0m\n": `ERROR: no account\x1b[0m`,
		strings.Repeat("x", 320):        strings.Repeat("x", 320),
		strings.Repeat("é", 161):        strings.Repeat("é", 60) + " … " + strings.Repeat("é", 100),
		"a" + strings.Repeat("é", 160):  "a" + strings.Repeat("é", 59) + " … " + strings.Repeat("é", 100),
		"":                              "",
	} {
		if got := Words(text); got != want {
			t.Errorf("Words(%q): got %q, want %q", text, got, want)
		}
	}
}
