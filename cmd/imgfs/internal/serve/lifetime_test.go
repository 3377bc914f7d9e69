package serve

import (
	"context"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// TestWatchOver has commands that hang after a signal: they are left behind, and
// that is a failure unless a mount has been served to its end.
func TestWatchOver(t *testing.T) {
	const failure = 2 // as that of diff
	for _, served := range []bool{false, true} {
		life := NewLifetime()
		ctx, signal := context.WithCancel(t.Context())
		hang := make(chan struct{})
		defer close(hang)
		told := false
		code := life.WatchOver(ctx, func() int {
			if served {
				ended, ok := life.Serve()
				if !ok {
					t.Error("it may not serve")
				}
				signal()
				ended()
			}
			signal()
			<-hang
			return cli.ExitFailure
		}, func() int { return failure }, func() { told = true })
		if want := map[bool]int{false: failure, true: cli.ExitOK}[served]; code != want || told == served {
			t.Errorf("served %v: exit code %d, want %d; interrupted %v", served, code, want, told)
		}
	}
}
