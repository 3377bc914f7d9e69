//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"golang.org/x/sys/unix"
)

// TestWaitingForPipe: a pipe on the command line whose other end nobody opens, or nobody
// uses, is waited for until the command is interrupted.
func TestWaitingForPipe(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		return a.File("f", strings.Repeat("more than a pipe takes\n", 1<<15))
	}); err != nil {
		t.Fatal(err)
	}
	image, cache, n := "oci:"+layout, "--cache-dir="+t.TempDir(), 0
	succeed(t, "index", cache, image)
	for _, c := range []struct {
		args string // F is the pipe
	}{
		{"cp I f F"}, {"tar -o F I"}, {"grep -f F I f"}, {"sum -c F I"},
	} {
		for _, open := range []bool{false, true} {
			n++
			fifo := filepath.Join(dir, "fifo"+string(rune('a'+n)))
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			if open {
				// Both ends, for which nobody waits; nothing is read or written.
				f, err := os.OpenFile(fifo, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
			} else {
				// What waits in open(2) must not do so for ever.
				defer func() {
					if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
						time.Sleep(10 * time.Millisecond)
						f.Close()
					}
				}()
			}
			args := strings.Fields(strings.NewReplacer("I", image, "F", fifo).Replace(c.args))
			ctx, cancel := context.WithCancel(t.Context())
			var stdout, stderr bytes.Buffer
			ended := make(chan int, 1)
			go func() { ended <- run(ctx, append(args, "-q", cache), &stdout, &stderr) }()
			select {
			case code := <-ended:
				t.Errorf("%s, other end open %v: got exit code %d before the interrupt\n%s", c.args, open, code, stderr.String())
				cancel()
				continue
			case <-time.After(300 * time.Millisecond):
			}
			cancel()
			select {
			case code := <-ended:
				if code == 0 || stderr.String() != "imgfs: interrupted\n" {
					t.Errorf("%s, other end open %v: got exit code %d and\n%s", c.args, open, code, stderr.String())
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s, other end open %v: still runs", c.args, open)
			}
		}
	}
}
