package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// FindUsers returns the users of the containers of this user. Without ranges, or
// without the programs newuidmap and newgidmap, there is root alone.
func FindUsers() *Users {
	if os.Geteuid() == 0 {
		return nil
	}
	u := &Users{UIDs: mapping(os.Geteuid()), GIDs: mapping(os.Getegid())}
	names := []string{strconv.Itoa(os.Geteuid())}
	if me, err := user.Current(); err == nil {
		names = append(names, me.Username)
	}
	uids, gids := ranges("/etc/subuid", names), ranges("/etc/subgid", names)
	if len(uids) == 0 || len(gids) == 0 {
		return u
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return u
		}
	}
	u.UIDs, u.GIDs = append(u.UIDs, uids...), append(u.GIDs, gids...)
	return u
}

// mapping makes this user root.
func mapping(id int) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(id), Size: 1}}
}

// hasRanges reports whether there are others than root.
func (u *Users) hasRanges() bool { return u != nil && len(u.UIDs) > 1 }

// ranges reads the ranges of a user from a file, one behind the other.
func ranges(file string, names []string) []specs.LinuxIDMapping {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseRanges(io.LimitReader(f, maxSubIDs), names)
}

// maxSubIDs is how many bytes of such a file are read.
const maxSubIDs = 1 << 20

func parseRanges(r io.Reader, names []string) []specs.LinuxIDMapping {
	var all []specs.LinuxIDMapping
	next := uint64(1)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 || parts[0] != names[0] && parts[0] != names[len(names)-1] {
			continue
		}
		first, err1 := strconv.ParseUint(parts[1], 10, 32)
		count, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 || next+count > 1<<32-1 || len(all) == maxRanges {
			continue
		}
		all = append(all, specs.LinuxIDMapping{ContainerID: uint32(next), HostID: uint32(first), Size: uint32(count)})
		next += count
	}
	return all
}

// maxRanges is how many ranges are used: the kernel takes 340.
const maxRanges = 300

// procAttr returns how to start the supervisor: in namespaces of its own.
func (u *Users) procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if u == nil {
		return attr
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	if !u.hasRanges() {
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: int(u.UIDs[0].HostID), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: int(u.GIDs[0].HostID), Size: 1}}
	}
	return attr
}

// give gives the users to a supervisor whose user namespace has none yet.
func (u *Users) give(pid int, l *line) error {
	if !u.hasRanges() {
		return nil
	}
	if err := errors.Join(giveMap("newuidmap", pid, u.UIDs), giveMap("newgidmap", pid, u.GIDs)); err != nil {
		return err
	}
	return l.send(message{Given: true}, nil)
}

func giveMap(program string, pid int, ids []specs.LinuxIDMapping) error {
	args := []string{strconv.Itoa(pid)}
	for _, m := range ids {
		for _, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	said, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(said))
	}
	return nil
}

// explainStart says what to do about an error of starting the supervisor.
func (u *Users) explainStart(err error) error {
	switch {
	case u == nil && errors.Is(err, syscall.EPERM):
		return cli.WithHint(fmt.Errorf("this root may not make namespaces: %w", err), "in a container: --cap-add SYS_ADMIN --security-opt seccomp=unconfined, or --privileged")
	case u != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)):
		return cli.WithHint(fmt.Errorf("a plain user may make no user namespaces here: %w", err), "sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 (those that there are), or run it as root")
	case errors.Is(err, syscall.ENOSPC):
		return cli.WithHint(fmt.Errorf("there may be no more namespaces of users, mounts or processes: %w", err),
			"sudo sysctl user.max_user_namespaces=10000 user.max_mnt_namespaces=10000 user.max_pid_namespaces=10000")
	}
	return err
}
