//go:build linux

package fusefs

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
)

// fsSubtype is what mounts are told by, and fsType how the kernel shows it.
const (
	fsSubtype = "imgfs"
	fsType    = "fuse." + fsSubtype
)

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
			point := m.point()
			if view, ok := overlayOf(all, m); ok {
				point.Shown = view.dir
			}
			ours = append(ours, point)
		}
	}
	return ours, nil
}

// A mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	id     string
	parent string // id of the mount that it is mounted in
	device string // major:minor
	part   string // directory of the file system that is mounted
	dir    string
	fsType string
	source string
	owner  string // who mounted it, if it is of FUSE: the number of a user
	group  string // and that of a group
	shared bool   // whether other namespaces may have got it
	open   bool   // whether FUSE lets other users in
	lower  string // directory below it, if it is an overlayfs: see lowerDir
	// trigger says that it is where a program such as systemd mounts something when
	// somebody looks there: autofs(5) with a direct map.
	trigger bool
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
		m := mountEntry{
			id:     f[0],
			parent: f[1],
			device: f[2],
			part:   unescape(f[3]),
			dir:    unescape(f[4]),
			fsType: unescape(b[0]),
			source: unescape(b[1]),
			shared: slices.ContainsFunc(f[6:], func(field string) bool { return strings.HasPrefix(field, "shared:") }),
		}
		if m.fsType == overlayType {
			m.lower = lowerDir(strings.Join(b[2:], ","))
		}
		for option := range strings.SplitSeq(strings.Join(b[2:], ","), ",") {
			if id, ok := strings.CutPrefix(option, "user_id="); ok {
				m.owner = id
			}
			if id, ok := strings.CutPrefix(option, "group_id="); ok {
				m.group = id
			}
			m.open = m.open || option == "allow_other"
			m.trigger = m.trigger || option == "direct" && m.fsType == "autofs"
		}
		table = append(table, m)
	}
	return table
}

// ours reports whether the user of this process made a mount of FUSE, or may do
// with it what its owner may.
func (m *mountEntry) ours() bool {
	return os.Geteuid() == 0 || m.owner == "" || m.owner == strconv.Itoa(os.Getuid())
}

func (m *mountEntry) point() MountPoint {
	return MountPoint{Dir: m.dir, Name: m.source, Owner: m.ownerName(), Device: m.device, Part: m.part,
		id: m.id, foreign: !m.ours(), own: m.owner == strconv.Itoa(os.Geteuid())}
}

// ownerName is who made a mount, for people. What is not of FUSE does not say it: only root
// makes that.
func (m *mountEntry) ownerName() string {
	if m.owner == "0" || m.owner == "" {
		return "root"
	}
	return "user " + m.owner
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

// withID returns the mount that has an id.
func withID(table []mountEntry, id string) (mountEntry, bool) {
	for _, m := range table {
		if m.id == id {
			return m, true
		}
	}
	return mountEntry{}, false
}

// isNew reports whether a mount is not in an earlier table. The kernel gives the number of
// one that is gone to the next one at once.
func isNew(before []mountEntry, m mountEntry) bool {
	return !slices.ContainsFunc(before, func(b mountEntry) bool { return b.identity() == m.identity() && b.parent == m.parent })
}

// hasDevice reports whether a file system, by its device number, is mounted
// anywhere.
func hasDevice(table []mountEntry, device string) bool {
	return slices.ContainsFunc(table, func(m mountEntry) bool { return m.device == device })
}

// mountAt returns what is mounted on a place: the mount whose root it is.
func (p *place) mountAt() (*mountEntry, error) {
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	if m, ok := withID(table, p.mount); ok && m.dir == p.path {
		return &m, nil
	}
	return nil, nil
}

// BarredBy returns the mount that a path leads into, as far as its spelling tells, if
// that is one of FUSE which lets this user not in: only who has mounted it may look into
// it, not even root.
func BarredBy(path string) (MountPoint, bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return MountPoint{}, false
	}
	table, err := mountTable()
	if err != nil {
		return MountPoint{}, false
	}
	var deepest mountEntry
	for _, m := range table {
		if len(m.dir) >= len(deepest.dir) && isBelow(m.dir)(abs) {
			deepest = m
		}
	}
	barred := deepest.owner != "" && !deepest.open && deepest.owner != strconv.Itoa(os.Geteuid())
	return deepest.point(), barred
}

// HintBarred is the hint for who is not let into a mount.
const HintBarred = "who mounted it lets others in with --allow-other, at the next mount"

// HintNoAnswer returns the hint for a path at which there was ErrNoAnswer: to
// unmount the image that it is in, as far as its spelling tells.
func HintNoAnswer(path string) string {
	hint := "a file system on the way may hang"
	abs, err := filepath.Abs(path)
	if err != nil {
		return hint
	}
	mounts, err := Mounts()
	if err != nil {
		return hint
	}
	deepest := ""
	for _, m := range mounts {
		for _, dir := range []string{m.Dir, m.Place()} {
			if len(dir) >= len(deepest) && isBelow(dir)(abs) {
				deepest = dir
				hint = "the process that serves it may be stopped or gone; imgfs umount -l " + printable.Word(dir)
			}
		}
	}
	return hint
}
