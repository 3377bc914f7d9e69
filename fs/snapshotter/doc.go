// Package snapshotter keeps snapshots for containerd, and those of image layers lazily: in
// place of unpacked layers there is one mounted tree, which is read when somebody reads it.
//
//	s, err := snapshotter.New(ctx, "/var/lib/imgfs", trees, nil)
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(s))
//
// How images are reached and trees are mounted is the business of [Trees]. Names, kinds,
// parents, labels and filters are kept by containerd's own storage package.
//
// # Lazy snapshots
//
// A client of containerd that pulls an image prepares a snapshot for each layer, and names
// in labels the chain id that it wants, the image and its manifest. If the image's config
// has that chain id, a committed snapshot of it is made at once, the layer is neither
// fetched nor unpacked, and Prepare answers [errdefs.ErrAlreadyExists]: that is how
// containerd is told that there is nothing to do. All layers up to one are one chain, and a
// chain is one mount: the lower directories of an overlay end at the first lazy snapshot,
// whose mount has all that is below. It is made when the first container needs it, for all
// that need it, and ends after its last committed snapshot has been removed.
//
// Labels are the word of a stranger: of them only an image's config is believed that has
// the digest in its manifest. A layer that is unpacked although a chain was asked for never
// keeps the label containerd.io/snapshot.ref, by which containerd finds lazy snapshots.
//
// # Falling back
//
// Whatever goes wrong before Prepare has answered leads to an ordinary overlay snapshot, into
// which containerd unpacks the layer. Lazy chains and unpacked layers mix.
//
// Layers have to be read once, to index them, which takes as long as a download. Prepare
// begins this pass and does not wait for it: containerd calls it with a lock held that its
// garbage collector wants, behind which all other containers would wait. What waits is Stat,
// which every client calls next, and for which containerd holds no lock. For the same reason
// who prepares a container waits for a mount for some seconds only. That takes long where the
// indexes of its layers have gone from the cache: the mount goes on, and the next one finds it.
//
// If the pass fails, nothing can turn the pull that waits into an ordinary one. containerd
// (core/metadata/snapshot.go of 2.4.2, metadata/snapshot.go of 1.6) has noted the chain under
// its name and answers every further Prepare by itself. Its unpacker (core/unpack/unpacker.go,
// unpacker.go) tries three times if Stat says that the snapshot is not found, and then fails
// with "already exists"; another error of Stat ends the pull at once and is shown. So Stat
// answers [errdefs.ErrUnavailable] with the cause. The lease of the failed pull goes, with it
// the snapshot, and the next pull finds the failure remembered and falls back. That is why
// everything that is cheap to find out is checked in Prepare.
//
// # Being killed
//
// A record of a chain is on the disk before its first snapshot, and goes after the last one.
// Mounts belong to processes of their own. So what is left by a process that was killed at any
// point are directories and mounts that no snapshot needs: New and Cleanup remove them. Mounts
// that are there and answer are used, those that are dead are made again.
//
// # Looking in
//
// [Uses] tells for which containers a chain is mounted. It reads what is in the root and needs
// no snapshotter: one that hangs, or is gone, is when it is wanted.
//
// # Limits
//
// One process at a time keeps a root, and the root of another version is refused. Paths of
// the root have no colon, comma or backslash, which the options of an overlay would have to
// quote. Snapshots that were prepared without a parent and are given one at Commit are
// kept, but never lazy.
package snapshotter
