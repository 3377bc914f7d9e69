// Package beneath reaches the files below one directory and nothing else.
//
// A program that keeps files in a directory says "that directory" again with
// each path it gives to the kernel, and between two of them the path may come
// to mean something else: a component is now a symbolic link, another file
// system is mounted there, the whole directory has been exchanged. So a Dir is
// a descriptor of the directory, and each name is resolved from it alone:
//
//   - no symbolic link is followed, at any level,
//   - no mount is crossed,
//   - there is no "..", and no absolute name.
//
// A file that is opened must be a regular one that belongs to this user or to
// root, and that nobody else may write, unless Options say otherwise. Opening never waits, whatever lies at
// the name: a FIFO is refused like a device. Only regular files are removed or
// replaced, and only by their name: other names of a file keep it.
//
//	d, err := beneath.Open(path, nil)
//	f, err := d.Open("blobs/sha256/4c1a")  // a *RefusedError counts as fs.ErrNotExist
//
// os.Root is not enough for this: it follows links that stay inside and
// crosses mounts. Here the kernel does it all, with openat2(2); where it does
// not have that call (before Linux 5.6, and in some sandboxes), names are walked
// component by component.
package beneath
