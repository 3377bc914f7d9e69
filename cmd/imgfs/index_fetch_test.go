package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// TestLease has something arrive for a while, and then nothing.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		l, stop := whileAlive(t.Context(), time.Minute)
		defer stop()
		for range 3 {
			time.Sleep(50 * time.Second)
			l.prolong()
		}
		<-l.ctx.Done()
		if took := time.Since(begun); took != 210*time.Second {
			t.Errorf("it ended after %v, want a minute after the last prolonging", took)
		}
	})
}

func TestEndless(t *testing.T) {
	cause := errors.New("connection refused")
	if got := endless(cause); got != cause {
		t.Errorf("an error of the source: got %v", got)
	}
	got := endless(fmt.Errorf("%w; before that: %w", context.Canceled, cause))
	if errors.Is(got, context.Canceled) || cli.Describe(got) != "nothing arrived for 2m0s; before that: connection refused" {
		t.Errorf("the end of a lease: got %q", cli.Describe(got))
	}
	if got := cli.Describe(endless(context.Canceled)); strings.Contains(got, "interrupted") {
		t.Errorf("the end of a lease without an error: got %q", got)
	}
}
