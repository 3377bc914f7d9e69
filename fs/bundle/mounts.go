package bundle

import (
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ttyGroup is the group of terminals, in all distributions.
const ttyGroup = 5

// hostFiles are the machine's files that a container on its network has.
var hostFiles = []string{"/etc/resolv.conf", "/etc/hosts"}

// defaultMounts are the mounts of every container: those of runtime-spec's config-linux.md,
// "Default Filesystems", and what runc and podman have beside them.
func defaultMounts(o *Options) []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if _, gids := o.mappings(); !o.Rootless || mapped(gids, ttyGroup) {
		pts = append(pts, "gid=5")
	}
	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}}
	if o.Rootless && o.Network == NetworkHost { // sysfs wants a network of one's own
		sys = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sys,
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// mounts returns all mounts of the container. Where the root file system is bare it
// refuses those that have no place in the image.
func mounts(tree *fs.Tree, o *Options) ([]specs.Mount, error) {
	list := defaultMounts(o)
	if err := checkNoLinks(tree, list); err != nil {
		return nil, err
	}
	if o.Network == NetworkHost {
		for _, name := range hostFiles {
			m := specs.Mount{Destination: name, Type: "bind", Source: name, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}}
			if overridden(name, o.Binds) {
				continue
			}
			if o.Bare && !hasPlace(tree, m) {
				o.warn("the image has no file " + name + ": the machine's is not in the container")
				continue
			}
			list = append(list, m)
		}
	}
	list = append(list, o.Binds...)
	if !o.Bare {
		return list, nil
	}
	for i, m := range list {
		if !onMount(m.Destination, list[:i]) && !slices.Contains(o.Added, m.Destination) && !hasPlace(tree, m) {
			return nil, refuse(NoMountpoint, "the image has no place for a mount on %s, and nobody can write to its own mount", printable.Name(m.Destination))
		}
	}
	return list, nil
}

// checkNoLinks refuses an image with a symlink where the mounts of every container are. runc
// mounts where such a link leads in the image, and then makes links like /dev/stdin by their
// names, while its root is the machine's: where it leads on the machine.
func checkNoLinks(tree *fs.Tree, list []specs.Mount) error {
	for i, m := range list {
		if onMount(m.Destination, list[:i]) {
			continue
		}
		if n, err := tree.Lookup(m.Destination, false); err == nil && isLink(n) {
			return refuse(NoMountpoint, "in the image %s is a symlink, and is to be a directory to mount on", m.Destination)
		}
	}
	return nil
}

func overridden(name string, binds []specs.Mount) bool {
	for _, m := range binds {
		if path.Clean(m.Destination) == name {
			return true
		}
	}
	return false
}

// onMount reports whether a path lies in what is mounted before it.
func onMount(name string, before []specs.Mount) bool {
	for _, m := range before {
		if below(name, m.Destination) {
			return true
		}
	}
	return false
}

// hasPlace reports whether the tree has what something can be mounted on: a file for a
// bind of a file, of which only hostFiles are known, and a directory for all else.
func hasPlace(tree *fs.Tree, m specs.Mount) bool {
	n, err := tree.Lookup(m.Destination, true)
	switch {
	case err != nil:
		return false
	case m.Type != "bind":
		return isDir(n)
	case strings.HasPrefix(m.Source, "/etc/") && overridden(m.Source, []specs.Mount{m}):
		return !isDir(n)
	}
	return true
}
