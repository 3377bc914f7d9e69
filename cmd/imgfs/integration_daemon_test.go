//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// openFiles returns what a process has open.
func openFiles(t *testing.T, pid int) (links []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil {
			links = append(links, to)
		}
	}
	return links
}

// withDescriptors gives a command a lock, a pipe and a file, under numbers as
// shells choose them.
func withDescriptors(t *testing.T, cmd *exec.Cmd) (lock *os.File, names []string) {
	t.Helper()
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	cmd.ExtraFiles = []*os.File{lock, w, lock, nil, nil, w, lock}
	pipe, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return lock, []string{lock.Name(), pipe}
}

// TestNothingIsInherited: neither a server in the background nor what imgfs
// starts keeps what the caller has open.
func TestNothingIsInherited(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mountpoint()
		cmd := s.command("mount", image, dir)
		lock, names := withDescriptors(t, cmd)
		if r := s.finish(cmd); r.code != 0 {
			t.Fatal(r.stderr)
		}
		for _, link := range openFiles(t, s.daemon(dir)) {
			for _, name := range names {
				if link == name {
					t.Errorf("the server has %s open", link)
				}
			}
		}
		name := lock.Name()
		lock.Close()
		again, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Errorf("the lock is still held: %v", err)
		}
		s.umount(dir)
	})
}

// spyScript is a program that writes down what it has open, as whom, and how, and
// then is another one.
const spyScript = "#!/bin/sh\nPATH=/bin:/usr/bin\n{ ls -l /proc/self/fd; umask; } >>'%s'\n%s\n"

// TestProgramsInheritNothing has a server in the foreground start fusermount3
// and a credential helper.
func TestProgramsInheritNothing(t *testing.T) {
	needFUSE(t)
	need(t, "fusermount3")
	real, err := exec.LookPath("fusermount3")
	if err != nil {
		t.Fatal(err)
	}
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	image, _ := publish(t, reg, small)
	s := ordinary(t)
	bin, seen := filepath.Join(s.dir, "bin"), filepath.Join(s.dir, "seen")
	for name, then := range map[string]string{
		"fusermount3":            "exec '" + real + `' "$@"`,
		"docker-credential-test": `echo '{"Username": "u", "Secret": "p"}'`,
	} {
		path := writeFile(t, filepath.Join(bin, name), fmt.Sprintf(spyScript, seen, then))
		if err := errors.Join(os.Chmod(bin, 0o755), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, seen, "")
	auth := writeFile(t, filepath.Join(s.dir, "auth.json"), fmt.Sprintf(`{"credHelpers": {%q: "test"}}`, reg.Host()))
	if err := errors.Join(os.Chown(seen, s.uid, s.gid), os.Chown(auth, s.uid, s.gid)); err != nil {
		t.Fatal(err)
	}
	dir := s.mountpoint()
	cmd := s.command("mount", "-f", "--tls-verify=false", "--authfile="+auth, image, dir)
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	_, names := withDescriptors(t, cmd)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if !eventuallyMounted(dir) {
		t.Fatal(stderr.String())
	}
	s.umount(dir)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
	text := readFile(t, seen)
	for _, name := range names {
		if strings.Contains(text, name) {
			t.Errorf("a program got %s:\n%s", name, text)
		}
	}
	if strings.Count(text, "\n0077\n") < 2 {
		t.Errorf("want the helper and fusermount3 to have umask 0077:\n%s", text)
	}
}

// TestNamedDescriptor: what an argument names as a descriptor reaches the process
// in the background.
func TestNamedDescriptor(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	auth := strings.TrimPrefix(credentials(t, reg.Host(), "u", "p"), "--authfile=")
	dir := s.mountpoint()
	sh := s.program("bash", "-c", `"$0" mount -q --tls-verify=false --authfile <(cat "$1") "$2" "$3"`, imgfsBinary(t), auth, image, dir)
	if r := s.finish(sh); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	s.umount(dir)
}

// TestDescriptorOfAnyVariable: a variable that imgfs does not read hands no
// descriptor to the process in the background, one that it reads does.
func TestDescriptorOfAnyVariable(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	lock := filepath.Join(s.dir, "lock")
	for variable, want := range map[string]bool{"LOCK": false, "IMGFS_LOCK": false, "SSL_CERT_FILE": true} {
		dir := s.mountpoint()
		sh := s.program("bash", "-c", `exec 9>"$1"; export $2=/dev/fd/9; "$0" mount -q "$3" "$4"`, imgfsBinary(t), lock, variable, image, dir)
		if r := s.finish(sh); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon(dir)))
		if err != nil {
			t.Fatal(err)
		}
		has := slices.ContainsFunc(open, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return to == lock
		})
		if has != want {
			t.Errorf("%s: the server has the descriptor: %v", variable, has)
		}
		s.umount(dir)
	}
}

