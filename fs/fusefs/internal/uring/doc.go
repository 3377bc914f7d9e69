// Package uring serves requests of the FUSE protocol that the kernel hands over
// through io_uring instead of read(2) of the FUSE device. It knows rings,
// queues and the layout of requests in them, and nothing of what they mean.
//
// # What the kernel does
//
// From fs/fuse/dev_uring.c and include/uapi/linux/fuse.h of Linux 6.14 to
// 6.18, Documentation/filesystems/fuse/fuse-io-uring.rst, and
// include/uapi/linux/io_uring.h:
//
//   - A connection has as many queues as there are possible processors. A
//     request goes to the queue with the number of the processor that its
//     caller runs on, and stays there.
//   - A queue has entries, each of which a command of type
//     FUSE_IO_URING_CMD_REGISTER adds, with a buffer for headers and one for
//     the rest. The latter must have max_write bytes and max_pages pages. The
//     command completes when a request has been copied into these buffers.
//   - FUSE_IO_URING_CMD_COMMIT_AND_FETCH takes the reply out of the buffers of
//     the entry whose request has the given commit_id, and completes with the
//     entry's next request.
//   - The entry that was free last gets the next request, so that few buffers
//     are in use if few requests are under way.
//   - The commands need entries of the submission queue of 128 bytes
//     (IORING_SETUP_SQE128). Requests are copied by task work, that is, in the
//     thread which submitted the command; if it ends, its commands are
//     cancelled. Entries of one queue may belong to several rings, and a ring
//     may serve several queues.
//   - Once the reply to INIT has the flag FUSE_OVER_IO_URING, requests wait
//     until every queue has an entry. If adding one fails, the kernel takes the
//     flag back, and requests come through the device as ever.
//   - FORGET, INTERRUPT and whatever was sent before the queues were ready are
//     read from the device. A reply to INTERRUPT there does nothing for a
//     request that came through a queue.
//   - When the connection ends, the kernel completes the commands of all
//     entries with ENOTCONN, those of entries in our hands when they are
//     submitted next. It does not wait for us.
//   - What the module's parameter enable_uring says counts when INIT is sent.
//     It is off by default.
package uring
