//go:build linux

package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseRanges(t *testing.T) {
	const file = "# a comment\nann:100000:65536\nbob:1:1\n1000:200000:10\nann:x:1\nann:5\nann:1:0\nann:4294967295:4294967295\n"
	got := parseRanges(strings.NewReader(file), []string{"1000", "ann"})
	want := []specs.LinuxIDMapping{{ContainerID: 1, HostID: 100000, Size: 65536}, {ContainerID: 65537, HostID: 200000, Size: 10}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseRanges(strings.NewReader(strings.Repeat("ann:1:1\n", 2*maxRanges)), []string{"1000", "ann"}); len(got) != maxRanges {
		t.Errorf("got %d ranges, want %d", len(got), maxRanges)
	}
}

func TestOwners(t *testing.T) {
	u := &Users{UIDs: []specs.LinuxIDMapping{{HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 10}}, GIDs: mapping(7)}
	for in, want := range map[[2]uint32][2]uint32{{0, 0}: {1000, 7}, {1, 1}: {100000, 65534}, {10, 0}: {100009, 7}, {11, 0}: {65534, 7}} {
		uid, gid := u.owners()(in[0], in[1])
		if got := [2]uint32{uid, gid}; got != want {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}

func TestRuntimeFailure(t *testing.T) {
	for said, code := range map[string]int{
		`exec: "x": executable file not found in $PATH`:                     ExitNotFound,
		"executable file `x` not found in $PATH: No such file or directory": ExitNotFound,
		"exec /x: permission denied":                                        ExitNotInvoke,
		"exec /x: exec format error":                                        ExitNotInvoke,
		"mount proc: Operation not permitted\nmore":                         ExitFailed,
		"": ExitFailed,
	} {
		f := runtimeFailure(Runc, said)
		if f.Code != code || strings.Contains(f.Text, "\n") || !strings.HasPrefix(f.Text, "runc") {
			t.Errorf("%q: got %+v, want code %d", said, f, code)
		}
	}
}

// TestRuntimeFailureWords: runtimes say why they have not executed a command in forms of
// their own.
func TestRuntimeFailureWords(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		said string
		text string
		code int
	}{
		{Crun, `{"msg":"exec container process ` + "`/run`" + `: Exec format error","level":"error","time":"2026"}` + "\n", "crun: exec container process `/run`: Exec format error", ExitNotInvoke},
		{Crun, `{"msg":"exec container process ` + "`/run`" + `: Argument list too long","level":"error"}`, "crun: exec container process `/run`: Argument list too long", ExitNotInvoke},
		{Crun, "\x1b[1;31m{\"msg\":\"chdir `/x`: Not a directory\"}\x1b[0m\r\n", "crun: chdir `/x`: Not a directory", ExitFailed},
		{Runc, "exec /run: too many levels of symbolic links\n", "runc: exec /run: too many levels of symbolic links", ExitNotInvoke},
		{Bwrap, "bwrap: execvp /run: No such file or directory\n", "bwrap: execvp /run: No such file or directory", ExitNotFound},
		{Bwrap, "bwrap: Can't chdir to /x: Not a directory\n", "bwrap: Can't chdir to /x: Not a directory", ExitFailed},
		{Bwrap, "", "bwrap has not executed the command, and says nothing", ExitFailed},
	} {
		if f := runtimeFailure(c.kind, c.said); f.Text != c.text || f.Code != c.code {
			t.Errorf("%q: got %+v, want code %d, %s", c.said, f, c.code, c.text)
		}
	}
}

// TestHasExecuted looks at processes that have ended, and at this one.
func TestHasExecuted(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	if e := waitFor(cmd.Process.Pid); e != (ending{executed: true}) {
		t.Errorf("true ended as %+v", e)
	}
	if !hasExecuted(os.Getpid()) || hasExecuted(1<<30) {
		t.Errorf("this process: %v; one that is not there: %v", hasExecuted(os.Getpid()), hasExecuted(1<<30))
	}
}

func TestHasSignal(t *testing.T) {
	const status = "Name:\tSigCgt:\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000004\nSigCgt:\t0000000000004002\n"
	for _, test := range []struct {
		set  string
		sig  syscall.Signal
		want bool
	}{{"SigCgt:", syscall.SIGTERM, true}, {"SigCgt:", syscall.SIGINT, true}, {"SigCgt:", syscall.SIGHUP, false}, {"SigIgn:", syscall.SIGQUIT, true}, {"SigBlk:", syscall.SIGTERM, false}} {
		if got := hasSignal(status, test.set, test.sig); got != test.want {
			t.Errorf("%s %v: got %v", test.set, test.sig, got)
		}
	}
}

func TestKindOf(t *testing.T) {
	for base, want := range map[string]Kind{"runc": Runc, "crun": Crun, "bwrap": Bwrap, "runc.real": Runc, "kata": "", "": ""} {
		if got, ok := kindOf(base); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v", base, got, ok)
		}
	}
}

// TestDirectory: what runs that were killed have left is swept, and what others hold or
// own is not.
func TestDirectory(t *testing.T) {
	place := t.TempDir()
	held, err := makeDirectory(place, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	dead, err := makeDirectory(place, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	foreign := filepath.Join(place, "imgfs-run-other")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	sweep(place, os.RemoveAll)
	for path, want := range map[string]bool{held.path: true, dead.path: false, foreign: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: got %v, want it there: %v", path, err, want)
		}
	}
	if info, err := os.Lstat(held.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, error %v", info.Mode(), err)
	}
	if err := held.remove(os.RemoveAll); err != nil {
		t.Error(err)
	}
}

// TestMakeDirectories: links of an image lead to places in the container.
func TestMakeDirectories(t *testing.T) {
	top := t.TempDir()
	root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
	for _, dir := range []string{filepath.Join(root, "in"), outside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"abs": "/in", "up": "../../../in", "out": outside} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	v := &supervisorState{setup: &setup{}}
	for _, name := range []string{"/new/a/b", "/abs/c", "/up/../d", "up/e"} {
		v.setup.Made = append(v.setup.Made, madeDirectory{name, os.Geteuid(), os.Getegid()})
	}
	if err := v.makeDirectories(root); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new/a/b", "in/c", "d", "in/e"} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.setup.Made = []madeDirectory{{"/out/x", os.Geteuid(), os.Getegid()}}
	if err := v.makeDirectories(root); err == nil {
		t.Error("a link out of the container was followed")
	}
	if names, _ := os.ReadDir(outside); len(names) > 0 {
		t.Errorf("outside of the container there is %v", names)
	}
}

func TestBwrapArgs(t *testing.T) {
	spec := &specs.Spec{
		Hostname: "h", Root: &specs.Root{Readonly: true},
		Process: &specs.Process{Cwd: "/w", Args: []string{"sh", "-c"}, Env: []string{"A=b=c"}, User: specs.User{UID: 5, GID: 6}, Capabilities: &specs.LinuxCapabilities{}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/m", Type: "bind", Source: "/s", Options: []string{"ro"}}, {Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nodev", "mode=1777"}}},
		Linux:   &specs.Linux{ReadonlyPaths: []string{"/proc/sys", "/no/such"}, Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}},
	}
	got := strings.Join(bwrapArgs(spec, "/root"), " ")
	want := "--unshare-ipc --unshare-uts --hostname h --clearenv --chdir /w --json-status-fd 3 --seccomp 4 --unshare-pid --as-pid-1 --new-session --unshare-net --unshare-user --uid 5 --gid 6 --setenv A b=c --ro-bind /root / --proc /proc --ro-bind /s /m --perms 1777 --tmpfs /dev/shm --ro-bind /proc/sys /proc/sys -- sh -c"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestMessages: a message and its file come out as they went in, and the end of one side is
// told.
func TestMessages(t *testing.T) {
	ours, end, err := newLine()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(end.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	theirs := &line{fd: fd}
	code := 7
	want := message{Exited: &code, Warning: "x\n\x00"}
	if err := ours.send(want, os.Stdin); err != nil {
		t.Fatal(err)
	}
	got, file, err := theirs.receive()
	if err != nil || !reflect.DeepEqual(got, want) || file == nil {
		t.Errorf("got %+v, file %v, error %v", got, file, err)
	}
	file.Close()
	ours.close()
	if _, _, err := theirs.receive(); err == nil {
		t.Error("the end is not told")
	}
	theirs.close()
}

// TestRemoveAll: a tree that is deeper than there are descriptors, with closed directories.
func TestRemoveAll(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	if err := os.MkdirAll(filepath.Join(top, "a", "b", "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	if err := raise(file, "a", &next); err != nil {
		t.Error(err)
	}
	if names, err := namesIn(file); err != nil || len(names) != 1 || names[0] != ".raised-1" {
		t.Errorf("got %q, error %v", names, err)
	}
	file.Close()
	if err := removeAll(top); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(top); err == nil {
		t.Error("it is there")
	}
}
