package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/peers"
)

// smallBench returns a bench with a small image and a fast line, of an imgfs
// built for it.
func smallBench(t *testing.T) *bench {
	t.Helper()
	needs(t, "go", "skopeo", "find", "tar")
	if _, err := peers.LookRegistry(); err != nil {
		needs(t, "docker-registry")
	}
	if os.Geteuid() != 0 {
		needs(t, "fusermount3")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
		f.Close()
	} else if os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else {
		t.Skip(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	program := filepath.Join(t.TempDir(), "imgfs")
	if out, err := exec.Command("go", "build", "-o", program, "../../../../cmd/imgfs").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return &bench{
		ctx: t.Context(), imgfs: program, logf: t.Logf,
		settings: settings{
			runs: 1, delay: time.Millisecond, mbps: 1000, reads: 10, pause: 5 * time.Millisecond, images: 4, imageSize: 4 << 20, cacheSize: 12 << 20,
			size: imageSize{small: 500, library: 100 << 10, big: 3_000_000},
		},
	}
}

// left returns what a bench has left behind.
func (b *bench) left(t *testing.T) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	left := mountsBelow(string(table), b.dir)
	for _, pid := range b.servers(b.dir) {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	names, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(left, names...)
}

// TestSmoke runs all sections on a small image.
func TestSmoke(t *testing.T) {
	b := smallBench(t)
	if err := b.measureAll(); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	var s strings.Builder
	if err := (&report{Machine: figures.ThisMachine(), Parts: b.parts, Figures: b.figures}).writeMarkdown(&s); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &s)
	for _, part := range b.parts {
		if !strings.Contains(s.String(), part.Title+"\n") {
			t.Errorf("the report has no %q", part.Title)
		}
	}
	for _, f := range b.figures {
		// Times and memory depend on the machine.
		if f.Unit != "s" && f.Unit != "ms" && !strings.Contains(f.Name, "memory") && f.met() == "**no**" {
			t.Errorf("%q is not met", f.cells())
		}
	}
}

// TestInterrupted: what runs when the bench is interrupted is ended.
func TestInterrupted(t *testing.T) {
	b := smallBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.ctx, b.only = ctx, "cold"
	b.logf = func(string, ...any) {}
	done := make(chan error, 1)
	go func() { done <- b.measureAll() }()
	deadline := time.After(time.Minute)
	for mounted := false; !mounted; {
		select {
		case err := <-done:
			t.Fatalf("it ended before it was interrupted: %v", err)
		case <-deadline:
			t.Fatal("nothing is mounted")
		case <-time.After(5 * time.Millisecond):
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		mounted = len(mountsBelow(string(table), os.Getenv("TMPDIR"))) > 0
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if left := b.left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
