// Package podstore keeps an additional image store of containers/storage, the library by
// which podman, buildah and CRI-O keep images. The images in it have no files of their own:
// the top layer of each is a directory on which somebody mounts the whole image.
//
//	store, err := podstore.Create(dir)
//	img, err := podstore.NewImage(&podstore.Content{Manifest: manifest, Config: config, …})
//	held, err := store.Hold(ctx, img.Layer)
//	defer held.Release()
//	// mount the image on store.Mountpoint(img.Layer)
//	err = store.Add(ctx, img)
//
// It knows JSON and files, and neither mounts nor looks into what is mounted.
//
// # Layout
//
//	imgfs-store.json                marks the directory as such a store
//	overlay-images/images.json      the images; images.lock
//	overlay-images/ID/              manifest and config
//	overlay-layers/layers.json      the layers; layers.lock
//	overlay/LAYER/diff              of the top layer a symbolic link, else an empty directory
//	overlay/LAYER/link, overlay/l/  a short name for that
//	mounts/LAYER                    where the image is mounted; LAYER.lock
//
// An image has as many layers as its config says, since what is made of it has a history
// of so many; all but the top one are empty. IDs of layers and the digests of what is in
// them are made from the image's ID, the digest of its config: the library looks layers up by
// digest, and must find these for no other image.
//
// # What is not mounted
//
// A mount is gone after a boot, and is not there in another mount namespace. Then the
// directory is empty, and an engine that went on would run an image without files. So diff
// leads to MOUNTPOINT/NAME/.., where NAME is a directory that the image has in its root:
// without the mount the path leads nowhere, and every use of the layer is an error. Of an
// image without a directory in its root this cannot be had.
//
// The link's target is absolute, as the library requires of what it takes for a layer that
// lies elsewhere. For containers with a user namespace of their own the library clones the
// directory of the layer, and nothing that is mounted below it; the link leads out of the
// clone to the files.
//
// # Several processes
//
// What changes the store holds a lock on its directory. Lists are replaced by renaming,
// under the locks of the library (fcntl, the whole file, with a new mark in the file for
// readers that have read it before). An image is complete before it is listed, and not
// listed before it is taken apart: a process that is killed leaves what no list names, and
// the next one that changes the store removes that. Hold keeps two processes from mounting
// and unmounting the same image at once.
//
// # Why not the library itself
//
// go.podman.io/storage can write such a store only as one of its own: it wants to be root or
// in a user namespace, tries overlay mounts when it is opened, and puts into a layer what it
// has unpacked. It has some forty modules. What is written here are two lists and a few
// files.
package podstore
