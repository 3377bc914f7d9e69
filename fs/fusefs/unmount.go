package fusefs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// passing is how long a mount may be in use before Unmount says so. A process
// that was just forked holds what its parent had open until it executes its
// program, and one that was killed until it has ended.
const passing = 500 * time.Millisecond

// maxHolders is how many of those who keep a mount busy an error names.
const maxHolders = 5

// Unmount unmounts the image that is mounted on a directory, whichever process
// serves it, dead ones as well. Errors are of type *[Error]: ErrNotMounted for
// everything that is not an imgfs mount, ErrBusy with the processes and mounts
// that use it, as far as this user can see them.
func Unmount(dir string) error {
	return mountError("unmount", dir, unmountDir(dir, false))
}

// UnmountLazy is like Unmount, but takes the image out of the directory tree
// even if it is in use. It is served on to those who use it.
func UnmountLazy(dir string) error {
	return mountError("unmount", dir, unmountDir(dir, true))
}

func unmountDir(dir string, lazy bool) error {
	real, m, err := resolve(dir)
	if err != nil {
		return dirError(err)
	}
	if m == nil {
		return ErrNotMounted
	}
	if m.fsType != fsType {
		return fmt.Errorf("%w: %s of type %s", ErrNotMounted, m.source, m.fsType)
	}
	h := thisHost()
	t := target{dir: real}
	direct := h.root || h.sysAdmin
	if direct {
		if err = unmount(t, lazy); !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	helper, missing := h.helper()
	if missing != nil {
		return cmp.Or(err, missing)
	}
	t.helper = helper
	return unmount(t, lazy)
}

func unmount(t target, lazy bool) error {
	if lazy {
		return detach(t)
	}
	err := unmountNow(t)
	for end := time.Now().Add(passing); errors.Is(err, ErrBusy) && time.Now().Before(end); {
		time.Sleep(passing / 50)
		err = unmountNow(t)
	}
	if !errors.Is(err, ErrBusy) {
		return err
	}
	if who := holders(t.dir); len(who) > 0 {
		return fmt.Errorf("%w by %s", err, strings.Join(who, ", "))
	}
	return err
}

func unmountNow(t target) error {
	if t.helper == "" {
		err := unix.Unmount(t.dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			return ErrBusy
		}
		return err
	}
	_, err := runHelper(exec.Command(t.helper, "-u", "--", t.dir))
	// fusermount3 has no translations.
	if err != nil && strings.Contains(err.Error(), "busy") {
		return ErrBusy
	}
	return err
}

// holders names mounts and processes that keep a mount busy.
func holders(dir string) []string {
	var who []string
	if table, err := mountTable(); err == nil {
		for _, m := range table {
			if strings.HasPrefix(m.dir, dir+"/") {
				who = append(who, "a mount on "+m.dir)
			}
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return who
	}
	for _, p := range processes {
		if uses(p, dir) {
			name, _ := os.ReadFile(filepath.Join(p, "comm"))
			who = append(who, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(p)))
		}
	}
	if len(who) > maxHolders {
		more := fmt.Sprintf("and %d more", len(who)-maxHolders)
		who = append(who[:maxHolders], more)
	}
	return who
}

// uses reports whether the process with this directory in /proc has something
// under dir open. It reads links only, which does not touch the mount.
func uses(proc, dir string) bool {
	links := []string{"cwd", "root", "exe"}
	if fds, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
		for _, fd := range fds {
			links = append(links, filepath.Join("fd", fd.Name()))
		}
	}
	return slices.ContainsFunc(links, func(link string) bool {
		to, err := os.Readlink(filepath.Join(proc, link))
		return err == nil && (to == dir || strings.HasPrefix(to, dir+"/"))
	})
}