// statusOf returns a member of /proc/PID/status of each thread of a process.
func statusOf(t *testing.T, pid int, member string) (values []string) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, member+":"); ok {
				values = append(values, strings.TrimSpace(value))
			}
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s of process %d is not known", member, pid)
	}
	return values
}

// capabilitySet reads a set of capabilities.
func capabilitySet(t *testing.T, text string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestServersRights looks at what a server may do once it serves, each thread of
// it, in the background and in the foreground.
func TestServersRights(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	const rest = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH
	have := uint64(0)
	for _, text := range statusOf(t, os.Getpid(), "CapPrm") {
		have = capabilitySet(t, text)
	}
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		caps, privs := have&rest, "1"
		if who.uid != 0 {
			caps, privs = 0, "0" // fusermount3 is setuid
		}
		check := func(pid int) {
			t.Helper()
			for member, want := range map[string]uint64{"CapPrm": caps, "CapEff": caps, "CapInh": 0, "CapAmb": 0} {
				for _, got := range statusOf(t, pid, member) {
					if capabilitySet(t, got) != want {
						t.Errorf("%s of a thread is %s, want %x", member, got, want)
					}
				}
			}
			for _, got := range statusOf(t, pid, "NoNewPrivs") {
				if got != privs {
					t.Errorf("NoNewPrivs of a thread is %s, want %s", got, privs)
				}
			}
			if got := statusOf(t, pid, "Umask")[0]; got != "0077" {
				t.Errorf("the umask is %s", got)
			}
		}
		dir := s.mount(image)
		check(s.daemon(dir))
		check(s.holder(dir))
		// It can still do what it is for.
		s.ok("stats", dir)
		if err := syscall.Kill(s.daemon(dir), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.clean(dir)
		s.gone(dir)

		f := s.foreground(dir, image, dir)
		if !eventually(soon, func() bool {
			// One thread gives its rights up after the other.
			other := func(got string) bool { return got != privs }
			return statusOf(t, f.cmd.Process.Pid, "CapEff")[0] == fmt.Sprintf("%016x", caps) && !slices.ContainsFunc(statusOf(t, f.cmd.Process.Pid, "NoNewPrivs"), other)
		}) {
			t.Error("the server in the foreground keeps its rights")
		}
		check(f.cmd.Process.Pid)
		s.umount(dir)
		if err := f.wait(t, "umount"); err != nil {
			t.Error(err)
		}

		// The holder is started before the server gives up its own, and is asked when it is
		// up: it has them from the program that it is made of.
		s.ok("mount", "--no-wait", image, dir)
		if !eventually(soon, func() bool { return statusOf(t, s.holder(dir), "Name")[0] == holder.ProcessName }) {
			t.Fatal("the holder does not come up")
		}
		check(s.holder(dir))
		s.umount(dir)
	})
}

