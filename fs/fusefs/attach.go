//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRead is the largest read the kernel may send, in bytes.
const maxRead = 1 << 20

// An attached is what is mounted, and how it was: that is how it is unmounted.
type attached struct {
	entry  mountEntry
	helper string // path of fusermount3, or "" if it was mounted directly
	unique uint64 // see uniqueID
}

// newAttached returns a mount that is in the mount table.
func newAttached(ctx context.Context, m mountEntry, helper string) attached {
	return attached{m, helper, m.uniqueID(ctx)}
}

// attach mounts on the place that was checked, and returns a descriptor of the
// FUSE device that serves the mount. go-fuse could do it too, but it lets
// fusermount3 write its complaints to our standard error instead of into an
// error. When attach fails, nothing is mounted.
func (t *Target) attach(ctx context.Context, opts *Options) (fd int, a attached, err error) {
	if !opts.Locked {
		unlock, err := t.at.lock(ctx)
		if err != nil {
			return -1, a, err
		}
		defer unlock()
	}
	before, err := mountTable()
	if err != nil {
		return -1, a, err
	}
	if err := t.at.same(ctx); err != nil {
		return -1, a, err
	}
	a.helper = t.helper
	if t.helper != "" {
		fd, err = t.attachHelper(ctx, t.helper, opts)
	} else if fd, err = t.attachDirect(opts); errors.Is(err, errRefused) && t.second != "" {
		var second error
		if fd, second = t.attachHelper(ctx, t.second, opts); second == nil {
			err, a.helper = nil, t.second
		}
	}
	if err == nil {
		if a.entry, err = t.entry(); err == nil {
			return fd, newAttached(ctx, a.entry, a.helper), nil
		}
		unix.Close(fd) // which leaves a mount that is dead
	}
	return -1, a, errors.Join(err, a.undo(ctx, before, opts))
}

// entry returns the mount that was just made, if it is where it should be. A
// path that was changed after it was looked at, by whomever, has led it
// somewhere else.
func (t *Target) entry() (mountEntry, error) {
	table, err := mountTable()
	if err != nil {
		return mountEntry{}, err
	}
	for _, m := range table {
		if m.parent == t.at.mount && m.dir == t.at.path && m.fsType == fsType {
			return m, nil
		}
	}
	return mountEntry{}, ErrReplaced
}

// undo takes away what attaching that failed has left. Of the mounts that were
// not there before that is the one that nobody serves.
func (a attached) undo(ctx context.Context, before []mountEntry, opts *Options) error {
	after, err := mountTable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var errs []error
	for _, m := range after {
		if !isNew(before, m) || m.fsType != fsType || m.source != opts.name() || !m.ours() {
			continue
		}
		if isDead(statfs(ctx, m.dir)) {
			errs = append(errs, newAttached(ctx, m, a.helper).unmount(ctx, true))
		}
	}
	return errors.Join(errs...)
}

// attachDirect uses mount(2), with the options that fusermount3 would give.
func (t *Target) attachDirect(opts *Options) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	flags := uintptr(unix.MS_RDONLY)
	if !opts.Suid {
		flags |= unix.MS_NOSUID
	}
	if !opts.Dev {
		flags |= unix.MS_NODEV
	}
	if opts.NoExec {
		flags |= unix.MS_NOEXEC
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRead)
	if opts.AllowOther {
		data += ",allow_other"
	}
	if err := unix.Mount(opts.name(), t.at.link(), fsType, flags, data); err != nil {
		unix.Close(fd)
		switch {
		case isRefusal(err):
			err = whyRefused(err)
		case errors.Is(err, unix.ENOENT):
			err = ErrReplaced // it was removed
		}
		return -1, err
	}
	return fd, nil
}

