package bundle

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// A Network says which network a container has.
type Network int

const (
	// NetworkNone: a network of its own, with nothing in it but the loopback device.
	NetworkNone Network = iota
	// NetworkHost: that of the machine.
	NetworkHost
)

// Options are the choices of Spec. The zero value runs what the image says, as the user
// that the image says, on a root file system that can be written, as root of the machine.
type Options struct {
	// Args stands in the place of the image's Cmd. Default: Cmd.
	Args []string
	// Entrypoint stands in the place of the image's Entrypoint, and the image's Cmd is not
	// used then. Default, if nil: the image's. A slice that is empty, or has one empty
	// string, is no entrypoint.
	Entrypoint []string
	// Env are variables as NAME=VALUE that replace the image's. Default: none.
	Env []string
	// User is a user as docker takes it, NAME or UID, and after a colon a group. Default:
	// the image's, or root.
	User string
	// Workdir is an absolute path, and has to be there. Default: the image's, or /.
	Workdir string
	// Hostname is the name of the container. Default: imgfs.
	Hostname string
	// Terminal says that the runtime gives the command a terminal.
	Terminal bool
	// ReadOnly says that the container cannot write to its root file system.
	ReadOnly bool
	// Bare says that nobody can: Rootfs is the image's mount and nothing above it. ReadOnly
	// follows. Directories that the runtime mounts on must be in the image, and so must
	// the working directory.
	Bare bool
	// Added are directories that a bare Rootfs has besides what the tree has, as those that
	// Missing returns. Default: none.
	Added []string
	// Changed says that Rootfs may have other files than the tree: programs are not looked
	// for.
	Changed bool
	// Network is the container's network. Default: NetworkNone.
	Network Network
	// Rootless says that the runtime is started by a plain user: the container has a user
	// namespace of its own, with UIDs and GIDs.
	Rootless bool
	// Nested says, with Rootless, that the runtime is started as root of a user namespace
	// that has UIDs and GIDs: none is made.
	Nested bool
	// UIDs and GIDs are the ids that a rootless container has. Default: 0 alone, which is
	// the user who calls Spec.
	UIDs, GIDs []specs.LinuxIDMapping
	// Capabilities are those that root has in the container. Default, if nil:
	// DefaultCapabilities.
	Capabilities []string
	// Rootfs is the path of the root file system, from the bundle's directory on or
	// absolute. Default: rootfs.
	Rootfs string
	// Binds are mounts beside those that all containers have. Default: none.
	Binds []specs.Mount
	// Warn is told, a sentence each, of what is not as asked and does little harm. Default:
	// nobody is.
	Warn func(string)
}

func (o *Options) warn(text string) {
	if o.Warn != nil {
		o.Warn(text)
	}
}

// rootfs returns the path that Root.Path has.
func (o *Options) rootfs() string {
	if o.Rootfs == "" {
		return "rootfs"
	}
	return o.Rootfs
}

func (o *Options) hostname() string {
	if o.Hostname == "" {
		return "imgfs"
	}
	return o.Hostname
}
