//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestInterruptedDiff ends a diff of texts that the user allows to be large, in the middle
// of the comparison of their lines.
func TestInterruptedDiff(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	var images [2]string
	for i := range images {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		var text bytes.Buffer
		for range 10_000_000 {
			text.WriteString([]string{"a\n", "b\n", "c\n", "d\n"}[random.IntN(4)])
		}
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		err := w.WriteHeader(&tar.Header{Name: "text", Mode: 0o644, Size: int64(text.Len())})
		if _, full := w.Write(text.Bytes()); errors.Join(err, full, w.Close()) != nil {
			t.Fatal(err, full)
		}
		images[i] = layoutOf(t, sourcetest.Layer{Content: layer.Bytes()})
		s.ok("index", images[i])
	}
	endsSoon(t, s, syscall.SIGINT, "diff", "-u", "--max-text", "1GiB", images[0], images[1])
	r := s.run("diff", "-u", images[0], images[1])
	if want := "Files a/text and b/text differ (20.0 MB: --max-text)\n"; r.code != exitDifferent || !strings.HasSuffix(r.stdout, want) {
		t.Errorf("without the flag: exit code %d, got %.300q, want %q", r.code, r.stdout, want)
	}
}
