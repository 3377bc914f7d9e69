package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// claimer claims a blob, says so and waits to be killed.
func claimer(dir string) {
	c, err := Open(dir, Options{})
	if err == nil {
		_, err = c.Claim(context.Background(), digest.FromString("blob"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("claimed")
	io.Copy(io.Discard, os.Stdin)
}

func TestClaim(t *testing.T) {
	d := digest.FromString("blob")
	dir := t.TempDir()
	caches := []*Dir{openAt(t, dir), openAt(t, dir)}
	var inside, entered atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		c := caches[i%2]
		wg.Go(func() {
			for {
				release, err := c.Claim(ctx, d)
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
				if inside.Add(1) > 1 {
					t.Error("two have the claim")
				}
				entered.Add(1)
				time.Sleep(100 * time.Microsecond) // for another to come in, wrongly
				inside.Add(-1)
				release()
				release()
			}
		})
	}
	// What looks for the claims of the dead takes none of the living.
	wg.Go(func() {
		for ctx.Err() == nil {
			sweepFile(caches[0].Files(), caches[0].Name(Claims, d))
		}
	})
	wg.Wait()
	if entered.Load() < 10 {
		t.Errorf("claimed %d times", entered.Load())
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, Claims, "sha256")); len(entries) > 0 {
		t.Errorf("%d claims left", len(entries))
	}
}

func TestClaimCancelled(t *testing.T) {
	d := digest.FromString("blob")
	c := openAt(t, t.TempDir())
	release, err := c.Claim(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Claim(t.Context(), digest.FromString("another"))
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := c.Claim(ctx, d)
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("Claim() = %v", err)
	}
	release()
	if release, err = c.Claim(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := c.Claim(t.Context(), "sha256:no"); err == nil {
		t.Error("claimed what is no digest")
	}
}

func TestClaimOfKilled(t *testing.T) {
	d := digest.FromString("blob")
	dir := t.TempDir()
	c := openAt(t, dir)
	cmd := child(t, "claim", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8)
	if _, err := io.ReadFull(stdout, p); err != nil || string(p) != "claimed\n" {
		t.Fatalf("process says %q, %v", p, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Claim(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Claim() = %v while another process has it", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	release, err := c.Claim(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// Where the disk fails there are no claims.
func TestClaimWithoutDisk(t *testing.T) {
	dir := t.TempDir()
	c := openAt(t, dir)
	if err := os.WriteFile(filepath.Join(dir, Claims), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		release, err := c.Claim(t.Context(), digest.FromString("blob"))
		if err != nil {
			t.Fatal(err)
		}
		defer release()
	}
}
