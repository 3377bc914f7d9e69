//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/printable"
)

// A Target is a directory that was found fit to be mounted on. It is held open,
// so that it is the directory that was looked at that is mounted on, whatever
// has its name by then.
type Target struct {
	at     *place
	name   string // as the caller gave it
	helper string // path of fusermount3, or "" to mount directly
	second string // path of fusermount3 for when that is not allowed, or ""
}

// Check looks for reasons why [Target.Mount] would not mount on a directory, as far
// as they show without mounting. Errors are of type *[Error]. opts may be nil. The
// caller closes the Target.
//
// Check waits for two seconds at most for a file system that does not answer.
func Check(ctx context.Context, dir string, opts *Options) (*Target, error) {
	if opts == nil {
		opts = &Options{}
	}
	t, err := thisHost().check(ctx, dir, opts)
	if err == nil && opts.Passthrough == On && !isPrivileged() {
		t.Close()
		err = fmt.Errorf("%w: %w", ErrPassthrough, errPrivilege)
	}
	if err != nil {
		return nil, mountError("mount", dir, err)
	}
	return t, nil
}

// Dir returns the absolute path of the directory, without symlinks.
func (t *Target) Dir() string { return t.at.path }

// Close gives up the directory. A mount that was made on it stays.
func (t *Target) Close() { t.at.close() }

// A host is what a mount depends on outside of the mountpoint.
type host struct {
	root     bool
	sysAdmin bool   // whether it may mount, as far as its user namespace goes
	device   string // /dev/fuse
	conf     string // fuse.conf of fusermount3
	lookPath func(file string) (string, error)
	number   uint64 // of the device; 0: any file is one

	// These look for reasons why mounting here, or a helper, would fail. Both may be
	// nil.
	mayMount func(ctx context.Context, at *place) error
	mayHelp  func(helper string) error
}

// fuseDevice is the number of the FUSE device.
var fuseDevice = unix.Mkdev(10, 229)

func thisHost() host {
	return host{
		root:     os.Geteuid() == 0,
		sysAdmin: HasSysAdmin(),
		device:   "/dev/fuse",
		conf:     "/etc/fuse.conf",
		lookPath: exec.LookPath,
		number:   fuseDevice,
		mayMount: mayMount,
		mayHelp:  mayHelp,
	}
}

