package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A report is what a process finds.
type report struct {
	Args    []string
	Env     []string // sorted
	Dir     string
	PID     int
	UID     [4]string // real, effective, saved, file system
	GID     [4]string
	Groups  []int
	Caps    map[string]string // CapInh and others of /proc/self/status
	NoNew   string            // no_new_privs
	Seccomp string
	Umask   string
	Host    string
	Domain  string
	Limits  map[string]string
	FDs     map[string]string // the inherited ones: what kind each is
	Tty     map[string]string // of those that are terminals: size
	Session string            // whether it leads a session, and has a controlling terminal
	Mounts  []string          // point, type, options, propagation
	Devices []string          // in /dev
	Net     []string          // interfaces
	Spaces  map[string]string // namespaces
	Parent  string            // who is its parent: 0 is outside
	Signals map[string]string // blocked and ignored ones
	Exposed []string          // of what containers are not to read or write, what can be
	OOM     string
	Binary  string
}

func newReport() (*report, error) {
	r := &report{Args: os.Args, Env: os.Environ(), PID: os.Getpid(), Tty: map[string]string{}, FDs: map[string]string{}}
	sort.Strings(r.Env)
	var err error
	if r.Dir, err = unix.Getwd(); err != nil {
		r.Dir = err.Error()
	}
	r.Dir = strings.TrimRight(r.Dir, "\x00")
	status, err := fields("/proc/self/status")
	if err != nil {
		return nil, err
	}
	copy(r.UID[:], strings.Fields(status["Uid"]))
	copy(r.GID[:], strings.Fields(status["Gid"]))
	for _, g := range strings.Fields(status["Groups"]) {
		n, _ := strconv.Atoi(g)
		r.Groups = append(r.Groups, n)
	}
	slices.Sort(r.Groups)
	r.Caps = pick(status, "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
	r.NoNew, r.Seccomp, r.Umask, r.Parent = status["NoNewPrivs"], status["Seccomp"], status["Umask"], status["PPid"]
	r.Signals = pick(status, "SigBlk", "SigIgn")
	r.identity()
	r.descriptors()
	r.surroundings()
	return r, nil
}

// identity finds names, limits and namespaces.
func (r *report) identity() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Host, r.Domain = unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:])
	}
	r.Limits = map[string]string{}
	for name, what := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "core": unix.RLIMIT_CORE, "stack": unix.RLIMIT_STACK, "memlock": unix.RLIMIT_MEMLOCK} {
		var l unix.Rlimit
		if unix.Getrlimit(what, &l) == nil {
			r.Limits[name] = fmt.Sprint(int64(l.Cur), " ", int64(l.Max))
		}
	}
	r.Spaces = map[string]string{}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		r.Spaces[name], _ = os.Readlink("/proc/self/ns/" + name)
	}
	r.OOM = text("/proc/self/oom_score_adj")
	r.Binary, _ = os.Readlink("/proc/self/exe")
}

// descriptors finds open files and terminals.
func (r *report) descriptors() {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		fd, _ := strconv.Atoi(filepath.Base(name))
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		target, _ := os.Readlink(name)
		if err != nil || flags&unix.FD_CLOEXEC != 0 || strings.HasPrefix(target, "anon_inode:") {
			continue // the Go runtime's own
		}
		kind, _, _ := strings.Cut(target, ":")
		r.FDs[filepath.Base(name)] = kind
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			r.Tty[filepath.Base(name)] = fmt.Sprintf("%dx%d", size.Col, size.Row)
		}
	}
	sid, _ := unix.Getsid(0)
	r.Session = fmt.Sprintf("leader: %t", sid == os.Getpid())
	if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		front, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
		r.Session += fmt.Sprintf(", terminal, foreground: %t", err == nil && front == unix.Getpgrp())
		f.Close()
	}
}

// surroundings finds mounts, devices, networks, and what is to be hidden.
func (r *report) surroundings() {
	for line := range strings.Lines(text("/proc/self/mountinfo")) {
		f := strings.Fields(line)
		i := slices.Index(f, "-")
		if i < 6 || len(f) < i+4 {
			continue
		}
		r.Mounts = append(r.Mounts, fmt.Sprintf("%s %s %s %s", f[4], f[i+1], f[5], strings.Join(f[6:i], ",")))
	}
	entries, _ := os.ReadDir("/dev")
	for _, e := range entries {
		r.Devices = append(r.Devices, e.Name())
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		r.Net = append(r.Net, i.Name)
	}
	for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/acpi", "/proc/scsi", "/sys/firmware"} {
		if f, err := os.Open(name); err == nil {
			b := make([]byte, 1)
			_, err := f.Read(b)
			names, _ := f.Readdirnames(1)
			f.Close()
			if err == nil || len(names) > 0 {
				r.Exposed = append(r.Exposed, name)
			}
		}
	}
	for _, name := range []string{"/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"} {
		if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
			f.Close()
			r.Exposed = append(r.Exposed, name+" (can be written)")
		}
	}
}

// fields reads a file of lines "name: value".
func fields(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.TrimSpace(value)
	}
	return m, err
}

func pick(m map[string]string, names ...string) map[string]string {
	some := map[string]string{}
	for _, n := range names {
		some[n] = m[n]
	}
	return some
}

func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
