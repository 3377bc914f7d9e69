package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/overlayfs"
	"golang.org/x/sys/unix"
)

// awaitUsers waits until the user namespace has users, and has the supervisor executed
// again: a process that root of a namespace executes has all rights there.
func awaitUsers(l *line) error {
	if m, _, err := l.receive(); err != nil || !m.Given {
		return errGone
	}
	return unix.Exec("/proc/self/exe", os.Args, []string{"PATH=" + os.Getenv("PATH")})
}

// prepare makes the namespace one for a container: what happens in it stays in it, /proc
// shows its processes, and nobody can make cgroups.
func (v *supervisorState) prepare() error {
	unix.Umask(0o022)
	// What is unmounted outside is to be unmounted here, and nothing the other way. What
	// is lent is unmounted outside, and is to stay.
	how := uintptr(unix.MS_SLAVE)
	if v.setup.Lent {
		how = unix.MS_PRIVATE
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|how, ""); err != nil {
		return fmt.Errorf("a mount namespace of its own: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return &Failure{Text: fmt.Sprintf("/proc cannot be mounted for the container: %v", err), Code: ExitFailed,
			Hint: "parts of /proc are hidden here, as in a container: start that with --privileged or --security-opt systempaths=unconfined"}
	}
	v.hideCgroups()
	return v.mount("tmpfs", filepath.Join(v.setup.Dir, statePart), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=16m")
}

func (v *supervisorState) mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s: %w", kind, err)
	}
	v.mounted = append(v.mounted, target)
	return nil
}

// hideCgroups makes cgroups read-only in this namespace: runtimes then run the container
// in the cgroup of the command, and no other is left behind. crun gives up where there
// are both versions of cgroups, so one of them is hidden.
func (v *supervisorState) hideCgroups() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		if len(f) < 5 || f[4] != cgroupDir && !strings.HasPrefix(f[4], cgroupDir+"/") {
			continue
		}
		var st unix.Statfs_t
		if unix.Statfs(f[4], &st) == nil {
			// Where it cannot be made read-only, the runtime finds no rights either.
			_ = unix.Mount("", f[4], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|mountFlags(st.Flags), "")
		}
	}
	var top, both unix.Statfs_t
	const unified = cgroupDir + "/unified"
	if unix.Statfs(cgroupDir, &top) == nil && top.Type != unix.CGROUP2_SUPER_MAGIC && unix.Statfs(unified, &both) == nil && both.Type == unix.CGROUP2_SUPER_MAGIC {
		_ = unix.Mount("tmpfs", unified, "tmpfs", unix.MS_RDONLY, "size=4k") // else crun says what it does not like
	}
}

const cgroupDir = "/sys/fs/cgroup"

// mountFlags returns the flags of mount(2) for those of statfs(2): a user namespace may not
// take any away.
func mountFlags(st int64) uintptr {
	flags := uintptr(st) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	const relatime = 0x1000 // ST_RELATIME
	if st&relatime != 0 {
		flags |= unix.MS_RELATIME
	}
	return flags
}

// mountRoot mounts the container's root: an overlay on the tree. The root of a container
// that may not write to it is one too, as the image need not have what is mounted on there;
// the runtime makes it read-only in the end.
func (v *supervisorState) mountRoot() error {
	root, lower := filepath.Join(v.setup.Dir, rootPart), filepath.Join(v.setup.Dir, lowerPart)
	if v.setup.Lent {
		if v.line.send(message{Taken: true}, nil) != nil {
			return errGone
		}
	} else if err := v.mountTree(lower); err != nil {
		return err
	}
	if err := v.mountOverlay(lower, root); err != nil {
		return err
	}
	err := v.makeDirectories(root)
	if errors.Is(err, unix.EROFS) && v.setup.ReadOnly {
		return nil // the runtime says what it lacks
	}
	return err
}

// mountTree mounts the tree, and returns when the command serves it.
func (v *supervisorState) mountTree(dir string) error {
	opts := &fusefs.Options{Name: v.setup.Name, AllowOther: true, Suid: true}
	ctx := context.Background()
	target, err := fusefs.Check(ctx, dir, opts)
	if err != nil {
		return err
	}
	defer target.Close()
	apart, err := target.AttachApart(ctx, opts)
	if err != nil {
		return err
	}
	v.mounted = append(v.mounted, dir)
	if apart.Proc != nil {
		err = v.line.send(message{Proc: true}, apart.Proc)
	}
	if err == nil {
		err = v.line.send(message{Device: apart.Number}, apart.Device)
	}
	apart.Close() // so that the command's end is the end of the connection
	if err != nil {
		return errGone
	}
	return v.await(v.serving)
}

// await waits for something, unless the command is gone or a signal asks it to end.
func (v *supervisorState) await(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		case sig, ok := <-v.signals:
			if !ok {
				return errGone
			}
			if isEnding(sig) {
				return interrupted(sig)
			}
		}
	}
}

// mountOverlay mounts an overlay: the kernel's, or else that of fuse-overlayfs. Where the
// disk cannot take what is written, as in a container whose own root is an overlay, memory
// does.
func (v *supervisorState) mountOverlay(lower, root string) error {
	written := filepath.Join(v.setup.Dir, writtenPart)
	disk := v.overlay(lower, written, root, overlayfs.Kernel)
	if disk == nil {
		return nil
	}
	memory := filepath.Join(v.setup.Dir, memoryPart)
	if v.mount("tmpfs", memory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700") == nil && v.overlay(lower, memory, root, overlayfs.Kernel) == nil {
		if v.setup.ReadOnly {
			return nil
		}
		return v.warn("what the container writes is kept in memory: %v", disk)
	}
	if v.overlay(lower, written, root, overlayfs.Fuse) == nil {
		return nil
	}
	if v.setup.ReadOnly && unix.Mount(lower, root, "", unix.MS_BIND, "") == nil { // it may have all that is needed
		v.mounted = append(v.mounted, root)
		return nil
	}
	return &Failure{Text: fmt.Sprintf("the container has nowhere to write: %v", disk), Code: ExitFailed, Hint: "imgfs run --read-only ..., or TMPDIR=DIR imgfs run ..., on a disk"}
}

// overlay mounts an overlay that writes to a directory.
func (v *supervisorState) overlay(lower, written, root string, kind overlayfs.Kind) error {
	ctx := context.Background()
	upper, err := overlayfs.Open(ctx, written)
	if err != nil {
		return err
	}
	// It is open as long as the process.
	if _, err := upper.Mount(ctx, lower, root, &overlayfs.Options{Source: "imgfs", Kind: kind, NoDev: true, AllowOther: true}); err != nil {
		upper.Close()
		return err
	}
	v.mounted = append(v.mounted, root)
	return nil
}

// warn has the command print a message.
func (v *supervisorState) warn(format string, args ...any) error {
	if v.line.send(message{Warning: fmt.Sprintf(format, args...)}, nil) != nil {
		return errGone
	}
	return nil
}
