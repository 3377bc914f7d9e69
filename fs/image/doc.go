// Package image opens a container image by name, with all that belongs to it:
// where to look for it, the cache, the index of each layer, the merged tree.
//
//	img, err := image.Open(ctx, "fedora:latest", nil)
//	if err != nil {
//		return err
//	}
//	defer img.Close()
//	data, err := iofs.ReadFile(img.FS(ctx), "etc/os-release")
//
// Options that are nil or zero mean what the imgfs command does without flags and
// without IMGFS_CACHE_DIR and IMGFS_CACHE_SIZE, which it alone reads: the cache
// directory of the user, the configuration files of podman, docker and containerd,
// this machine's platform.
//
// Open is three steps, which can be taken one at a time: Resolve reads manifest
// and config, Resolved.OpenLayers loads the index of every layer or makes it by
// reading the layer once, and Layers.Merge makes the tree. Each step takes over
// what it is called on, so only what it returns has to be closed. New and From
// begin with an image that the caller has found.
//
// The tree of an Image reads through the cache. The Image counts what is read
// (Image.Stats), keeps files on disk that are read often (Image.KeptFile), and can
// be brought into the cache whole (Image.Fill). An index that turns out to be
// wrong is made again while the image is open.
//
// # Limits
//
// Options bound what an image may take of memory and of the disk. A full disk
// fails nothing: indexes that cannot be kept are held in memory, and made again
// by the next process.
package image
