//go:build linux

package overlayfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// startLimit is how long fuse-overlayfs may take to answer for the first time.
const startLimit = 10 * time.Second

// mountFUSE mounts by ourselves, so that the mount is where it should be and says over
// what it lies, and has fuse-overlayfs serve it. The program stays until somebody
// unmounts.
func (m *Mount) mountFUSE(ctx context.Context, u *Upper, on *fusefs.Target, below int, lower string, o *Options) error {
	program, err := exec.LookPath(fusefs.FUSEOverlay)
	if err != nil {
		return hinted{errNoFUSE, hintGetFUSE}
	}
	at, device, err := on.StackFUSE(ctx, fusefs.FUSEOverlay, lower, &fusefs.Options{AllowOther: o.AllowOther, NoExec: o.NoExec})
	if err != nil {
		return err
	}
	m.at = at
	if err := m.serve(ctx, program, u, device, below); err != nil {
		m.Abandon()
		if gone := at.Unmount(context.WithoutCancel(ctx), true); gone != nil {
			return fmt.Errorf("%w; and %w", err, gone)
		}
		return err
	}
	return nil
}

// serve starts fuse-overlayfs and waits until it answers.
func (m *Mount) serve(ctx context.Context, program string, u *Upper, device *os.File, below int) error {
	defer device.Close()
	dup, err := unix.FcntlInt(uintptr(below), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		close(m.ended)
		return err
	}
	lower := os.NewFile(uintptr(dup), "lower")
	defer lower.Close()
	// In the child the files have the numbers 3, 4 and 5. noacl: the mount below has no ACLs
	// to ask for, and what it answers then is an error for users other than the owner.
	words := fmt.Sprintf("lowerdir=/proc/self/fd/4,upperdir=/proc/self/fd/5/%s,workdir=/proc/self/fd/5/%s,noacl", upperName, workName)
	if os.Geteuid() != 0 {
		// A file that is copied up becomes this user's, who can own no other: so all are.
		words += fmt.Sprintf(",squash_to_uid=%d,squash_to_gid=%d", os.Geteuid(), os.Getegid())
	}
	cmd := exec.Command(program, "-f", "-o", words, "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{device, lower, u.lock}
	cmd.Dir, cmd.Env = "/", []string{} // what we were given is none of its business
	// Ctrl-C is for who has started it, who unmounts, and the end of its terminal too. It
	// lives on when this process is killed: who goes on with the mount knows it again.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said := &lastLine{}
	cmd.Stderr = said
	// What it starts must not keep the pipe, and us, waiting.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		close(m.ended)
		return fmt.Errorf("%s: %w", fusefs.FUSEOverlay, err)
	}
	device.Close() // else the mount would not be dead when the program has ended
	if m.server, err = findProcess(cmd.Process.Pid, ""); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		close(m.ended)
		return err
	}
	go func() {
		defer close(m.ended)
		_ = cmd.Wait()
	}()
	answers := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		answers <- unix.Stat(m.at.Dir(), &st)
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case err = <-answers:
		if err == nil {
			return nil
		}
	case <-m.ended:
		err = fmt.Errorf("it ended: %s", cmd.ProcessState)
	case <-limit.C:
		err = fusefs.ErrNoAnswer
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if text := said.last(); text != "" {
		return fmt.Errorf("%s: %w: %s", fusefs.FUSEOverlay, err, printable.Line(text))
	}
	return fmt.Errorf("%s: %w", fusefs.FUSEOverlay, err)
}

// A lastLine keeps the end of what a program has written.
type lastLine struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 4096
	l.text = append(l.text, p...)
	l.text = l.text[max(0, len(l.text)-most):]
	return len(p), nil
}

// last returns the last line that says something.
func (l *lastLine) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.text)), "\n")
	last := lines[len(lines)-1]
	if strings.HasPrefix(last, "unknown argument ignored") {
		return "" // which it says of options of its own
	}
	return strings.TrimPrefix(last, fusefs.FUSEOverlay+": ")
}
