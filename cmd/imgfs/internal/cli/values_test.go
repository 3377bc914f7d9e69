package cli

import (
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "500": 500, "12B": 12, "12 b": 12,
		"1k": 1 << 10, "1K": 1 << 10, "2M": 2 << 20, "3g": 3 << 30, "1T": 1 << 40,
		"1KiB": 1 << 10, "1kib": 1 << 10, "2MiB": 2 << 20, "10 GiB": 10 << 30,
		"1kB": 1e3, "1KB": 1e3, "2MB": 2e6, "3gb": 3e9, "1TB": 1e12,
		"1.5G": 3 << 29, "0.5kB": 500, ".5k": 512, "8388607T": 8388607 << 40,
		"0.5": 1, "0.0001K": 1, "1.1": 2, "0.0": 0, "0G": 0,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q: got %d and error %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "G", "-1", "-1G", "+1", "1P", "1x", "1kk", "1ki", "1bB", "1.2.3", "1e3", "0x10", "Inf", "NaN", "none", "1G2", "9000000T", "1,5G", "1_0", " 1"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
	var bound Bound
	if err := bound.Set("none"); err != nil || !bound.Given || bound.Bytes != 0 || bound.String() != "none" {
		t.Errorf(`"none" as a bound: got %+v and error %v`, bound, err)
	}
}

func TestParseAge(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"36h": 36 * time.Hour, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "1s": time.Second,
		"7d": 7 * day, "2w": 14 * day, "1w3d": 10 * day, "1w12h": 7*day + 12*time.Hour, "1w1d1h": 8*day + time.Hour, "1.5d": 36 * time.Hour, "0d1s": time.Second,
	} {
		if got, err := parseAge(text); got != want || err != nil {
			t.Errorf("%q: got %v and error %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "7", "d", "w", "-7d", "-1h", "0", "0s", "0d", "1d2w", "1y", "7 d", "1e3d", "d7", "1000000w", "Infd", "7dd"} {
		if got, err := parseAge(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
