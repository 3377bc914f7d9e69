//go:build linux

package overlayfs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A kernelMount is what the kernel is told of an overlay. Directories are descriptors, so
// that neither what their names contain matters, nor what has these names by then.
type kernelMount struct {
	lower, upper, work int
	lowerName          string
	words              map[string]string
	flags              []string
	options            *Options
}

// mount mounts on a directory. Kernels before Linux 6.13 take no descriptors of
// directories, but paths to descriptors.
func (k *kernelMount) mount(dir string) error {
	if !k.options.oldAPI {
		err := k.mountByDescriptors(dir)
		if !errors.Is(err, errOldKernel) {
			return err
		}
	}
	return k.mountByPaths(dir)
}

// errOldKernel: this kernel has to be told in another way.
var errOldKernel = errors.New("it takes no descriptors")

func (k *kernelMount) mountByDescriptors(dir string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return errOldKernel
	}
	defer unix.Close(fs)
	for _, part := range []struct {
		key string
		fd  int
	}{{"lowerdir+", k.lower}, {"upperdir", k.upper}, {"workdir", k.work}} {
		if err := unix.FsconfigSetFd(fs, part.key, part.fd); errors.Is(err, unix.EINVAL) && k.isUnknown(fs) {
			return errOldKernel
		} else if err != nil {
			return k.explain(part.key, err, fs)
		}
	}
	if err := unix.FsconfigSetString(fs, "source", k.source()); err != nil {
		return k.explain("source", err, fs)
	}
	for _, key := range slices.Sorted(maps.Keys(k.words)) {
		if err := unix.FsconfigSetString(fs, key, k.words[key]); err != nil {
			return k.explain(key, err, fs)
		}
	}
	for _, key := range k.flags {
		if err := unix.FsconfigSetFlag(fs, key); err != nil {
			return k.explain(key, err, fs)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return k.explain("mount", err, fs)
	}
	attrs := 0
	for attr, on := range map[int]bool{unix.MOUNT_ATTR_NOSUID: k.options.NoSuid, unix.MOUNT_ATTR_NODEV: k.options.NoDev, unix.MOUNT_ATTR_NOEXEC: k.options.NoExec} {
		if on {
			attrs |= attr
		}
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return k.explain("mount", err, fs)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// maxSource is how long a word for the kernel may be, in bytes.
const maxSource = 255

func (k *kernelMount) source() string {
	s := k.options.source()
	return s[:min(len(s), maxSource)]
}

// isUnknown reports whether the kernel has said that it knows an option in another form
// only.
func (k *kernelMount) isUnknown(fs int) bool {
	said := kernelSays(fs)
	return said == "" || strings.Contains(said, "Unknown parameter") || strings.Contains(said, "Bad value") || strings.Contains(said, "not a string")
}

// kernelSays returns the last thing that the kernel has to say about a mount.
func kernelSays(fs int) (last string) {
	for line := make([]byte, 1024); ; {
		n, err := unix.Read(fs, line)
		if err != nil || n <= 0 {
			return last
		}
		last = strings.TrimSpace(strings.TrimPrefix(string(line[:n]), "e overlay: "))
	}
}

// hintLog is for what the kernel says to its log alone, such as that too many file systems
// lie over each other.
const hintLog = "the end of dmesg says why"

func (k *kernelMount) explain(what string, err error, fs int) error {
	if said := kernelSays(fs); said != "" {
		return fmt.Errorf("the kernel's overlayfs: %w: %s", err, said)
	}
	return hinted{fmt.Errorf("the kernel's overlayfs: %s: %w", what, err), hintLog}
}

// mountByPaths uses mount(2). The path of the lower directory is one that others can
// find in the mount table.
func (k *kernelMount) mountByPaths(dir string) error {
	words := []string{
		"lowerdir=" + quoteLower(k.lowerName),
		fmt.Sprintf("upperdir=/proc/self/fd/%d", k.upper),
		fmt.Sprintf("workdir=/proc/self/fd/%d", k.work),
	}
	for _, key := range slices.Sorted(maps.Keys(k.words)) {
		words = append(words, key+"="+k.words[key])
	}
	data := strings.Join(append(words, k.flags...), ",")
	if len(data) >= unix.Getpagesize() {
		words[0] = fmt.Sprintf("lowerdir=/proc/self/fd/%d", k.lower)
		data = strings.Join(append(words, k.flags...), ",")
	}
	var flags uintptr
	for flag, on := range map[uintptr]bool{unix.MS_NOSUID: k.options.NoSuid, unix.MS_NODEV: k.options.NoDev, unix.MS_NOEXEC: k.options.NoExec} {
		if on {
			flags |= flag
		}
	}
	if err := unix.Mount(k.source(), dir, "overlay", flags, data); err != nil {
		return hinted{fmt.Errorf("the kernel's overlayfs: %w", err), hintLog}
	}
	return nil
}

// quoteLower protects a path in lowerdir= from the parser of the kernel.
func quoteLower(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}
