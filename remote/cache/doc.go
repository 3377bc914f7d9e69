// Package cache keeps on disk what a source of images gave: chunks of blobs
// (package blobs), manifests, configs, references and notes (package meta) and whole
// files for the kernel to read by itself (package files). Package indexes keeps the
// layer indexes in the same directory.
//
// The idea: bytes are believed because they have the digest that they should
// have, never because of where they lie; and at each later read because they are
// those that had it (package seal). What the disk says about itself (which chunks
// are there) is a hint that saves work. So nothing needs to be in order after a
// process was killed, and any number of processes can share one directory without
// talking to each other. docs/cache-format.md specifies the files.
//
//	c, err := cache.Open(dir, nil)
//	b, err := c.Blobs.Blob(layer.Blob, blobs.Chunks{Size: index.ChunkSize, Sums: index.ChunkSums})
//	n, err := b.ReadAt(ctx, p, off) // from disk; what is missing from layer.Blob
//
// A disk that is full, or fails, costs speed and one warning, never a read.
//
// Options.Budget bounds what the directory takes on disk. Every write makes room
// first, by removing what was used least recently; a reader that still wants it
// fetches it again.
//
// # Rooms
//
// This package puts the parts together and is what the rest of imgfs sees.
// internal/directory owns the directory: names, temporary files, locks, budget,
// eviction, claims, the log and the clocks of a disk that takes nothing. It knows what
// files are for, and nothing of how they come. internal/blobfile is the layout of
// a blob file, which blobs and eviction share. A new kind of file gets its name and
// kind in internal/directory/names.go and a package of its own beside blobs.
//
// # Words
//
//   - blob: bytes that a digest names, in this package the compressed layers.
//   - chunk: a piece of a blob that is verified, stored and removed as one.
//   - cuts: how a blob is cut into chunks, and what each must be. Where the chunks are
//     not of one size they are called cuts, too, as in docs/cache-format.md.
//   - key: 16 hex digits in the names of files that are a blob's by some cuts, or by an
//     index of another origin.
//   - state word: four bytes in a blob file for each chunk: when it was used last, or
//     0 if it is not there.
//   - epoch: a number in a blob file that changes when chunks are taken away.
//   - flight: one fetch of neighbouring chunks, which any number of readers wait for.
//   - stream: a blob that a registry sends whole, chunk by chunk as it comes.
//   - recording: a blob that is written as it is read whole for the first time.
//   - recording group: recordings with the same claim to room, as a rule those of one
//     image; they do not remove each other's blobs.
//   - kept file: the content of a regular file, whole, for the kernel to read.
//   - mark: how the bytes of a blob were verified, and by which table of chunk sums.
//   - claim: the right to read a blob whole for the first time, one process at a time.
//   - budget: how much the directory may take on disk. Ledger: the file "space", which
//     says how much it does take. Lease: room that a process has taken off the budget
//     and not yet used.
//   - eviction: removal of what was used least recently. A rule says what may go.
//   - owned file: a file in "tmp" that stays while a process has its lock.
//   - sound: a chunk that this process has verified, and whose bytes are sealed.
//
// # Order of locks
//
// A goroutine takes locks only downwards in this list, and none of a line twice:
//
//  1. the claim to a blob (flock)
//  2. the digest of a kept file that is being stored, then that of one that is being
//     checked (files.keyLocks)
//  3. directory.TempFile.mu; files.share.mu; directory.Log.mu
//  4. directory.Budget.refill
//  5. the ledger (a lock on a range of the file "space"; for at most two seconds)
//  6. one file (flock): a blob's for the moment in which it is opened or chunks are taken
//     away; a kept file's while it is open; an owned file's until it has its name; the
//     directory of marks. Eviction passes over a file that is locked, and nobody waits
//     longer than two seconds.
//
// blobs.blobState.mu, and within it blobs.scheduler.mu or blobs.recentChunks.mu, is
// held for changes in memory alone. The other mutexes are the last that a goroutine
// takes: directory.Dir.mu, directory.Budget.mu, blobs.Cache.mu (which reads a
// mark), blobs.flight.mu, blobs.wholeCheck.mu (which reads state words),
// blobs.lineSpeed.mu, blobs.patched.mu, files.knowledge.mu and files.keyLocks.mu. None is held while
// the network or a reader is waited for.
package cache
