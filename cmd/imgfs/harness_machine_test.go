//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machineState is what containers of a sandbox could leave on this one.
type machineState struct {
	mounts    []string // lines of the mount table that name the sandbox, or are FUSE's or overlays
	processes []string // those that know the sandbox
	files     []string // in the sandbox, but for its cache and what the test lists
	elsewhere []string // in directories that runtimes use
	cgroups   []string
	locks     []string // of files in the cache
}

// machineOf looks at this machine, for a sandbox.
func machineOf(t testing.TB, s *sandbox) *machineState {
	t.Helper()
	m := &machineState{processes: processesKnowing(s.dir), locks: locksBelow(t, s.cache)}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, s.dir) {
			m.mounts = append(m.mounts, line)
		}
	}
	m.files = pathsBelow(s.dir, s.cache)
	for _, pattern := range []string{"/run/runc/*", "/run/crun/*", "/run/imgfs*/*", fmt.Sprintf("/run/user/%d/*", s.uid), "/var/tmp/imgfs-*", "/tmp/imgfs-run*", "/dev/shm/imgfs-run*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		// Mounts of other tests have sockets there.
		m.elsewhere = append(m.elsewhere, slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) == ".holder" })...)
	}
	m.cgroups = cgroupsNow()
	return m
}

// pathsBelow returns the files in a directory, but for those in another one.
func pathsBelow(dir, but string) (names []string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path == but {
			return filepath.SkipDir
		}
		if err == nil {
			names = append(names, path)
		}
		return nil
	})
	return names
}

func cgroupsNow() (names []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			names = append(names, path)
		}
		return nil
	})
	return names
}

// processesKnowing returns those that have a directory in their arguments, environment
// or, where it is not this one, mount table. This process and what is above it are none.
func processesKnowing(dir string) (found []string) {
	here, _ := os.Readlink("/proc/self/ns/mnt")
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil || pid == os.Getpid() {
			continue
		}
		known := ""
		for _, file := range []string{"cmdline", "environ"} {
			if text, _ := os.ReadFile(filepath.Join(name, file)); strings.Contains(string(text), dir) {
				known = file
			}
		}
		if ns, err := os.Readlink(filepath.Join(name, "ns/mnt")); known == "" && err == nil && ns != here {
			if text, _ := os.ReadFile(filepath.Join(name, "mountinfo")); strings.Contains(string(text), dir) {
				known = "mountinfo"
			}
		}
		if known != "" {
			found = append(found, fmt.Sprintf("process %d %q (by its %s)", pid, cmdline(pid), known))
		}
	}
	return found
}

// locksBelow returns the locks of files in a directory.
func locksBelow(t testing.TB, dir string) (held []string) {
	t.Helper()
	inodes := map[string]string{}
	for _, path := range pathsBelow(dir, "") {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			inodes[fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)] = path
		}
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for _, field := range strings.Fields(line) {
			if path := inodes[field]; path != "" {
				held = append(held, path)
			}
		}
	}
	return held
}

// asBefore checks that the machine is as it was, now or soon.
func (m *machineState) asBefore(t testing.TB, s *sandbox) {
	t.Helper()
	var left []string
	same := func() bool {
		left = m.more(machineOf(t, s))
		return len(left) == 0
	}
	if !eventually(10*time.Second, same) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// more returns what another machine has that this one has not. Other tests have cgroups
// too: of those only such count as runtimes would name by the container.
func (m *machineState) more(now *machineState) (left []string) {
	for _, list := range []struct {
		what        string
		before, now []string
	}{
		{"mount", m.mounts, now.mounts}, {"process", m.processes, now.processes}, {"file", m.files, now.files},
		{"file", m.elsewhere, now.elsewhere}, {"cgroup", m.cgroups, now.cgroups}, {"lock", m.locks, now.locks},
	} {
		had := map[string]bool{}
		for _, x := range list.before {
			had[x] = true
		}
		for _, x := range list.now {
			if !had[x] && (list.what != "cgroup" || filepath.Base(x) == "imgfs") {
				left = append(left, list.what+": "+x)
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(left)))
}
