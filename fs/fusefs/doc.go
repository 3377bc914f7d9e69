// Package fusefs serves an [fs.Tree] to the kernel through FUSE: it mounts,
// answers requests, decides errno values and unmounts. It is the only package
// that knows go-fuse, and it knows nothing of layers or the network.
//
// # Serving
//
// An image never changes and all its metadata is in memory, so everything the
// kernel can keep, it keeps for ever: names (missing ones as well),
// attributes, directories, symlinks and pages. The protocol's node identifier
// is the inode number, which is the position in the tree; there are no objects
// for inodes, nothing to forget, and no locks between a request and its reply.
// So with [Options].Export handles of name_to_handle_at(2) stay good, also for another server.
// OPEN and OPENDIR are answered with ENOSYS where the kernel then stops
// sending them: an open costs no round trip at all.
//
// Requests come from the FUSE device, by a loop of the package's own, or through
// io_uring; go-fuse decodes them. With [Options].Kept the loop reads to memory that
// outlives the process, and opens are noted there, so that another server can go on
// with the mount ([Prepare]): docs/recovery.md.
//
// With passthrough ([Options].Passthrough) opens are answered instead, and files
// that the cache directory has whole are read by the kernel itself. A mount has
// one or the other: ENOSYS to OPEN is for all files. [Server.FastPaths] tells
// which of all this a mount uses.
//
// Access is checked by the kernel from mode, owner and POSIX ACLs
// (default_permissions). A mount made by an ordinary user therefore shows that
// user what an unpacked tree owned by root would: files of mode 0600 stay
// closed.
//
// Mounts are read-only, and nosuid and nodev unless [Options] says otherwise:
// setuid bits, file capabilities and device nodes are shown but have no
// effect, as on every mount that fusermount3 makes.
//
// # Extended attributes
//
// Beside those of the image there are a few of the mount's own, whose names begin
// with "user.imgfs.": of regular files where they come from (layer, digest,
// offset; see [Options].Provenance), and of the root what [Options].Control
// gives, for example counters. They can be read by name, but lists do not
// show them, so that copies of the tree do not carry them along. Those of the root
// are for root and the user who mounted. Attributes of the image with such names
// are hidden.
//
// With [Options].Engine a mount of a tree without attributes has none at all, and what
// Control gives is asked for by an ioctl: [MountPoint.Control] does so.
//
// Attributes that mean something to the system (security.*, system.*) are not
// supported, EOPNOTSUPP, if no inode of the tree has one by that name: programs
// that look at every file, such as ls, then look once.
//
// # Errors
//
// A failed read is EIO for that read alone and leaves one line in the log
// with its cause; the next read tries again. It is EACCES if the error is
// fs.ErrPermission: the registry, or the file system of a local image, refuses it.
//
// A read whose caller is ended by a signal, or gets SIGHUP, SIGINT, SIGQUIT or
// SIGTERM, returns EINTR; other signals wait until the read is done. Where /proc
// does not show the caller, any signal ends its read. The kernel reads ahead for
// a process, and such reads are nobody's: they go on when the process is killed,
// and end when the file system is unmounted.
//
// # Mounting
//
// Root mounts directly, and so do processes with CAP_SYS_ADMIN, also that of a
// user namespace; all others mount through the setuid helper fusermount3. The mount
// goes on the directory that [Check] found, whatever has its name by then, and
// unmounting takes away the mount that was made, wherever it is by then. Calls that
// a server may hold up, of this mount or another, end after two seconds with
// [ErrNoAnswer], or with their context; the system call is left behind.
//
// A process must not use the files of its own mount: both sides of a request
// need a thread, and there may not be one left.
//
//	server, err := fusefs.Mount(ctx, "/mnt/fedora", tree, &fusefs.Options{Name: "fedora:latest"})
//	if err != nil {
//		return err
//	}
//	server.Wait() // until somebody unmounts it
package fusefs
