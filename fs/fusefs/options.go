package fusefs

import (
	"time"

	"github.com/imgfs/imgfs/fs"
)

// Options say how to mount. The zero value is a private mount without setuid
// bits and device nodes.
type Options struct {
	// Name is what /proc/mounts shows as the device: the image. Default
	// "imgfs".
	Name string
	// AllowOther lets users other than the mounting one use the files. Ordinary
	// users may set it only if /etc/fuse.conf allows that.
	AllowOther bool
	// Suid lets setuid bits and file capabilities take effect, Dev device
	// nodes. Both are for root only.
	Suid, Dev bool
	// DeadDevices shows device nodes with a number that no driver has, so that they cannot be
	// opened whatever becomes of the flag nodev in copies of the mount.
	DeadDevices bool
	// NoExec keeps programs of the image from being started.
	NoExec bool
	// Provenance lists the extended attributes that say where the content of a
	// regular file comes from: "user.imgfs.layer", the layer's digest,
	// "user.imgfs.digest", the SHA-256 of the content if the layer's index has
	// it, and "user.imgfs.offset", where in the uncompressed layer it begins.
	// Without it they can be read by name, but are not listed, so that copies of
	// the tree do not carry them along.
	Provenance bool
	// Control, if not nil, gives the root's extended attributes that are about
	// the mount and not the image. Only root and the user who mounts get them; for
	// others there are none. It is called for every name that begins with
	// "user.imgfs.", such as "user.imgfs.stats", from several goroutines at
	// once, and twice if a program asks for the length first. Values have at
	// most 64 KiB. They are not listed.
	Control func(name string) (value []byte, ok bool)
	// Owners, if not nil, returns the owner and group that a file of an owner and group is
	// shown to have. It is called by several goroutines at a time. ACLs stay as they are.
	Owners func(uid, gid uint32) (uint32, uint32)
	// Passthrough has the kernel read files from the cache directory by
	// itself, where they are there whole and checked. Opening a file then
	// costs a request, which without it it does not. Auto is On for trees with
	// regular files of 1 MiB on average, one of which has 16 MiB, if the kernel
	// and this process' rights allow it and an overlayfs can still be mounted
	// on the tree.
	Passthrough Choice
	// Backings are where those files come from. Default: there are none, and no
	// passthrough.
	Backings Backings
	// IOUring takes requests through io_uring.
	IOUring Choice
	// Kept keeps what another server needs to go on with the mount when this one has died.
	// It is of NewKept, and for one mount. It is not used where IOUring is On, and Auto is Off
	// with it: what io_uring has handed to a server dies with that. Default: the mount is dead
	// when its server is.
	Kept *Kept
	// Identity says what tree is shown: two trees with one identity are alike to the inode
	// numbers. A server goes on only with the tree that its predecessor has shown.
	Identity string
	// EndAlone has the server end when its process is the only one left in its
	// mount namespace, so that nobody can get at the mount: see
	// [Server.Orphaned].
	EndAlone bool
	// Stacked says that another file system will lie over this one, such as overlayfs.
	// Its users are not found among the processes, so that only the kernel tells when
	// nobody uses the tree any more.
	Stacked bool
	// Engine says that a container engine has the mount, which puts overlays on it and shows
	// it with other owners. Such a mount
	//
	//   - has no extended attributes at all if no inode of the tree has one: else the kernel
	//     would ask for those of overlayfs once for each inode. Provenance cannot be asked for
	//     then, and what Control gives by [MountPoint.Control] alone, once anybody has asked
	//     for an attribute;
	//   - can be idmapped (mount_setattr(2)), where the kernel can do that (Linux 6.12). Who
	//     asks for what is about the mount is then looked for in /proc, and who is not found
	//     there is told nothing;
	//   - has Passthrough only if that is On: else there could be an overlay on it, and none
	//     on that.
	Engine bool
	// Xattrs has a mount with Engine answer for extended attributes also if no inode has one,
	// for programs to which it is an error that security.capability is not supported: those
	// that find what has changed above a tree by comparing it.
	Xattrs bool
	// Export has inodes be found by their numbers, also those that the kernel has forgotten:
	// for open_by_handle_at(2) and NFS. It is not for mounts that an overlayfs is put on: what
	// that finds by a handle Linux takes for outdated from 6.16 on, and files that were copied
	// up are ESTALE once the kernel has forgotten them (fuse_dentry_revalidate in its
	// fs/fuse/dir.c, which compares an epoch that no dentry of a handle has).
	Export bool
	// Locked says that the caller holds an exclusive flock(2) of the directory. Else
	// mounting takes it for a moment: of two that mount there at once one fails.
	Locked bool
	// Reads, if not nil, returns how many reads of files there have been. A
	// mount that is in no directory any more is in use while that rises.
	Reads func() int64
	// Debug logs every request and reply.
	Debug bool
	// AlreadyReported reports whether the cause of a failed read has been logged,
	// such as that a server is down: the read itself is not logged then. Several
	// goroutines call it at a time. Default: every failure is logged.
	AlreadyReported func(err error) bool
	// Logf logs a line, without a newline at its end; from several goroutines
	// at once. Default: lines are dropped.
	Logf func(format string, args ...any)

	// useHelper makes root mount through fusermount3 as well.
	useHelper bool
	// keepOpens makes the kernel send OPEN and OPENDIR.
	keepOpens bool
	// disabled are capabilities that the kernel is taken not to have.
	disabled uint64
	// unusedFor is how long nobody must have used what is mounted no longer;
	// default defaultUnused.
	unusedFor time.Duration
}

