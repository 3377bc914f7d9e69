package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/printable"
)

// Check reports what would keep [Mount] from mounting on a directory, as far
// as that can be told without mounting: an *[Error], or nil.
func Check(dir string, opts *Options) error {
	_, err := thisHost().check(dir, opts)
	if err == nil && opts != nil && opts.Passthrough == On && !isPrivileged() {
		err = fmt.Errorf("%w: %w", ErrPassthrough, errPrivilege)
	}
	return mountError("mount", dir, err)
}

// A host is what a mount depends on outside of the mountpoint.
type host struct {
	root     bool
	sysAdmin bool   // whether it may mount, as far as its user namespace goes
	device   string // /dev/fuse
	conf     string // fuse.conf of fusermount3
	lookPath func(file string) (string, error)
}

func thisHost() host {
	return host{
		root:     os.Geteuid() == 0,
		sysAdmin: hasSysAdmin(),
		device:   "/dev/fuse",
		conf:     "/etc/fuse.conf",
		lookPath: exec.LookPath,
	}
}

// A target is a directory that can be mounted on, and how.
type target struct {
	dir    string // absolute, without symlinks
	helper string // path of fusermount3, or "" to mount directly
	second string // path of fusermount3 for when that is not allowed, or ""
}

func (h host) check(dir string, opts *Options) (target, error) {
	var t target
	if opts == nil {
		opts = &Options{}
	}
	real, err := h.checkDir(dir)
	if err != nil {
		return t, err
	}
	t.dir = real
	if err := h.checkDevice(); err != nil {
		return t, err
	}
	if (h.root || h.sysAdmin) && !opts.useHelper {
		t.second, _ = h.helper()
		return t, nil
	}
	if t.helper, err = h.helper(); err != nil {
		return t, err
	}
	if h.root {
		return t, nil
	}
	return t, h.checkUser(real, opts)
}

// checkDir returns the resolved path of a directory on which nothing is
// mounted.
func (h host) checkDir(dir string) (string, error) {
	real, m, err := resolve(dir)
	if err != nil {
		return "", dirError(err)
	}
	if m != nil {
		return "", mountedError(dir, real, *m)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return "", dirError(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "", ErrNotDir
	}
	return real, nil
}

// mountedError says what is mounted on a directory, and how to get rid of it
// if it is one of our images or the remains of some other FUSE server.
func mountedError(dir, real string, m mountEntry) error {
	err := fmt.Errorf("%w: %s of type %s", ErrMounted, printable.Name(m.source), printable.Name(m.fsType))
	command := ""
	var st unix.Statfs_t
	// Our servers answer this always. One that is being killed can take the
	// request with it, which then is EIO.
	if dead := unix.Statfs(real, &st); isDead(dead) || dead != nil && m.fsType == fsType {
		err, command = ErrDead, "fusermount3 -u "
	}
	if m.fsType == fsType {
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
		return unix.Close(fd)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
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
func (h host) checkUser(dir string, opts *Options) error {
	if opts.Suid || opts.Dev {
		return ErrNeedsRoot
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return dirError(err)
	}
	if st.Mode&unix.S_ISVTX != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%w: it is sticky and not yours", ErrPermission)
	}
	if unix.Access(dir, unix.W_OK) != nil {
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
