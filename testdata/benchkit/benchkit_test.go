package benchkit

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "B", "0 B"}, {3, "", "3"}, {1024, "KiB", "1024 KiB"}, {0.5, "s", "0.500 s"}, {1.25, "s", "1.25 s"},
		{99.95, "ms", "100.0 ms"}, {1234.5, "ms", "1234 ms"}, {-0.25, "s", "-0.250 s"}, {0.000012345, "s", "0.00001 s"},
	} {
		if got := Number(c.v, c.unit); got != c.want {
			t.Errorf("Number(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	var s strings.Builder
	WriteHead(&s, "a", "b")
	WriteRow(&s, "1", "2")
	if got, want := s.String(), "| a | b |\n|---|---|\n| 1 | 2 |\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRegistry(t *testing.T) {
	if _, err := LookRegistry(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	r, err := StartRegistry(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + r.Host + "/v2/_catalog")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if resp, err := http.Get("http://" + r.Host + "/v2/"); err == nil {
		resp.Body.Close()
		t.Error("it still answers")
	}
	if err := r.Stop(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("stopped again: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartRegistry(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("started when it is too late: %v", err)
	}
	if _, err := StartRegistry(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("started in a directory that is not there: %v", err)
	}
}
