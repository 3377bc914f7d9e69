package cache

import (
	"strings"
	"testing"
	"time"
)

func TestVerificationNames(t *testing.T) {
	want := map[Verification]string{
		VerifiedWrong: "wrong", VerifiedNot: "not", VerifiedByPublisher: "publisher", VerifiedByChunk: "chunk", VerifiedWhole: "whole",
	}
	for v, name := range want {
		text, err := v.MarshalText()
		if v.String() != name || string(text) != name || err != nil {
			t.Errorf("%d is %q, %q, %v; want %q", v, v, text, err, name)
		}
	}
	if VerifiedWrong >= VerifiedNot || VerifiedNot != 0 {
		t.Error("nothing known is not the zero value, or less than wrong")
	}
}

func TestMarks(t *testing.T) {
	table := strings.Repeat("0f", 32)
	when := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		text string
		want mark
		ok   bool
	}{
		{"whole 2026-01-31T12:00:00Z\n", mark{VerifiedWhole, when, ""}, true},
		{"whole 2026-01-31T12:00:00Z " + table + "\n", mark{VerifiedWhole, when, table}, true},
		{"chunk 2026-01-31T12:00:00Z\n", mark{VerifiedByChunk, when, ""}, true},
		{"publisher 2026-01-31T12:00:00Z\n", mark{VerifiedByPublisher, when, ""}, true},
		{"wrong 2026-01-31T12:00:00Z " + table + "\n", mark{VerifiedWrong, when, table}, true},
		{"", mark{}, false},
		{"\n", mark{}, false},
		{"whole\n", mark{}, false},
		{"whole 2026-01-31T12:00:00Z", mark{}, false},
		{"whole yesterday\n", mark{}, false},
		{"not 2026-01-31T12:00:00Z\n", mark{}, false},
		{"hole 2026-01-31T12:00:00Z\n", mark{}, false},
		{"wrong 2026-01-31T12:00:00Z\n", mark{}, false},
		{"wrong 2026-01-31T12:00:00Z 0f\n", mark{}, false},
		{"whole 2026-01-31T12:00:00Z " + table + " \n", mark{}, false},
		{"whole 2026-01-31T12:00:00Z " + strings.Repeat("z", 64) + "\n", mark{}, false},
	}
	for _, tt := range tests {
		got, ok := parseMark([]byte(tt.text))
		if got != tt.want || ok != tt.ok {
			t.Errorf("parseMark(%q) = %+v, %v; want %+v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
		if ok && string(got.encode()) != tt.text {
			t.Errorf("%q is written as %q", tt.text, got.encode())
		}
	}
}
