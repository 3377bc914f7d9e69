//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Stacked is a mount of another file system that lies over an image, such as
// overlayfs. It is known by its id in the mount table, as an image's mount is.
// It is safe for concurrent use.
type Stacked struct{ at attached }

// Stack has another file system be mounted on the directory that was checked: mount
// gets a path that leads to the directory in this process, whatever has its name by
// then. When Stack fails, nothing is mounted. Errors are those of [Target.Mount].
func (t *Target) Stack(ctx context.Context, mount func(dir string) error) (*Stacked, error) {
	s, err := t.stack(ctx, func() error { return mount(t.at.link()) }, "")
	return s, mountError("mount", t.name, err)
}

// StackFUSE mounts a file system of FUSE that another program serves, on the directory
// that was checked, and returns the descriptor that the program has to be given, which
// the caller closes. kind is what comes behind "fuse." in the type of the mount, source
// is shown as its device.
func (t *Target) StackFUSE(ctx context.Context, kind, source string, opts *Options) (s *Stacked, device *os.File, err error) {
	fd := -1
	helper := t.helper
	direct := func() (err error) {
		fd, err = t.stackDirect(kind, source, opts)
		return err
	}
	if helper != "" {
		direct = func() (err error) {
			fd, err = t.stackHelper(ctx, kind, source, opts)
			return err
		}
	}
	s, err = t.stack(ctx, direct, helper)
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, nil, mountError("mount", t.name, err)
	}
	return s, os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

func (t *Target) stack(ctx context.Context, mount func() error, helper string) (*Stacked, error) {
	before, err := mountTable()
	if err != nil {
		return nil, err
	}
	if err := t.at.same(ctx); err != nil {
		return nil, err
	}
	if err := mount(); err != nil {
		return nil, err
	}
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	for _, m := range table {
		if isNew(before, m) && m.parent == t.at.mount && m.dir == t.at.path {
			return &Stacked{newAttached(ctx, m, helper)}, nil
		}
	}
	// The directory was moved meanwhile, and what was mounted is where it is now.
	now, err := t.at.now()
	for _, m := range table {
		if err == nil && isNew(before, m) && m.dir == now && m.ours() {
			return nil, errors.Join(ErrReplaced, newAttached(ctx, m, helper).unmount(context.WithoutCancel(ctx), true))
		}
	}
	return nil, ErrReplaced
}

func (t *Target) stackDirect(kind, source string, opts *Options) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if opts.NoExec {
		flags |= unix.MS_NOEXEC
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid())
	if opts.AllowOther {
		data += ",allow_other"
	}
	if err := unix.Mount(source, t.at.link(), "fuse."+kind, flags, data); err != nil {
		unix.Close(fd)
		if isRefusal(err) {
			err = whyRefused(err)
		}
		return -1, err
	}
	return fd, nil
}

func (t *Target) stackHelper(ctx context.Context, kind, source string, opts *Options) (int, error) {
	words := []string{"rw", "nosuid", "nodev", "default_permissions", "subtype=" + kind, "fsname=" + escapeOption(source)}
	if opts.AllowOther {
		words = append(words, "allow_other")
	}
	if opts.NoExec {
		words = append(words, "noexec")
	}
	return t.askHelper(ctx, t.helper, strings.Join(words, ","), opts)
}

// Dir returns the directory that the file system was mounted on.
func (s *Stacked) Dir() string { return s.at.entry.dir }

// Identity returns what it is known by while it is mounted: see [StackedOn].
func (s *Stacked) Identity() string { return s.at.entry.identity() }

// A StackedNote says what a mount made by [Target.Stack] or [Target.StackFUSE] is, so that
// another process knows it again: see [FindStacked].
type StackedNote struct {
	ID     string `json:"id"` // in the mount table
	Device string `json:"device"`
	Type   string `json:"type"`
	Source string `json:"source"`
	Dir    string `json:"dir"`
	Helper string `json:"helper,omitempty"` // path of the program that mounted it and unmounts it
	Unique uint64 `json:"unique,omitempty"` // a number that no other mount ever gets; 0: not known
}

// Note returns what FindStacked needs.
func (s *Stacked) Note() StackedNote {
	m := s.at.entry
	return StackedNote{ID: m.id, Device: m.device, Type: m.fsType, Source: m.source, Dir: m.dir, Helper: s.at.helper, Unique: s.at.unique}
}

// FindStacked returns a mount that another process has made. If it is gone by now, or
// another one has its number, Mounted is false and Wait returns at once.
func FindStacked(n StackedNote) *Stacked {
	entry := mountEntry{id: n.ID, device: n.Device, fsType: n.Type, source: n.Source, dir: n.Dir}
	if table, err := mountTable(); err == nil {
		if m, ok := withID(table, n.ID); ok && m.identity() == entry.identity() {
			entry = m
		}
	}
	return &Stacked{attached{entry, n.Helper, n.Unique}}
}

