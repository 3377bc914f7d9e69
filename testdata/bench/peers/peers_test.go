package peers

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
