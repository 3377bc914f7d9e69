//go:build linux

package overlayfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// A Mount is a mounted overlay. Its methods may be called by several goroutines at a time.
type Mount struct {
	at     *fusefs.Stacked
	kind   Kind
	server *process      // fuse-overlayfs; nil for the kernel's
	ended  chan struct{} // closed when server has ended
	done   chan struct{}
	stop   context.CancelFunc
}

// Check looks for reasons why Mount would not mount over the target, as far as they show
// without mounting. o may be nil. Errors are of type *[fusefs.Error].
func (u *Upper) Check(ctx context.Context, target string, o *Options) error {
	if o == nil {
		o = &Options{}
	}
	_, err := fusefs.Ask(ctx, func(context.Context) (struct{}, error) {
		if _, _, err := u.choose(o); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, u.outside(target)
	})
	return overlayError(u.name, err)
}

// outside refuses a target that holds the Upper, or lies in it.
func (u *Upper) outside(target string) error {
	path, err := filepath.EvalSymlinks(target)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	switch {
	case err != nil:
		return nil // which mounting says
	case isBelow(u.dir, path):
		return hinted{fmt.Errorf("it is in %s, and a mount there would hide it", printable.Name(target)), "name a directory outside of the mountpoint"}
	case isBelow(path, u.dir):
		return hinted{fmt.Errorf("%s, to be mounted on, is in it", printable.Name(target)), "name a directory outside of the mountpoint"}
	}
	return nil
}

// Mount mounts the overlay over the directory lower, on the directory target. o may be
// nil. Errors are of type *[fusefs.Error]; after one nothing is mounted. lower may be
// mounted by this process: it is then served while Mount goes on.
//
// The first mount gives the root of the overlay the owner, mode and attributes of lower.
func (u *Upper) Mount(ctx context.Context, lower, target string, o *Options) (*Mount, error) {
	if o == nil {
		o = &Options{}
	}
	m, err := u.mount(ctx, lower, target, o)
	if err != nil {
		return nil, overlayError(u.name, err)
	}
	u.made = nil // it is in use
	m.watch()
	return m, nil
}

// watch closes done when it is mounted no longer.
func (m *Mount) watch() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() {
		defer close(m.done)
		_ = m.at.Wait(ctx)
		m.stop()
	}()
}

func (u *Upper) mount(ctx context.Context, lower, target string, o *Options) (*Mount, error) {
	if err := u.Check(ctx, target, o); err != nil {
		return nil, err
	}
	kind, how, err := u.choose(o)
	if err != nil {
		return nil, err
	}
	on, err := fusefs.Check(ctx, target, &fusefs.Options{AllowOther: o.AllowOther && kind == Fuse})
	if err != nil {
		return nil, err
	}
	defer on.Close()
	below, err := unix.Open(lower, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the image below, %s: %w", printable.Name(lower), err)
	}
	defer unix.Close(below)
	if u.isNew() {
		if err := u.likeRoot(below); err != nil {
			return nil, err
		}
	}
	m := &Mount{kind: kind, done: make(chan struct{}), ended: make(chan struct{})}
	if kind == Kernel {
		close(m.ended)
		m.at, err = u.mountKernel(ctx, on, below, lower, how, o)
	} else {
		err = m.mountFUSE(ctx, u, on, below, lower, o)
	}
	if err != nil {
		return nil, err
	}
	if err := u.remember(how, m.at.Identity(), o); err != nil {
		return nil, errors.Join(err, m.at.Unmount(context.WithoutCancel(ctx), true))
	}
	return m, nil
}

// remember writes the notes of a mount.
func (u *Upper) remember(how namespace, mount string, o *Options) error {
	n := u.notes
	n.Notes, n.Mount, n.Boot = how, mount, bootID()
	if n.Manifest == "" {
		n.Image, n.Manifest = o.Image, o.Manifest
	}
	u.notes = n
	return n.write(u.lock)
}

// Dir returns the directory that the overlay is mounted on, absolute and without symlinks.
func (m *Mount) Dir() string { return m.at.Dir() }

// Kind returns how it is mounted: Kernel or Fuse.
func (m *Mount) Kind() Kind { return m.kind }

// Done returns a channel that is closed when the overlay is mounted no longer in the mount
// namespace of this process, whoever has unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Unmount unmounts the overlay, if that has not happened yet, when all that was written is
// on the disk; if lazy also while it is in use. If it is not lazy, nothing uses the lower
// directory any more when it returns. Errors are of type *[fusefs.Error]:
// [fusefs.ErrBusy] is one of them, and the overlay is then still mounted.
func (m *Mount) Unmount(ctx context.Context, lazy bool) error {
	if err := m.at.Unmount(ctx, lazy); err != nil {
		return err
	}
	if lazy {
		return nil
	}
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Abandon ends what serves an overlay of Fuse, for who goes on using it after a lazy
// unmount. It does nothing to one of the kernel, whose files of the lower directory fail
// when that is not served any more.
func (m *Mount) Abandon() {
	if m.server != nil {
		m.server.kill()
		<-m.ended
	}
}

// likeRoot gives upper, which is the root of the overlay, what the root below has.
func (u *Upper) likeRoot(below int) error {
	return copyRoot(fmt.Sprintf("/proc/self/fd/%d", below), u.link(upperName))
}

// isNew reports whether upper was made by Open, and nothing was mounted since.
func (u *Upper) isNew() bool {
	for _, path := range u.made {
		if path == filepath.Join(u.dir, upperName) {
			return true
		}
	}
	return false
}

// mountKernel mounts an overlay of the kernel.
func (u *Upper) mountKernel(ctx context.Context, on *fusefs.Target, below int, lower string, how namespace, o *Options) (*fusefs.Stacked, error) {
	k := kernelMount{lowerName: lower, options: o, words: map[string]string{"metacopy": "off", "index": "off"}}
	if how == user {
		k.flags = append(k.flags, "userxattr")
	} else {
		k.words["redirect_dir"] = "on"
	}
	k.lower = below
	for name, fd := range map[string]*int{upperName: &k.upper, workName: &k.work} {
		opened, err := unix.Openat(int(u.lock.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(opened)
		*fd = opened
	}
	var failed error
	at, err := on.Stack(ctx, func(dir string) error {
		failed = k.mount(dir)
		return failed
	})
	if failed != nil {
		return nil, failed // which is about the Upper as much as about the target
	}
	return at, err
}
