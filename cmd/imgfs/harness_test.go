//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// runDir holds all that this run of the tests makes. TMPDIR names it, so
// t.TempDir() is below it too, and whatever is left at the end can be told
// from what other runs have.
var runDir string

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(dumpEnv); ok {
		if err := printDump(os.Stdout, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir, ok := os.LookupEnv(liarEnv); ok {
		says, err := io.ReadAll(os.Stdin)
		if err == nil {
			err = lie(dir, says)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if path, ok := os.LookupEnv(surviveEnv); ok {
		if err := survive(path, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if slices.Contains(os.Args, "--"+detachedFlag) {
		// invoke must not mount: what serves in the background is this program, again.
		fmt.Fprintln(os.Stderr, "a test binary is no imgfs:", os.Args)
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) (code int) {
	dir, err := makeRunDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runDir = dir
	time.Local = time.UTC // for the times that listings have
	os.Setenv("TMPDIR", dir)
	os.Setenv("COLUMNS", "0") // tables are whole, but on terminals
	// Those that run at the same time wait for servers and timeouts.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	code = m.Run()
	left := leftovers()
	for _, stop := range slices.Backward(atEnd.funcs) {
		if err := stop(); err != nil {
			left = append(left, err.Error())
		}
	}
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "the tests left behind:", l)
		code = 1
	}
	return code
}

// makeRunDir makes a directory that other users can look into, by its real
// path: that is what the mount table shows.
func makeRunDir() (string, error) {
	dir, err := os.MkdirTemp("", "imgfs-cmd-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// atEnd has functions that are called after all tests.
var atEnd struct {
	mu    sync.Mutex
	funcs []func() error
}

func afterAllTests(f func() error) {
	atEnd.mu.Lock()
	defer atEnd.mu.Unlock()
	atEnd.funcs = append(atEnd.funcs, f)
}

// leftovers ends the processes and mounts that tests have left, and names them.
func leftovers() []string {
	var left []string
	for _, dir := range mountsBelow(runDir) {
		left = append(left, "the mount "+dir)
		_ = unmountNow(dir)
	}
	for _, pid := range processes("") {
		left = append(left, fmt.Sprintf("process %d: %q", pid, cmdline(pid)))
	}
	kill9("")
	return left
}

// buildImgfs builds the command once, without the race detector.
var buildImgfs = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(runDir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "imgfs")
	if out, err := buildCommand(path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, os.Chmod(path, 0o755)
})

// buildCommand builds the command as make does.
func buildCommand(path string) *exec.Cmd {
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

// imgfsBinary returns the path of the command, in a directory of its own.
func imgfsBinary(t testing.TB) string {
	t.Helper()
	path, err := buildImgfs()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// missing skips the test, or fails it where everything must be there.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// need is for tests that use other programs.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, "%s is not installed", p)
		}
	}
}

// needFUSE is for tests that mount.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		missing(t, "%v", err)
	}
	f.Close()
	if os.Geteuid() != 0 {
		need(t, "fusermount3")
	} else if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0); err == nil && n == 0 {
		missing(t, "this root may not mount: it has no CAP_SYS_ADMIN")
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "only root can do this")
	}
}

// tool runs another program to its end, which must be a good one.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// publicDir makes a directory that other users can look into.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(runDir, "dir-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	testenv.OthersCanEnter(t, runDir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// An account is a user of the machine.
type account struct {
	name     string
	uid, gid int
}

// thisUser returns the user who runs the tests.
func thisUser() account {
	if os.Geteuid() == 0 {
		return account{"root", 0, os.Getegid()}
	}
	return account{"user", os.Geteuid(), os.Getegid()}
}

// as has a program run as a user; only root can do that for another.
func (a account) as(cmd *exec.Cmd) *exec.Cmd {
	if a.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	return cmd
}

// A sandbox is where a user runs imgfs: a home and a cache of its own, and
// nothing of the environment but the PATH.
type sandbox struct {
	account
	t     testing.TB
	dir   string // home, cache and mountpoints are here
	cache string
	env   []string
}

// newSandbox makes a sandbox of the user who runs the tests.
func newSandbox(t testing.TB) *sandbox { return sandboxOf(t, thisUser()) }

