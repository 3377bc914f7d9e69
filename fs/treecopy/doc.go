// Package treecopy copies files and directories of an image into a directory of this
// machine, as cp(1) does.
//
//	dir, err := os.Open("/srv/rootfs")
//	c := treecopy.New(&treecopy.Options{Attributes: true, Xattrs: true, HardLinks: true, Devices: true})
//	err = c.Copy(ctx, tree, "/etc", node, dir, "etc")
//
// # What a stranger's image cannot do
//
// Every name is reached from the descriptor of its directory, and no symlink is
// followed on the way: neither one that the image has nor one that was there. So
// nothing outside of the directory is written, and what is written lies where its path
// in the image says. A symlink in the place of a directory is an error; one in the
// place of a file is replaced, and what it leads to stays as it is.
//
// # What is there is whole
//
// A regular file gets its name when its content, owner, attributes and mode are
// complete, and replaces what had the name in one step. Until then it has no name, or,
// on file systems without O_TMPFILE, one that begins with ".imgfs-" and is removed when
// the copy ends. Nobody can open it before who may not do so in the end: it is made
// with mode 0600, and gets the setuid bit last. A directory is made with mode 0700, and
// gets its own attributes when all is in it.
//
// # As an ordinary user
//
// Owners, and attributes that only root may set, are left out without an error, and
// with the owner the bits setuid and setgid, and sticky but of directories, as cp -a
// does. A device is an error.
//
// # Limits
//
// It works on Linux only. Each level of directories takes a descriptor while the copy
// is below it. Nothing is flushed to the disk.
package treecopy
