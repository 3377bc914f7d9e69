package fusefs

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsSubtype is what mounts are told by, and fsType how the kernel shows it.
const (
	fsSubtype = "imgfs"
	fsType    = "fuse." + fsSubtype
)

// A MountPoint is a mounted image.
type MountPoint struct {
	Dir  string // absolute
	Name string // Options.Name of the mount: the image
}

// Mounts returns the imgfs mounts that this process can see, in the order of
// their mounting.
func Mounts() ([]MountPoint, error) {
	all, err := mountTable()
	if err != nil {
		return nil, err
	}
	var ours []MountPoint
	for _, m := range all {
		if m.fsType == fsType {
			ours = append(ours, MountPoint{Dir: m.dir, Name: m.source})
		}
	}
	return ours, nil
}

// A mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	id     string
	device string // major:minor
	dir    string
	fsType string
	source string
}

func mountTable() ([]mountEntry, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(text)), nil
}

// parseMountinfo reads lines such as
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// as proc_pid_mountinfo(5) has them: the optional fields end at a hyphen.
// Lines that do not look like it are skipped.
func parseMountinfo(text string) []mountEntry {
	var table []mountEntry
	for line := range strings.Lines(text) {
		front, back, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, b := strings.Split(front, " "), strings.Split(back, " ")
		if !ok || len(f) < 6 || len(b) < 2 {
			continue
		}
		table = append(table, mountEntry{
			id:     f[0],
			device: f[2],
			dir:    unescape(f[4]),
			fsType: unescape(b[0]),
			source: unescape(b[1]),
		})
	}
	return table
}

// unescape undoes the kernel's mangling: space, tab, newline, backslash and #
// are three octal digits behind a backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountedAt returns what is mounted on a directory, the topmost if there are
// several.
func mountedAt(table []mountEntry, dir string) (mountEntry, bool) {
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].dir == dir {
			return table[i], true
		}
	}
	return mountEntry{}, false
}

// resolve returns the absolute path, without symlinks, of what the user calls
// dir, and what is mounted there, if something is. It asks nothing of a file
// system that is mounted on dir: that may be dead, or somebody else's.
func resolve(dir string) (string, *mountEntry, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	// An open descriptor keeps a mount busy.
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return "", nil, err
	}
	table, err := mountTable()
	if err != nil {
		return "", nil, err
	}
	if m, ok := mountedAt(table, path); ok {
		return path, &m, nil
	}
	return path, nil, nil
}