// attachHelper lets fusermount3 mount: it sends the descriptor over a socket
// whose number it finds in its environment. It is started in the place and told
// to mount there.
func (t *Target) attachHelper(ctx context.Context, helper string, opts *Options) (int, error) {
	words := []string{"ro", "default_permissions", "subtype=" + fsSubtype,
		"fsname=" + escapeOption(opts.name()), fmt.Sprintf("max_read=%d", maxRead)}
	for word, on := range map[string]bool{"allow_other": opts.AllowOther, "suid": opts.Suid, "dev": opts.Dev, "noexec": opts.NoExec} {
		if on {
			words = append(words, word)
		}
	}
	return t.askHelper(ctx, helper, strings.Join(words, ","), opts)
}

// askHelper has fusermount3 mount with options, and returns the descriptor of the FUSE
// device that it sends.
func (t *Target) askHelper(ctx context.Context, helper, options string, opts *Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3's end")
	defer unix.Close(pair[0])
	defer theirs.Close() // twice does no harm
	said, err := runHelper(ctx, helper, t.at, theirs, "-o", options, "--", ".")
	if err != nil {
		if taken := t.at.same(ctx); errors.Is(taken, ErrMounted) && ctx.Err() == nil && !errors.Is(err, ErrNoAnswer) {
			return -1, taken // which the helper does not say
		}
		return -1, err
	}
	if said != "" {
		opts.logf("%s", said)
	}
	theirs.Close() // so that receiving ends if nothing was sent
	fd, err := receiveFD(pair[0])
	if err != nil {
		return -1, fmt.Errorf("%s sent no descriptor: %w", filepath.Base(helper), err)
	}
	return fd, nil
}

// escapeOption protects a value within mount options from fusermount3's
// parser.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// runHelper runs fusermount3 in a directory and returns what it wrote to
// standard error, which is in the error if it failed. It is killed if it takes
// longer than patience, or ctx ends, and has then ended if that can be. socket, if not nil, is for the descriptor
// that it sends.
func runHelper(ctx context.Context, helper string, in *place, socket *os.File, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(limited, helper, args...)
	cmd.Dir = in.link()
	cmd.Env = []string{}
	if socket != nil {
		cmd.Env = []string{"_FUSE_COMMFD=3"}
		cmd.ExtraFiles = []*os.File{socket}
	}
	// In a process group of its own Ctrl-C does not end it half way, and what it
	// starts is killed with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	// Its children can hold the pipe, and it may be past killing.
	cmd.WaitDelay = 100 * time.Millisecond
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return "", err
	}
	type result struct {
		said string
		err  error
	}
	results := make(chan result, 1)
	go func() {
		said, err := outcome(cmd, &stderr)
		results <- result{said, err}
	}()
	r := result{err: ErrNoAnswer}
	select {
	case r = <-results:
	case <-limited.Done():
		// It may be in the middle of mounting: what it has done can be told when
		// it has ended. If it is past killing it is left behind.
		_ = cmd.Cancel()
		select {
		case r = <-results:
		case <-time.After(dying):
		}
	}
	switch {
	case r.err == nil:
		return r.said, nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case limited.Err() != nil:
		return "", fmt.Errorf("%s: %w", filepath.Base(helper), ErrNoAnswer)
	}
	return "", r.err
}

// dying is how long a fusermount3 that was killed may take to end.
const dying = 300 * time.Millisecond

// outcome waits for a command that says on standard error why it fails.
func outcome(cmd *exec.Cmd, stderr *bytes.Buffer) (string, error) {
	err := cmd.Wait()
	said := strings.TrimSpace(stderr.String())
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return said, nil
	}
	if said == "" {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	for _, words := range []string{"no write access", "not owned by user", "Permission denied", "Operation not permitted"} {
		if strings.Contains(said, words) {
			return "", fmt.Errorf("%w: %s", ErrPermission, said)
		}
	}
	return "", errors.New(said)
}

// receiveFD reads a descriptor that the other end of a socket has sent.
func receiveFD(socket int) (int, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no descriptor in the message")
}