// check returns a directory that can be mounted on, and how.
func (h host) check(ctx context.Context, dir string, opts *Options) (*Target, error) {
	at, err := openPlace(ctx, dir, 0)
	if err != nil {
		return nil, dirError(err)
	}
	t := &Target{at: at, name: dir}
	if err := h.checkPlace(ctx, t, opts); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// checkPlace finds out how to mount on the directory of t.
func (h host) checkPlace(ctx context.Context, t *Target, opts *Options) error {
	st, err := checkDir(ctx, t)
	if err != nil {
		return err
	}
	if err := h.checkDevice(); err != nil {
		return err
	}
	if (h.root || h.sysAdmin) && !opts.useHelper {
		return h.checkDirect(ctx, t)
	}
	if t.helper, err = h.helper(); err != nil || h.root {
		return err
	}
	if err := h.checkUser(ctx, t.at, st, opts); err != nil || h.mayHelp == nil {
		return err
	}
	return h.mayHelp(t.helper)
}

// checkDirect finds out whether this process can mount by itself. If it cannot, a
// helper may.
func (h host) checkDirect(ctx context.Context, t *Target) error {
	t.second, _ = h.helper()
	if h.mayMount == nil {
		return nil
	}
	err := h.mayMount(ctx, t.at)
	if errors.Is(err, ErrCapability) || errors.Is(err, ErrModule) {
		// Programs have rights of their own, but no program has more than its
		// namespace and its filter allow.
		if t.second != "" && h.mayHelp != nil && h.mayHelp(t.second) == nil {
			return nil
		}
	}
	return err
}

// errProc: /proc/self is the process that serves, which would ask itself for what it needs.
var errProc = errors.New("directories of processes come and go")

// checkDir returns what the directory of t is like, on which nothing may be
// mounted.
func checkDir(ctx context.Context, t *Target) (*unix.Stat_t, error) {
	m, err := t.at.mountAt()
	if err != nil {
		return nil, err
	}
	if m != nil && !m.trigger {
		return nil, mountedError(ctx, t.name, *m)
	}
	st, err := Ask(ctx, func(context.Context) (*unix.Stat_t, error) {
		var on unix.Statfs_t
		if err := unix.Fstatfs(t.at.fd, &on); err == nil && on.Type == unix.PROC_SUPER_MAGIC {
			return nil, errProc
		}
		st := &unix.Stat_t{}
		return st, unix.Fstat(t.at.fd, st)
	})
	switch {
	case errors.Is(err, errProc):
		return nil, hinted{err, "choose another directory"}
	case err != nil:
		return nil, dirError(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, ErrNotDir
	}
	return st, nil
}

// mountedError says what is mounted on a directory, and how to get rid of it
// if it is one of our images or the remains of some other FUSE server.
func mountedError(ctx context.Context, dir string, m mountEntry) error {
	err := fmt.Errorf("%w: %s of type %s", ErrMounted, printable.Name(m.source), printable.Name(m.fsType))
	if !m.ours() {
		return hinted{fmt.Errorf("%w, mounted by %s", err, m.ownerName()), "choose another directory"}
	}
	command, ours := "", m.fsType == fsType
	if table, err := mountTable(); err == nil && !ours {
		if image, ok := imageBelow(table, m); ok {
			m, ours = image, true // which answers for its view
		}
	}
	// Our servers answer this always. One that is being killed can take the
	// request with it, which then is EIO.
	switch dead := statfs(ctx, m.dir); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(dead, ErrNoAnswer):
		err = fmt.Errorf("%w: %w", err, dead)
		if ours {
			return hinted{err, "imgfs umount -l " + printable.Word(dir)}
		}
	case isDead(dead), dead != nil && ours:
		err, command = fmt.Errorf("%w: %s of type %s", ErrDead, printable.Name(m.source), printable.Name(m.fsType)), "fusermount3 -u "
	}
	if ours {
		command = "imgfs umount "
	}
	if command == "" {
		return hinted{err, "choose another directory"}
	}
	return hinted{err, command + printable.Word(dir)}
}

// isDead reports whether an error is that of a mount whose server is gone, or
// about to be.
func isDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

func dirError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNoDir
	case errors.Is(err, unix.ENOTDIR):
		return ErrNotDir
	case isDead(err):
		return ErrDead
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}

// checkDevice opens the FUSE device, which loads the kernel's module.
func (h host) checkDevice() error {
	fd, err := unix.Open(h.device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		unix.Close(fd)
		if err == nil && h.number != 0 && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != h.number) {
			return fmt.Errorf("%w: what is there is not the FUSE device", ErrDevice)
		}
		return err
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: /dev/fuse is there, and the module fuse is not loaded", ErrNoModule)
	case errors.Is(err, unix.ENOENT):
		return ErrNoDevice
	}
	return fmt.Errorf("%w: %w", ErrDevice, err)
}

// helper finds fusermount3, or the fusermount of FUSE 2, also where the PATH
// is that of a service.
func (h host) helper() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		for _, dir := range []string{"", "/usr/bin/", "/bin/"} {
			if path, err := h.lookPath(dir + name); err == nil {
				return path, nil
			}
		}
	}
	return "", ErrNoHelper
}

// checkUser holds the rules that fusermount3 has for ordinary users.
func (h host) checkUser(ctx context.Context, at *place, st *unix.Stat_t, opts *Options) error {
	if opts.Suid || opts.Dev {
		return ErrNeedsRoot
	}
	if st.Mode&unix.S_ISVTX != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%w: it is sticky and not yours", ErrPermission)
	}
	err := askErr(ctx, func() error { return unix.Access(at.link(), unix.W_OK) })
	switch {
	case errors.Is(err, ErrNoAnswer), ctx.Err() != nil:
		return err
	case err != nil:
		return fmt.Errorf("%w: it is not writable", ErrPermission)
	}
	if opts.AllowOther && !h.allowsOther() {
		return ErrAllowOther
	}
	return nil
}

// allowsOther reports whether ordinary users may use allow_other. Where only
// fusermount3 can read the file, it will say so itself.
func (h host) allowsOther() bool {
	text, err := os.ReadFile(h.conf)
	if errors.Is(err, os.ErrPermission) {
		return true
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}