// Unmount unmounts it, if that has not happened yet; if it is lazy also while it is in
// use. Errors are of type *[Error]: ErrBusy names who uses it.
func (s *Stacked) Unmount(ctx context.Context, lazy bool) error {
	if m, there := s.at.find(); there && !lazy {
		if _, err := syncView(ctx, m.dir, ""); err != nil {
			return mountError("unmount", m.dir, err)
		}
	}
	return mountError("unmount", s.at.entry.dir, s.at.unmount(ctx, lazy))
}

// Mounted reports whether it is still mounted in the mount namespace of this process.
func (s *Stacked) Mounted() bool {
	_, there := s.at.find()
	return there
}

// Wait returns when it is mounted no longer, or ctx has ended.
func (s *Stacked) Wait(ctx context.Context) error {
	table, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(table)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(ends[0])
	stop := context.AfterFunc(ctx, func() { unix.Close(ends[1]) })
	defer func() {
		if stop() {
			unix.Close(ends[1])
		}
	}()
	for s.Mounted() {
		fds := []unix.PollFd{{Fd: int32(ends[0])}, {Fd: int32(table), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// Types of mounts that lie over an image, and take what is written.
const (
	overlayType     = "overlay"
	fuseOverlayType = "fuse." + FUSEOverlay
)

// overlayOf returns the writable view that imgfs mount --overlay has made of an image: by
// its device it is told from one that somebody has mounted over an image by hand. That
// of FUSE says only by its device over what it lies, which each user can choose.
func overlayOf(table []mountEntry, image mountEntry) (mountEntry, bool) {
	for _, m := range slices.Backward(table) {
		switch {
		case m.fsType == overlayType && m.source == image.source && (m.lower == image.dir || unquoteLower(m.lower) == image.dir):
			return m, true
		case m.fsType == fuseOverlayType && m.source == image.dir && (m.owner == image.owner || m.owner == "0"):
			return m, true
		}
	}
	return mountEntry{}, false
}

// imageBelow returns the image that a writable view shows.
func imageBelow(table []mountEntry, view mountEntry) (mountEntry, bool) {
	if view.fsType != overlayType && view.fsType != fuseOverlayType {
		return mountEntry{}, false
	}
	for _, m := range slices.Backward(table) {
		if m.fsType != fsType {
			continue
		}
		if over, ok := overlayOf(table, m); ok && over.device == view.device {
			return m, true
		}
	}
	return mountEntry{}, false
}

// lowerDir returns the lower directory that the options of an overlayfs name; "" if it
// has several.
func lowerDir(options string) (dir string) {
	for option := range strings.SplitSeq(options, ",") {
		// The kernel writes a comma or colon in a name as three octal digits.
		name, value, _ := strings.Cut(option, "=")
		switch {
		case name != "lowerdir" && name != "lowerdir+":
		case dir != "":
			return ""
		default:
			dir = unescape(value)
		}
	}
	return dir
}

// unquoteLower undoes the quoting of lowerdir=, which old kernels show as it was given.
func unquoteLower(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return filepath.Clean(b.String())
}

// StackedOn returns where a mount is that was made by [Target.Stack], by its identity; ""
// if it is no longer there. Numbers of mounts and devices that are gone are given to new
// ones at once, so its directory counts, too.
func StackedOn(identity string) string {
	table, err := mountTable()
	if err != nil {
		return ""
	}
	for _, m := range table {
		if m.identity() == identity && m.fsType != fsType {
			return m.dir
		}
	}
	return ""
}

func (m *mountEntry) identity() string { return m.id + " " + m.device + " " + m.fsType + " " + m.dir }

// unmountBoth unmounts a writable view, and then the image below it.
func unmountBoth(ctx context.Context, view, image mountEntry, lazy bool) error {
	if !lazy {
		done, err := syncView(ctx, view.dir, image.dir)
		if err != nil {
			return err
		}
		lazy = !done // what this process has open there keeps both busy
	}
	if err := take(ctx, view, lazy); err != nil {
		return err
	}
	// Its server takes it away as well, lazily, when the view is gone, and others can only
	// have looked into it: it would be left where nobody looks.
	err := take(ctx, image, lazy)
	for end := time.Now().Add(patience); errors.Is(err, ErrBusy) && time.Now().Before(end) && ctx.Err() == nil; {
		err = take(ctx, image, lazy)
	}
	if errors.Is(err, ErrBusy) {
		err = take(ctx, image, true)
	}
	return err
}

// syncView writes what is not on the disk yet of what was written to a view. An unmount
// would do so, but nothing could end the wait for it. While the image, if it is named, does
// not answer, the program of an overlay of FUSE may not either: then it is left undone.
func syncView(ctx context.Context, dir, image string) (done bool, err error) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			_ = unix.Syncfs(fd) // an error is for those who call fsync
			unix.Close(fd)
		}
	}()
	for pause := patience / 4; ; pause = patience {
		select {
		case <-written:
			return true, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(pause):
			if image != "" && statfs(ctx, image) != nil {
				return false, nil
			}
		}
	}
}