// TestServerStartedOddly: a mask of signals, signals that are ignored and a
// mask of files that its parent had do not harm a server.
func TestServerStartedOddly(t *testing.T) {
	needFUSE(t)
	need(t, "bash", "env")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mountpoint()
	sh := s.program("bash", "-c", `umask 0777; trap '' INT QUIT HUP; exec env --block-signal=TERM,INT "$0" mount "$1" "$2"`, imgfsBinary(t), image, dir)
	if r := s.finish(sh); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	s.ok("ls", image) // the cache can be read
	if err := syscall.Kill(s.daemon(dir), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.clean(dir)
	s.gone(dir)
}

// TestWhoMayAskStats: with --allow-other others read files, and learn nothing of
// the user who mounted but whose mount it is.
func TestWhoMayAskStats(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	root, other := newSandbox(t), sandboxOf(t, otherUser(t))
	dir := root.mount(image, "--allow-other")
	root.stats(dir)
	if r := other.finish(other.program("cat", filepath.Join(dir, "etc/os-release"))); r.code != 0 {
		t.Errorf("another user cannot read: %+v", r)
	}
	checkRefusal(t, other.run("stats", dir), cli.ExitFailure, []string{"stats " + dir + ": no permission to ask a mount of root"}, "")
	checkRefusal(t, other.run("umount", dir), cli.ExitFailure, []string{"unmount " + dir + ": another user's mount: root mounted it"}, "only that user and root")
	checkRefusal(t, other.run("umount", "-l", dir), cli.ExitFailure, []string{"another user's mount"}, "only that user and root")
	checkRefusal(t, other.run("mount", image, dir), cli.ExitFailure, []string{"already a mount point", "mounted by root"}, "choose another directory")
	root.umount(dir)
}

// rootIsTold is what a mount of root says.
const rootIsTold = "imgfs: only root can read it; --allow-other lets others in\n"

// TestRootIsTold: FUSE lets nobody in but the user who mounts. Root is warned of that
// once.
func TestRootIsTold(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, c := range []struct {
			flags []string
			want  int
		}{{nil, 1}, {[]string{"--quiet"}, 0}, {[]string{"--allow-other"}, 0}} {
			if who.uid != 0 {
				c.want = 0
			}
			dir := s.mountpoint()
			r := s.run(append(append([]string{"mount"}, c.flags...), image, dir)...)
			if got := strings.Count(r.stdout+r.stderr, rootIsTold); got != c.want {
				t.Errorf("%q: %d times %q in\n%s%s", c.flags, got, rootIsTold, r.stdout, r.stderr)
			}
			if r.code == 0 {
				s.umount(dir)
			}
		}
	})
}

// TestServerEndsWithNamespace: a server in a mount namespace of its own ends
// with the last other process of it.
func TestServerEndsWithNamespace(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for _, unshare := range [][]string{{"unshare", "-Urm"}, {"unshare", "-m"}} {
		t.Run(strings.Join(unshare, " "), func(t *testing.T) {
			if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, out)
			}
			s := newSandbox(t)
			dir := s.mountpoint()
			cmd := s.program(unshare[0], append(unshare[1:], "sh", "-c", `"$0" mount -q "$1" "$2" && cat "$2/etc/os-release" && read _; cat "$2/etc/os-release"`, imgfsBinary(t), image, dir)...)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if !eventually(soon, func() bool {
				return len(serving(dir)) == 1 && !strings.Contains(strings.Join(cmdline(serving(dir)[0]), " "), " -q ")
			}) {
				t.Fatal("there is no server")
			}
			time.Sleep(2 * time.Second) // in which it would have ended
			pid := s.daemon(dir)
			stdin.Close()
			if err := cmd.Wait(); err != nil || out.String() != strings.Repeat("NAME=small\n", 2) {
				t.Errorf("%v, %q", err, out.String())
			}
			s.waitGone(dir)
			if log := readFile(t, filepath.Join(s.cache, "imgfs.log")); !strings.Contains(log, "nobody else is in this mount namespace") {
				t.Errorf("process %d left the log %q", pid, log)
			}
		})
	}
}
