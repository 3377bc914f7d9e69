// Package treetar writes the tree of an image, or parts of it, as one tar.
//
// The tar depends on nothing but the tree: the same image gives the same bytes on
// every machine, whatever is cached. Names come in byte order, those below a directory
// right behind it, as programs write them that walk through a directory.
//
//	err := treetar.Write(ctx, os.Stdout, tree, []string{"etc", "usr/lib"}, nil)
//
// # The format
//
// It is ustar, with PAX records for what ustar has no room for: names that are too
// long, numbers that are too large, fractions of seconds, times before 1970, and
// extended attributes, as SCHILY.xattr. Names are bytes, whatever they are. Owners are
// numbers and have no names. Sparse files are in GNU tar's sparse format 1.0, so that a
// file that is nearly all hole is as small in the tar as in its layer. The second name
// of an inode is a link to the first.
//
// GNU tar, bsdtar, archive/tar and what is built on it (docker, podman) read all of
// that. Two things can be noticed: GNU tar warns of a record hdrcharset, which comes with
// names that are too long for ustar and not UTF-8, and bsdtar is
// off by a second in fractional times before 1970.
//
// # Limits
//
// A tar that could not be written to its end does not look whole: it breaks off within
// a member, and the two blocks of zeros are missing.
package treetar
