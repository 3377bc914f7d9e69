// Package overlayfs mounts a writable view of a mounted image: what is written goes to
// an [Upper], a directory of the user, and the image stays as it is. It uses the
// kernel's overlayfs where this process may mount that, and else the program
// fuse-overlayfs. It knows nothing of images but their names.
//
//	upper, err := overlayfs.Open(ctx, "changes")
//	if err != nil {
//		return err
//	}
//	defer upper.Close()
//	mount, err := upper.Mount(ctx, "/run/imgfs/fedora", "/mnt/fedora", nil)
//	if err != nil {
//		return err
//	}
//	<-mount.Done() // until somebody unmounts it
//
// The mount works with the rights that this process has when it makes it: copying a file
// of another owner up needs those to change owners. So a process mounts before it gives
// up rights.
//
// # Limits
//
// Overlays of the kernel and of fuse-overlayfs write what is deleted in different ways,
// so an Upper keeps to the way that it was begun in.
package overlayfs
