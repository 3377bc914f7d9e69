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
)

// A place is the directory for temporary files of one step. Processes in the background
// and mounts that are left when a step ends are known by it.
type place struct{ dir string }

// newPlace makes one that all users can write in, as in /tmp. Its path is short, as those of sockets
// have to be.
func newPlace() (*place, error) {
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	return &place{dir}, os.Chmod(dir, 0o777|os.ModeSticky)
}

// clear ends and removes what is left, and names processes and mounts.
func (p *place) clear() (left []string) {
	for _, dir := range p.mounts() {
		left = append(left, "the mount "+dir)
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			left = append(left, fmt.Sprintf("%s after all: %s", dir, bytes.TrimSpace(out)))
		}
	}
	for pid, command := range p.processes() {
		left = append(left, fmt.Sprintf("process %d: %s", pid, command))
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	if len(p.mounts()) > 0 {
		return left // nothing is removed through a mount
	}
	if err := os.RemoveAll(p.dir); err != nil {
		left = append(left, err.Error())
	}
	return left
}

// mounts are those below the directory, the newest first.
func (p *place) mounts() (dirs []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo") // only Linux has it
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], p.dir+"/") {
			dirs = append(dirs, f[4])
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// processes are those with a path below the directory in their command line.
func (p *place) processes() map[int]string {
	found := map[int]string{}
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		text, _ := os.ReadFile(name)
		if command := strings.ReplaceAll(string(text), "\x00", " "); strings.Contains(command, p.dir+"/") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				found[pid] = strings.TrimSpace(command)
			}
		}
	}
	return found
}
