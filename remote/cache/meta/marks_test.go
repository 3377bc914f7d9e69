package meta

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
		want Mark
		ok   bool
	}{
		{"whole 2026-01-31T12:00:00Z\n", Mark{VerifiedWhole, when, ""}, true},
		{"whole 2026-01-31T12:00:00Z " + table + "\n", Mark{VerifiedWhole, when, table}, true},
		{"chunk 2026-01-31T12:00:00Z\n", Mark{VerifiedByChunk, when, ""}, true},
		{"publisher 2026-01-31T12:00:00Z\n", Mark{VerifiedByPublisher, when, ""}, true},
		{"wrong 2026-01-31T12:00:00Z " + table + "\n", Mark{VerifiedWrong, when, table}, true},
		{"", Mark{}, false},
		{"\n", Mark{}, false},
		{"whole\n", Mark{}, false},
		{"whole 2026-01-31T12:00:00Z", Mark{}, false},
		{"whole yesterday\n", Mark{}, false},
		{"not 2026-01-31T12:00:00Z\n", Mark{}, false},
		{"hole 2026-01-31T12:00:00Z\n", Mark{}, false},
		{"wrong 2026-01-31T12:00:00Z\n", Mark{}, false},
		{"wrong 2026-01-31T12:00:00Z 0f\n", Mark{}, false},
		{"whole 2026-01-31T12:00:00Z " + table + " \n", Mark{}, false},
		{"whole 2026-01-31T12:00:00Z " + strings.Repeat("z", 64) + "\n", Mark{}, false},
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
