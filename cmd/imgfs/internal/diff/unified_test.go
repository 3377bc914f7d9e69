package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

// TestInterrupted: who interrupts a comparison of many lines does not wait for its end.
func TestInterrupted(t *testing.T) {
	const n = 400_000
	var lines, moved bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, "%x\n", i)
		fmt.Fprintf(&moved, "%x\n", i*7919%n) // a prime: each line once
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if patch, err := compareLines(ctx, "a", lines.Bytes(), "b", moved.Bytes()); !errors.Is(err, context.Canceled) {
		t.Errorf("got a patch of %d bytes, %v", len(patch), err)
	}
	if patch, err := compareLines(t.Context(), "a", []byte("x\n"), "b", []byte("y\n")); err != nil || string(patch) != "diff a b\n--- a\n+++ b\n@@ -1,1 +1,1 @@\n-x\n+y\n" {
		t.Errorf("got %q, %v", patch, err)
	}
}