// sandboxOf makes a sandbox of a user; only root can make that of another.
func sandboxOf(t testing.TB, who account) *sandbox {
	t.Helper()
	imgfsBinary(t)
	dir, err := os.MkdirTemp(runDir, "sandbox-")
	if err != nil {
		t.Fatal(err)
	}
	if who.uid != os.Geteuid() {
		testenv.OthersCanEnter(t, runDir)
	}
	s := &sandbox{account: who, t: t, dir: dir, cache: filepath.Join(dir, "cache")}
	s.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "XDG_CACHE_HOME=" + filepath.Join(dir, "xdg-cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(dir, "xdg-config"), "XDG_RUNTIME_DIR=" + filepath.Join(dir, "xdg-run"), "IMGFS_CACHE_DIR=" + s.cache, "COLUMNS=0"}
	t.Cleanup(func() {
		for _, m := range mountsBelow(dir) {
			if err := unmountNow(m); err != nil {
				t.Errorf("unmounting %s: %v", m, err)
			}
		}
		s.waitGone(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, who.uid, who.gid)); err != nil {
		t.Fatal(err)
	}
	return s
}

// in returns the sandbox for use in a subtest.
func (s *sandbox) in(t testing.TB) *sandbox {
	sub := *s
	sub.t = t
	return &sub
}

// A result is what became of a run of imgfs.
type result struct {
	stdout, stderr string
	code           int // -1: killed by a signal
	took           time.Duration
}

// command returns a run of imgfs that has yet to be started.
func (s *sandbox) command(args ...string) *exec.Cmd {
	return s.program(imgfsBinary(s.t), args...)
}

// program is command for other programs.
func (s *sandbox) program(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	// A daemon that holds the pipe must not hold the test.
	cmd.WaitDelay = 10 * time.Second
	return s.as(cmd)
}

// run runs imgfs to its end.
func (s *sandbox) run(args ...string) result {
	s.t.Helper()
	return s.finish(s.command(args...))
}

// finish runs a command to its end.
func (s *sandbox) finish(cmd *exec.Cmd) result {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begun := time.Now()
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), 0, time.Since(begun)}
	var status *exec.ExitError
	if errors.As(err, &status) {
		r.code = status.ExitCode()
	} else if err != nil {
		s.t.Fatalf("%q: %v\n%s%s", cmd.Args, err, r.stdout, r.stderr)
	}
	return r
}

// ok runs imgfs, which must succeed.
func (s *sandbox) ok(args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("imgfs %q: exit code %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// fails runs imgfs, which must fail with a code and say all of the words.
func (s *sandbox) fails(code int, words []string, args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Errorf("imgfs %q: exit code %d, want %d\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			s.t.Errorf("imgfs %q: stderr has no %q:\n%s", args, w, r.stderr)
		}
	}
	return r
}

// mount mounts an image on a new directory, until the end of the test.
func (s *sandbox) mount(image string, flags ...string) (dir string) {
	s.t.Helper()
	dir = s.mountpoint()
	s.ok(append(append([]string{"mount"}, flags...), image, dir)...)
	if !mounted(dir) {
		s.t.Fatalf("imgfs mount returned 0, and nothing is mounted on %s", dir)
	}
	return dir
}

// mountpoint makes a directory to mount on.
func (s *sandbox) mountpoint() string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "mnt-")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(dir, s.uid, s.gid); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// umount unmounts with imgfs and waits for the daemon's end.
func (s *sandbox) umount(dir string) {
	s.t.Helper()
	s.ok("umount", dir)
	s.gone(dir)
}

// gone checks that nothing is mounted on a directory and that no process
// serves it, now or soon.
func (s *sandbox) gone(dir string) {
	s.t.Helper()
	if mounted(dir) {
		s.t.Errorf("%s is still mounted", dir)
	}
	s.waitGone(dir)
}

// waitGone waits for the end of the processes that have something below dir
// among their arguments.
func (s *sandbox) waitGone(dir string) {
	s.t.Helper()
	if !eventually(20*time.Second, func() bool { return len(processes(dir)) == 0 }) {
		for _, pid := range processes(dir) {
			s.t.Errorf("process %d still runs: %q", pid, cmdline(pid))
		}
		kill9(dir)
	}
}

// daemon returns the process that serves a mount.
func (s *sandbox) daemon(dir string) int {
	s.t.Helper()
	pids := serving(dir)
	if len(pids) != 1 {
		s.t.Fatalf("processes that serve %s: %v, want one", dir, pids)
	}
	return pids[0]
}
