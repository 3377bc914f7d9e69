//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	mountholder "github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"golang.org/x/sys/unix"
)

// eventually waits until a condition holds, and tells whether it does.
func eventually(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// processes returns the running processes of the command that this test run
// built, those that have a path at or below dir as an argument; "" is all.
func processes(dir string) []int {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		// A zombie, which somebody has yet to wait for, has no arguments.
		args := cmdline(pid)
		if len(args) == 0 || !strings.HasPrefix(args[0], runDir+"/") || filepath.Base(args[0]) != "imgfs" {
			continue
		}
		if dir == "" || slices.ContainsFunc(args[1:], func(a string) bool { return a == dir || strings.HasPrefix(a, dir+"/") }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isHolder reports whether a process keeps a mount for the next server.
func isHolder(pid int) bool { return mountholder.Is(cmdline(pid)) }

// serving are the processes that are no holders.
func serving(dir string) []int { return slices.DeleteFunc(processes(dir), isHolder) }

// holders are the processes that keep mounts for the next server.
func holders(dir string) []int {
	return slices.DeleteFunc(processes(dir), func(pid int) bool { return !isHolder(pid) })
}

// kill9 ends all processes that processes returns. Holders go first: each would have
// another server started. A process that is being executed has no arguments for a moment.
func kill9(dir string) {
	for none := 0; none < 3; {
		all := append(holders(dir), serving(dir)...)
		if len(all) == 0 {
			none++
			time.Sleep(5 * time.Millisecond)
			continue
		}
		none = 0
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// cmdline returns the arguments of a process.
func cmdline(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// mounted reports whether something is mounted on a directory.
func mounted(dir string) bool { return slices.Contains(mountsBelow(dir), dir) }

// mountsBelow returns what is mounted at and below a directory, the newest
// first. No directory of the tests has a name that the table escapes.
func mountsBelow(dir string) []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	var dirs []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			dirs = append(dirs, f[4])
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// unmountNow takes a mount away, whatever state it is in.
func unmountNow(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	if out, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
