package holder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process is what /proc tells of one, and what its user cannot make up.
type process struct {
	name    string
	stopped bool
	ended   bool     // and nobody has asked how
	memory  bool     // as each has but those of the kernel, and those that have ended
	uids    []string // real, effective, saved
}

// lookAt looks at a process, and reports whether there is one.
func lookAt(pid int) (p process, ok bool) {
	if pid <= 0 {
		return p, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, false
	}
	for line := range bytes.Lines(text) {
		switch key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":\t"); key {
		case "Name":
			p.name = value
		case "State":
			p.stopped = strings.HasPrefix(value, "T")
			p.ended = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
		case "Uid":
			p.uids = strings.Fields(value)
		case "VmSize":
			p.memory = true
		}
	}
	return p, len(p.uids) >= 3
}

// isOf reports whether a process is a user's, or root's, in all ways. A program that gets
// rights when it is executed is nobody's; and the owner of /proc/PID is root for any that
// wants to be without core files.
func (p process) isOf(owner int) bool {
	uid := p.uids[0]
	return (uid == "0" || uid == strconv.Itoa(owner)) && p.uids[1] == uid && p.uids[2] == uid
}

// signalOwn sends a signal to a process if it is owner's, or root's, and as is wanted, and
// to no other one that has its number since.
func signalOwn(pid, owner int, sig unix.Signal, want func(process) bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	p, ok := lookAt(pid)
	return ok && p.isOf(owner) && want(p) && unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// holdersOf returns the processes that may be the holder of a device, those first that
// certainly have it open. What a process says of itself may lie where reading takes for
// ever: ctx ends that.
func holdersOf(ctx context.Context, device string, owner int) ([]*Client, error) {
	found := make(chan []*Client, 1)
	go func() { found <- findHolders(ctx, device, owner) }()
	select {
	case all := <-found:
		return all, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func findHolders(ctx context.Context, device string, owner int) (all []*Client) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // the pattern is right
	}
	sure := 0
	for _, proc := range procs {
		if ctx.Err() != nil {
			return all
		}
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		if p, ok := lookAt(pid); !ok || !p.isOf(owner) {
			continue
		}
		c, ok := readHolder(pid, nameOf(device))
		if !ok {
			continue
		}
		c.owner = owner
		switch has, other := devicesOf(proc, device); {
		case has:
			all = slices.Insert(all, sure, c)
			sure++
		case !other: // or it cannot be seen
			all = append(all, c)
		}
	}
	return all
}

// readHolder reads what a command line tells of the holder of a name.
func readHolder(pid int, name string) (c *Client, ok bool) {
	args := commandLine(pid)
	if len(args) < 3 || !Is(args) || args[2] != name {
		return nil, false
	}
	c = &Client{pid: pid, patience: DefaultPatience}
	for _, arg := range args[3:] {
		if arg == "--" {
			break
		}
		key, value, _ := strings.Cut(arg, "=")
		switch {
		case key == "sockets" && value != "":
			c.path = filepath.Join(value, socketFile(name))
		case key == "patience":
			if d, err := time.ParseDuration(value); err == nil && d > 0 {
				c.patience = min(d, maxPatience)
			}
		}
	}
	return c, true
}

// commandLine returns that of a process, nil if it cannot be told. One that executes a
// program has none for a moment, as a holder does behind each upgrade.
func commandLine(pid int) []string {
	for range 50 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return nil
		}
		if len(text) > 0 {
			return strings.Split(string(text), "\x00")
		}
		if p, ok := lookAt(pid); !ok || !p.memory {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// devicesOf reports whether a process has the FUSE device of a mount open, and that of
// another one, as far as the kernel tells it.
func devicesOf(proc, device string) (has, other bool) {
	fds, err := os.ReadDir(filepath.Join(proc, "fdinfo"))
	if err != nil {
		return false, false
	}
	for _, fd := range fds {
		text, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			// fs/fuse/dev.c of Linux, fuse_dev_show_fdinfo.
			if n, ok := strings.CutPrefix(string(line), "fuse_connection:"); ok {
				if "0:"+strings.TrimSpace(n) == device {
					has = true
				} else {
					other = true
				}
			}
		}
	}
	return has, other && !has
}

// Continue continues the holder and the server of a mount that was unmounted while they were
// stopped (SIGSTOP), so that they end. owner is who had mounted it.
func Continue(ctx context.Context, device string, owner int) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	stopped := func(p process) bool { return p.stopped }
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return // the pattern is right
	}
	some := false
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		if p, ok := lookAt(pid); !ok || !p.stopped || !p.isOf(owner) {
			continue
		}
		some = true
		if has, _ := devicesOf(proc, device); has { // where the kernel tells it
			signalOwn(pid, owner, unix.SIGCONT, stopped)
		}
	}
	if !some {
		return
	}
	all, err := holdersOf(ctx, device, owner)
	if err != nil {
		return
	}
	for _, c := range all {
		signalOwn(c.pid, owner, unix.SIGCONT, stopped)
		if status, err := c.Status(ctx); err == nil {
			signalOwn(status.Server, owner, unix.SIGCONT, stopped)
		}
	}
}
