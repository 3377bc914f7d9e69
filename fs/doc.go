// Package fs is the file system of an image: the layers of a container image
// merged into one immutable tree, with inode numbers, path lookup and reads,
// and as an io/fs file system.
//
// Merge applies the tar entries of layers and builds a Tree. A Tree is a few
// flat arrays, some 75 bytes an inode; a Node is a position in them and costs
// nothing. Inode numbers are the same whenever the same layers are merged.
//
// Merge takes what the indexes of the layers list, and a Content for each that
// reads the layer's files; package image opens images by name and does both.
//
//	tree, err := fs.Merge(ctx, layers)
//	n, err := tree.Lookup("/etc/os-release", true)
//	_, err = n.ReadAt(ctx, buf, 0)
//	err = iofs.WalkDir(tree.WithContext(ctx), ".", visit)
//
// # What a stack of layers means
//
// The rules in short; docs/semantics.md has them with their cases and tests,
// and says where other implementations differ.
//
// Names. A name is cleaned of empty, "." and ".." components. One that climbs
// above the root, has a component over 255 bytes or leads to a path over 4,096
// bytes refuses its layer. The empty name is ignored. Any other bytes are kept.
//
// Whiteouts. An entry .wh.NAME of any type hides NAME beside it, and
// .wh..wh..opq everything in its directory. They act on lower layers only,
// wherever they stand in their own, and only where directories lead: never
// through a symlink. They make nothing. Whiteouts of "", "." and ".." refuse
// the layer. Other names that begin with .wh..wh. are not shown and change
// nothing, but hard links of their own layer can name them.
//
// Entries. An entry replaces what had its name, in any layer; only a directory
// in place of a directory keeps what is in it and takes the new attributes.
// The root's attributes come from an entry for the root.
//
// Parents. A directory that no entry describes is 0755 0:0 of 1970. On the way
// to an entry, what a lower layer has that is no directory becomes one, while
// a symlink of the same layer is followed inside the root and its target made,
// and anything else of the same layer refuses it.
//
// Hard links. A link is bound to what its target is at that position, in this
// layer or a lower one, and gives the inode its own attributes too. A missing
// target, a directory and the link itself refuse the layer.
//
// Attributes. Mode bits, owners, times before 1970 and nanoseconds, devices
// (0:0 too) and xattrs are kept. Dropped are the xattrs trusted.overlay.*, and
// user.* of what is neither file nor directory. An owner of 2^32-1 is none, so 0.
//
// # Limits
//
// A tree has at most 4,096 layers, 16 Mi entries of all layers and 4 GiB of
// names; Merge refuses more. A name takes at most 4,096 steps to resolve, and all
// names of an image 2^28. BuilderOptions.Budget bounds the memory. Files are read
// through Layer.Content, whose business it is to verify what it reads.
package fs
