//go:build linux

package hostile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bounds are what a run may take.
type bounds struct {
	memory int64         // peak of the resident set, in bytes
	cpu    time.Duration // of user and system
	disk   int64         // above the cache's size, in bytes
	ending time.Duration // from a signal to the end
}

// A jail runs imgfs on a disk of its own, under limits of the kernel.
type jail struct {
	imgfs string
	disk  string // a file system for all that imgfs writes
	group string // a memory cgroup, "" if none can be made
	size  scale
	free  int64 // bytes of the disk when it is empty
}

// A usage is what a run took, and how it ended.
type usage struct {
	stdout, stderr string
	code           int // -1: by a signal
	wall, cpu      time.Duration
	memory, disk   int64
	ending         time.Duration // since the signal; 0 without one
}

// newJail builds imgfs and makes the disk. The kernel's own limits are above
// what is judged, so that a run that takes too much is seen to.
func newJail(t *testing.T, size scale) *jail {
	t.Helper()
	j := &jail{imgfs: filepath.Join(t.TempDir(), "imgfs"), disk: t.TempDir(), size: size}
	if out, err := exec.Command("go", "build", "-o", j.imgfs, "../../cmd/imgfs").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	image := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size.diskSize))
	output(t, "mkfs.ext4", "-q", "-m", "0", image)
	output(t, "mount", "-o", "loop", image, j.disk)
	t.Cleanup(func() { output(t, "umount", j.disk) })
	j.free = available(t, j.disk)
	j.group = newGroup(t, size.limit.memory+128<<20)
	return j
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// available returns how many bytes of a file system are free.
func available(t testing.TB, dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * int64(st.Bsize)
}

// newGroup makes a cgroup with a limit of memory, of either version.
func newGroup(t *testing.T, limit int64) string {
	for _, v := range []struct{ root, file string }{
		{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		dir := filepath.Join(v.root, fmt.Sprint("imgfs-hostile-", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, v.file), []byte(fmt.Sprint(limit)), 0) == nil {
			return dir
		}
	}
	return ""
}

// empty removes what a run has left on the disk.
func (j *jail) empty(t *testing.T) {
	for _, dir := range []string{"cache", "tmp", "dir"} {
		must(t, os.RemoveAll(filepath.Join(j.disk, dir)))
	}
	for _, dir := range []string{"tmp", "dir"} {
		must(t, os.Mkdir(filepath.Join(j.disk, dir), 0o700))
	}
}

func (j *jail) dir() string { return filepath.Join(j.disk, "dir") }

// command is imgfs with the flags of the size, in a session of its own.
func (j *jail) command(ctx context.Context, args ...string) *exec.Cmd {
	script := fmt.Sprintf("ulimit -t %d; ulimit -n 1024; ", int(j.size.limit.cpu/time.Second)+30)
	if j.group != "" {
		script += "echo $$ >" + j.group + "/cgroup.procs; "
	}
	args = append(args, j.size.flags...)
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script + `exec "$0" "$@"`, j.imgfs}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "IMGFS_CACHE_DIR="+filepath.Join(j.disk, "cache"), "TMPDIR="+filepath.Join(j.disk, "tmp"), "HOME="+j.disk, "XDG_CACHE_HOME=")
	return cmd
}

// A running command.
type running struct {
	*exec.Cmd
	j              *jail
	t              *testing.T
	begun          time.Time
	stdout, stderr clipped
	peak           peak
	signalled      atomic.Int64 // UnixNano
	cancel         func()
}

// start begins a command whose output goes to also, too, if that is not nil.
func (j *jail) start(t *testing.T, also io.Writer, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), j.size.patience)
	r := &running{Cmd: j.command(ctx, args...), j: j, t: t, begun: time.Now(), cancel: cancel}
	r.Stdout, r.Stderr = &r.stdout, &r.stderr
	if also != nil {
		r.Stdout = io.MultiWriter(&r.stdout, also)
	}
	must(t, r.Start())
	r.peak.watch(t, j, r.Process.Pid)
	return r
}

// signal sends a signal to the command.
func (r *running) signal(sig syscall.Signal) {
	r.signalled.Store(time.Now().UnixNano())
	r.Process.Signal(sig)
}

// wait waits for the end, and returns what the command took.
func (r *running) wait() usage {
	r.t.Helper()
	err := r.Wait()
	end := time.Now()
	r.cancel()
	if r.ProcessState == nil {
		r.t.Fatal(err)
	}
	disk, memory := r.peak.stop()
	u := usage{
		stdout: r.stdout.String(), stderr: r.stderr.String(), code: r.ProcessState.ExitCode(),
		wall: end.Sub(r.begun), cpu: r.ProcessState.UserTime() + r.ProcessState.SystemTime(),
		memory: memory, disk: disk,
	}
	if at := r.signalled.Load(); at > 0 {
		u.ending = end.Sub(time.Unix(0, at))
	}
	return u
}

// A peak watches for the most that is ever on the disk, files without a name
// included, and the most memory that a process has had, as the kernel tells
// it.
type peak struct {
	done         chan struct{}
	disk, memory int64
}

func (p *peak) watch(t *testing.T, j *jail, pid int) {
	p.done = make(chan struct{})
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			p.disk = max(p.disk, j.free-available(t, j.disk))
			// Before it is imgfs it has what the test has.
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == j.imgfs {
				p.memory = max(p.memory, residentPeak(pid))
			}
			select {
			case p.done <- struct{}{}:
				return
			case <-tick.C:
			}
		}
	}()
}

func (p *peak) stop() (disk, memory int64) {
	<-p.done
	return p.disk, p.memory
}

// residentPeak returns the peak of a process's resident set, 0 if it has
// ended.
func residentPeak(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	var kib int64
	fmt.Sscan(rest, &kib)
	return kib << 10
}

// clipped keeps the first 64 KiB that are written to it.
type clipped struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *clipped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Write(p[:min(len(p), max(0, 64<<10-c.buf.Len()))])
	return len(p), nil
}

func (c *clipped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// lines counts the lines that pass.
type lines struct{ n int }

func (l *lines) Write(p []byte) (int, error) {
	l.n += bytes.Count(p, []byte("\n"))
	return len(p), nil
}
