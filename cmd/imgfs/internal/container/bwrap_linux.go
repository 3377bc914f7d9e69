package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/remote/printable"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bwrap reads no bundle: what it can do of a spec it is told by arguments. It has no
// filter of system calls for the container but one for keyrings, sets no_new_privs, so that
// setuid programs have no effect, and gives another user than root a user namespace in
// which all others are nobody.

// beginBwrap has bwrap start the container.
func (v *supervisorState) beginBwrap() (*process, error) {
	spec, err := readSpec(filepath.Join(v.setup.Dir, "config.json"))
	if err != nil {
		return nil, err
	}
	root := filepath.Join(v.setup.Dir, rootPart)
	if err := v.prepareMounts(root, spec.Mounts); err != nil {
		return nil, err
	}
	if err := checkWorkdir(root, spec); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := v.command(v.setup.Runtime.Path, bwrapArgs(spec, root)...)
	filter, err := keyringPipe()
	if err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	defer filter.Close()
	cmd.ExtraFiles = []*os.File{w, filter} // statusFD, filterFD
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	u := spec.Process.User
	if u.UID != 0 {
		// On the way to the root: what is in the directory has modes of its own.
		if err := os.Chmod(v.setup.Dir, 0o711); err != nil {
			return nil, errors.Join(err, r.Close(), w.Close())
		}
	}
	if u.UID != 0 || u.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.AdditionalGids, NoSetGroups: v.setup.Plain && len(u.AdditionalGids) == 0}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if spec.Process.Terminal {
		terminal, err := v.openTerminal()
		if err != nil {
			return nil, err
		}
		defer terminal.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		if ownsProcesses(spec) {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		}
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", v.setup.Runtime.Path, err)
	}
	status := json.NewDecoder(r)
	child, err := v.childOfBwrap(cmd, status, ownsProcesses(spec))
	if err != nil {
		r.Close()
		return nil, err
	}
	p := &process{pid: child, ended: make(chan ending, 1)}
	go func() {
		defer r.Close()
		p.ended <- waitForBwrap(cmd, status, child)
	}()
	return p, nil
}

// ownsProcesses reports whether bwrap is started as process 1 of the container, and does
// not make one: shells want to find the process group that had the terminal before them,
// and bwrap is not to be ended by Ctrl-C. bwrap could not show the processes to another
// user than root then. And it looks for its child in /proc under the number that its own
// namespace has for it, 2: a thread of the supervisor will do.
func ownsProcesses(spec *specs.Spec) bool {
	return spec.Process.Terminal && spec.Process.User.UID == 0 && hasThread2()
}

// hasThread2 reports whether the supervisor has a thread 2. One that was executed again, to
// have users, has none of the first ones, so it makes one where the kernel lets it.
func hasThread2() bool {
	there := func() bool { _, err := os.Stat("/proc/2/ns"); return err == nil }
	for range maxTries {
		if there() {
			return true
		}
		if os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("1"), 0) != nil {
			return false
		}
		begun := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(begun)
			select {} // the thread is nobody else's, so that another one is made
		}()
		<-begun
	}
	return there()
}

// A bwrapStatus is what bwrap says on statusFD: the child first, and at the end the exit
// code, if the child has executed the command.
type bwrapStatus struct {
	Child int  `json:"child-pid"`
	Code  *int `json:"exit-code"`
}

// childOfBwrap returns the first process of the container. Where bwrap is process 1 of the
// container's namespace, it does not know how this one counts its child.
func (v *supervisorState) childOfBwrap(cmd *exec.Cmd, status *json.Decoder, owns bool) (int, error) {
	var said bwrapStatus
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = status.Decode(&said) // without it there is no child
	}()
	if err := v.watch(cmd.Process, done); err != nil {
		return 0, err
	}
	if owns && said.Child != 0 {
		said.Child, _ = onlyChild(cmd.Process.Pid) // else it has ended
	}
	if said.Child < 2 {
		err := v.awaitEnd(cmd)
		var failed *Failure
		if errors.As(err, &failed) || errors.Is(err, errGone) {
			return 0, err
		}
		return 0, &Failure{Code: ExitFailed} // bwrap has said why
	}
	return said.Child, nil
}

// onlyChild returns the child of a process.
func onlyChild(pid int) (child int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		_, err = fmt.Sscan(string(text), &child)
	}
	return child, err
}

// statusFD is where bwrap says which process it has started, and how that has ended.
const statusFD = "3"

// filterFD is where bwrap reads the filter of system calls.
const filterFD = "4"

// waitForBwrap returns how the container has ended, as bwrap says it. If a signal that was
// meant for both, as of a terminal, has ended bwrap alone, the container is this process's
// child.
func waitForBwrap(cmd *exec.Cmd, status *json.Decoder, child int) ending {
	var said bwrapStatus
	failed := status.Decode(&said)
	err := cmd.Wait()
	var how *exec.ExitError
	switch {
	case errors.As(err, &how) && !how.Exited():
		return waitFor(child)
	case failed != nil || said.Code == nil:
		return ending{code: cmd.ProcessState.ExitCode()}
	}
	return ending{code: *said.Code, executed: true}
}

func readSpec(name string) (*specs.Spec, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	return spec, json.Unmarshal(text, spec)
}