func (o *Options) name() string {
	if o.Name == "" {
		return fsSubtype
	}
	return o.Name
}

func (o *Options) logf(format string, args ...any) {
	if o.Logf != nil {
		o.Logf(format, args...)
	}
}

// A Choice says whether to use something that makes a mount faster.
type Choice int

const (
	// Auto uses it where it works and is worth it.
	Auto Choice = iota
	// On uses it. Where it does not work, mounting fails.
	On
	// Off does not use it.
	Off
)

// Replaced tells [Prepared.Start], in place of a signal, that the last server was killed for
// this one to go on.
const Replaced = -2

// A FastPath is a way to serve that not every kernel and user has, and
// whether a mount uses it.
type FastPath struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Why    string `json:"why,omitempty"` // not, if it is not active
}

// A BackingFile is an open file on disk with exactly the content of a regular
// file of the tree.
type BackingFile interface {
	// Fd returns the file's descriptor, which is valid until Close.
	Fd() uintptr
	// Close gives the file back. It is called once.
	Close() error
}

// Backings are where the files come from that the kernel can read by itself.
// Implementations are safe for concurrent use.
type Backings interface {
	// Backing returns the file that has the content of a regular file, if
	// there is one now. exec says that the file is opened to be executed.
	Backing(n fs.Node, exec bool) (BackingFile, bool)
	// BackingProbe returns an empty file where such files lie, to find out
	// what the kernel does with them, or the reason why there are none.
	BackingProbe() (BackingFile, error)
}

// FUSEOverlay is the program that mounts an overlay for who may not mount one of the
// kernel's, and the kind of its mounts.
const FUSEOverlay = "fuse-overlayfs"

// A MountPoint is a mounted image.
type MountPoint struct {
	Dir   string // absolute
	Name  string // Options.Name of the mount: the image
	Owner string // who mounted it: "root", or "user" and a number
	// Shown is the directory of the writable view of it, where its user looks for it
	// (imgfs mount --overlay); "" if there is none.
	Shown string
	// Device is the number of the file system, as in "0:39". Bind mounts of a mount
	// have the same one.
	Device string
	// Part is the directory of the tree that is mounted there, "/" but for bind mounts.
	Part string

	id      string // of the mount
	foreign bool   // this process may not do with it what its owner may
	own     bool   // this user has mounted it
}

// Own reports whether the user of this process has mounted it.
func (m MountPoint) Own() bool { return m.own }

// Place returns where its user looks for it: Shown, or else Dir.
func (m MountPoint) Place() string {
	if m.Shown != "" {
		return m.Shown
	}
	return m.Dir
}
