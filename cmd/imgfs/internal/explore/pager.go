package explore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs"
)

// page shows a file in the user's pager. The file goes there through a pipe, as far as
// the pager reads.
func page(ctx context.Context, n fs.Node) error {
	program := cmp.Or(os.Getenv("PAGER"), "less")
	cmd := exec.CommandContext(ctx, "sh", "-c", program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = leaveLimit / 2
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		r.Close()
		w.Close()
		return err
	}
	r.Close()
	reading, cancel := context.WithCancel(ctx)
	result := make(chan error, 1)
	go func() {
		err := copyTo(reading, w, n)
		w.Close()
		result <- err
	}()
	err = cmd.Wait()
	cancel()
	var failed error
	select {
	case failed = <-result:
	case <-time.After(leaveLimit / 2):
	}
	switch {
	case failed != nil && !errors.Is(failed, syscall.EPIPE) && !errors.Is(failed, context.Canceled):
		return failed
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("the pager %s: %w", program, err)
	}
	return nil
}

// copyTo writes a file.
func copyTo(ctx context.Context, w io.Writer, n fs.Node) error {
	buf := make([]byte, viewBlock)
	for off := int64(0); ; {
		k, err := n.ReadAt(ctx, buf, off)
		if _, err := w.Write(buf[:k]); err != nil {
			return err
		}
		off += int64(k)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if k == 0 {
			return nil
		}
	}
}