// prepareMounts makes the directories that are mounted on. bwrap would follow links of the
// image out of it: there must be none.
func (v *supervisorState) prepareMounts(root string, mounts []specs.Mount) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, m := range mounts {
		at := strings.TrimPrefix(path.Clean(m.Destination), "/")
		there, err := unix.Openat2(fd, at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		switch {
		case err == nil:
			var st unix.Stat_t
			err = unix.Fstat(there, &st)
			unix.Close(there)
			if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; err == nil && isDir != isDirectory(m.Source, m.Type) {
				return &Failure{Text: fmt.Sprintf("in the image %s is not what can be mounted on: a directory is for directories, and a file for files", printable.Name(m.Destination)), Code: ExitFailed}
			}
		case errors.Is(err, unix.ENOENT) && isBelowAny(m.Destination, mounts):
		case errors.Is(err, unix.ENOENT):
			err = makePlace(fd, m)
			if err != nil {
				return fmt.Errorf("making %s in the container: %w", m.Destination, err)
			}
		case errors.Is(err, unix.ELOOP):
			return &Failure{Text: fmt.Sprintf("in the image %s leads through a symlink, on which bwrap cannot mount", m.Destination), Code: ExitFailed, Hint: "install crun or runc"}
		}
	}
	return nil
}

// makePlace makes what a mount can be put on. In a root that the container cannot write to
// bwrap could make none.
func makePlace(root int, m specs.Mount) error {
	if isDirectory(m.Source, m.Type) {
		return madeDirectory{Path: m.Destination}.makeBelow(root)
	}
	dir, name := path.Split(path.Clean(m.Destination))
	if err := (madeDirectory{Path: dir}).makeBelow(root); err != nil {
		return err
	}
	parent, err := openBelow(root, strings.TrimPrefix(path.Join(".", dir), "/"))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// checkWorkdir refuses a working directory that is not there, of which bwrap would tell the
// container's standard error alone.
func checkWorkdir(root string, spec *specs.Spec) error {
	cwd := spec.Process.Cwd
	if isBelowAny(cwd+"/", spec.Mounts) {
		return nil
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	there, err := unix.Openat2(fd, cwd, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return &Failure{Text: fmt.Sprintf("working directory %s: %v in the image", printable.Name(cwd), err), Code: ExitFailed, Hint: "-w DIR, one that is there"}
	}
	unix.Close(there)
	return nil
}

// isBelowAny reports whether a path is in what is mounted.
func isBelowAny(name string, mounts []specs.Mount) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool { return strings.HasPrefix(name, m.Destination+"/") })
}

func isDirectory(source, kind string) bool {
	info, err := os.Stat(source)
	return kind != "bind" || err == nil && info.IsDir()
}

// bwrapArgs returns the arguments of bwrap for a spec. root is where its root is.
func bwrapArgs(spec *specs.Spec, root string) []string {
	p := spec.Process
	args := []string{"--unshare-ipc", "--unshare-uts", "--hostname", spec.Hostname, "--clearenv", "--chdir", p.Cwd, "--json-status-fd", statusFD, "--seccomp", filterFD}
	if !ownsProcesses(spec) {
		args = append(args, "--unshare-pid", "--as-pid-1")
	}
	if !p.Terminal {
		args = append(args, "--new-session")
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			args = append(args, "--unshare-net")
		}
	}
	if p.User.UID == 0 {
		args = append(args, "--cap-drop", "ALL")
		for _, name := range p.Capabilities.Bounding {
			args = append(args, "--cap-add", name)
		}
	} else {
		args = append(args, "--unshare-user", "--uid", fmt.Sprint(p.User.UID), "--gid", fmt.Sprint(p.User.GID))
	}
	for _, v := range p.Env {
		name, value, _ := strings.Cut(v, "=")
		args = append(args, "--setenv", name, value)
	}
	if spec.Root.Readonly {
		args = append(args, "--ro-bind", root, "/")
	} else {
		args = append(args, "--bind", root, "/")
	}
	for _, m := range spec.Mounts {
		args = append(args, bwrapMount(m)...)
	}
	for _, name := range spec.Linux.MaskedPaths {
		args = append(args, bwrapMask(name)...)
	}
	for _, name := range spec.Linux.ReadonlyPaths {
		if _, err := os.Stat(name); err == nil {
			args = append(args, "--ro-bind", name, name)
		}
	}
	return append(append(args, "--"), p.Args...)
}

// bwrapMount returns the arguments for a mount. /dev/pts bwrap makes with /dev, and /dev/shm
// as a directory that is root's alone.
func bwrapMount(m specs.Mount) []string {
	switch {
	case m.Destination == "/dev":
		return []string{"--dev", "/dev"}
	case m.Destination == "/dev/pts", m.Type == "cgroup":
		return nil
	case m.Type == "proc":
		return []string{"--proc", m.Destination}
	case m.Type == "sysfs", m.Destination == "/sys":
		return []string{"--ro-bind", "/sys", m.Destination}
	case m.Type == "mqueue":
		return []string{"--mqueue", m.Destination}
	case m.Type == "tmpfs":
		args := []string{"--tmpfs", m.Destination}
		for _, option := range m.Options {
			if mode, ok := strings.CutPrefix(option, "mode="); ok {
				args = append([]string{"--perms", mode}, args...)
			}
		}
		return args
	case slices.Contains(m.Options, "ro"):
		return []string{"--ro-bind", m.Source, m.Destination}
	}
	return []string{"--bind", m.Source, m.Destination}
}

// bwrapMask hides a file or directory, if this machine has it.
func bwrapMask(name string) []string {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil
	case info.IsDir():
		return []string{"--tmpfs", name, "--remount-ro", name}
	}
	return []string{"--ro-bind", "/dev/null", name}
}

// openTerminal makes a terminal for the container, and passes its other side on to the
// command.
func (v *supervisorState) openTerminal() (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("a terminal for the container: %w", err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("a terminal for the container: %w", err)
	}
	if v.line.send(message{Console: true}, master) != nil {
		return nil, errGone
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
}
