package fuse

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

	"github.com/imgfs/imgfs/testdata/bench/peers"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// needs skips the test where a program is missing, or fails it where all must
// be there.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", p)
		}
		t.Skipf("%s is not installed", p)
	}
}

// tiny writes an image with some files.
func tiny(layout string) error {
	_, err := labimage.Write(layout, func(a *labimage.Archive) error {
		if err := a.Dir("dir"); err != nil {
			return err
		}
		for i := range 50 {
			if err := a.File(fmt.Sprintf("dir/file%d", i), strings.Repeat(fmt.Sprintln("line", i), 1+100*i)); err != nil {
				return err
			}
		}
		return a.File("empty", "")
	})
	return err
}

// smallBench returns a bench with small images, of an imgfs built for it. It
// leaves alone what the kernel has cached of other things.
func smallBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	needs(t, "go", "skopeo", "umoci", "find", "df", "mkfs.ext4")
	if _, err := peers.LookRegistry(); err != nil {
		needs(t, "docker-registry")
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
			runs: 1, source: tiny, loop: true, bigSize: 3 << 20, packedSize: 1 << 20, diskSize: 256 << 20, pages: 10, starts: 2, again: 1, patience: time.Millisecond, warm: true, asIs: true,
			also: []variant{{label: "again", environment: []string{"A=b"}}},
		},
	}
}

// left returns what a bench has left behind.
func left(t *testing.T, b *bench) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	left := mountsBelow(string(table), os.Getenv("TMPDIR"))
	names, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range commands {
		if text, err := os.ReadFile(name); err == nil && b.dir != "" && strings.Contains(string(text), b.dir+"/") {
			left = append(left, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range devices {
		if text, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(text), os.Getenv("TMPDIR")) {
			left = append(left, name+": "+string(text))
		}
	}
	return append(left, names...)
}

// TestSmoke runs all sections on small images. Peers that are not installed
// are left out.
func TestSmoke(t *testing.T) {
	b := smallBench(t)
	if err := b.measureAll(); err != nil {
		t.Fatal(err)
	}
	if left := left(t, b); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	var s strings.Builder
	if err := b.report.writeMarkdown(&s); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &s)
	for _, w := range wishes {
		if w.section == "start" {
			continue // the image has no program
		}
		r := b.report.row(titleOf(w.section), w.row)
		for _, s := range b.systems {
			if s.mine && b.report.Lacks[s.name] == "" && (r == nil || len(r.Seconds[s.name]) == 0) {
				t.Errorf("%s: %s is not measured for %s", w.section, w.row, s.name)
			}
		}
	}
}

func titleOf(section string) string {
	for _, s := range sections {
		if s.name == section {
			return s.title
		}
	}
	return ""
}

// TestWrongBytes: a system that shows something else than was unpacked ends
// the bench.
func TestWrongBytes(t *testing.T) {
	b := smallBench(t)
	b.only, b.also = "walk", nil
	b.work, b.loop = t.TempDir(), false
	if err := b.measureAll(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(b.work, "node", "tree", "dir", "file7")
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[3] ^= 1
	if err := os.WriteFile(name, content, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := b.measureAll(); !errors.Is(err, errWrong) {
		t.Errorf("got error %v, want %v", err, errWrong)
	}
	if left := left(t, b); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestInterrupted: what runs when the bench is interrupted is ended, and what
// is mounted is unmounted.
func TestInterrupted(t *testing.T) {
	b := smallBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.ctx, b.logf = ctx, func(string, ...any) {}
	done := make(chan error, 1)
	go func() { done <- b.measureAll() }()
	deadline := time.After(time.Minute)
	for mounted := false; !mounted; {
		select {
		case err := <-done:
			t.Fatalf("it ended before it was interrupted: %v", err)
		case <-deadline:
			t.Fatal("nothing is mounted")
		case <-time.After(time.Millisecond):
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
	if left := left(t, b); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
