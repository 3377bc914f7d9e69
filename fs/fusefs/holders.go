//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHolders is how many of those who keep a mount busy an error names.
const maxHolders = 5

// holders names mounts and processes that keep a mount busy.
func (a attached) holders(ctx context.Context) []string {
	m, ok := a.find()
	if !ok {
		return nil
	}
	// /proc does not show the maps of a process while it changes them, which it may
	// do for as long as a server hangs.
	who, _ := Ask(ctx, func(ctx context.Context) ([]string, error) {
		below := isBelow(m.dir)
		return append(mountsIn(m), usersWho(ctx, func(proc, link string) bool {
			to, err := os.Readlink(filepath.Join(proc, link))
			return err == nil && below(to) && !(to == m.dir && isOpenedIn(m.parent, proc, link))
		}, func(mapping string) bool { return below(mapping) })...), nil
	})
	if len(who) > maxHolders {
		more := fmt.Sprintf("and %d more", len(who)-maxHolders)
		who = append(who[:maxHolders], more)
	}
	return who
}

// isOpenedIn reports whether what a process has open was opened in a mount, by its id:
// the path of a directory is that of what is mounted on it, too.
func isOpenedIn(mount, proc, link string) bool {
	fd, ok := strings.CutPrefix(link, "fd/")
	if !ok {
		return false
	}
	in, err := mountIDOf(proc, fd)
	return err == nil && in == mount
}

// isBelow reports whether a path is that of a directory, or of something in it.
func isBelow(dir string) func(path string) bool {
	return func(path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
}

// mountsIn names what is mounted in a mount.
func mountsIn(in mountEntry) (who []string) {
	table, err := mountTable()
	if err != nil {
		return nil
	}
	for _, m := range table {
		if m.parent == in.id {
			who = append(who, "a mount on "+m.dir)
		}
	}
	return who
}

// inUse reports whether any process that can be seen uses the file system of a
// device number, which need not be mounted any more.
func inUse(ctx context.Context, device string) (bool, error) {
	var major, minor uint32
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return false, err
	}
	mapped := fmt.Sprintf("%02x:%02x", major, minor)
	return Ask(ctx, func(ctx context.Context) (bool, error) {
		who := usersWho(ctx, func(proc, link string) bool {
			// With no attribute wanted nobody is asked for one.
			var st unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, filepath.Join(proc, link), unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
			return err == nil && st.Dev_major == major && st.Dev_minor == minor
		}, func(mapping string) bool { return mapping == mapped })
		return len(who) > 0, ctx.Err()
	})
}

// usersWho names the processes that use something: one of the links of a process
// in /proc leads to it, or it is mapped, which is looked up by its device or its
// path.
func usersWho(ctx context.Context, leads func(proc, link string) bool, maps func(deviceOrPath string) bool) (who []string) {
	for _, p := range processes() {
		if ctx.Err() != nil {
			return who
		}
		if slices.ContainsFunc(linksOf(p), func(link string) bool { return leads(p, link) }) || isMapped(p, maps) {
			name, _ := os.ReadFile(filepath.Join(p, "comm"))
			who = append(who, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(p)))
		}
	}
	return who
}

// processes returns the directories of all processes in /proc.
func processes() []string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // the pattern is right
	}
	return all
}

// pidFD returns a descriptor of a process, or -1.
func pidFD(pid string) int {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return -1
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		return -1
	}
	return fd
}

// linksOf returns the links in /proc that lead to what a process has open.
func linksOf(proc string) []string {
	links := []string{"cwd", "root", "exe"}
	if fds, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
		for _, fd := range fds {
			links = append(links, filepath.Join("fd", fd.Name()))
		}
	}
	return links
}

// isMapped reports whether a process has mapped something, by lines such as
//
//	7f0c0e000000-7f0c0e022000 r--p 00000000 00:2f 1234   /usr/lib/libc.so.6
func isMapped(proc string, is func(deviceOrPath string) bool) bool {
	text, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		path := bytes.IndexByte(line, '/')
		if len(f) < 6 || path < 0 {
			continue
		}
		if is(string(f[3])) || is(strings.TrimSuffix(string(line[path:]), "\n")) {
			return true
		}
	}
	return false
}
