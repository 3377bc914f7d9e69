// Package container runs one command in the tree of an image, by a runtime such as runc,
// crun or bwrap, and leaves nothing behind.
//
// Three processes work together. The command, which the shell waits for, has opened the
// image: it serves the tree, minds the terminal, and passes signals on. It starts the
// supervisor, which is process 1 of namespaces of its own: of mounts, of processes and,
// for a plain user, of users. The supervisor mounts the tree there and an overlay on it,
// and runs the runtime. The runtime starts the container and ends; then the supervisor
// is the parent of the container's first process.
//
// What the supervisor mounts nobody else sees, and its end is the end of all that it
// has mounted and started: the kernel sees to that, however it ends. It ends when the
// command does, which it learns from the socket between them. The directory that is
// left on disk is removed by whichever of the two lives longer; if neither does, by the
// next run.
//
// As the tree is served outside of the namespaces, the server cannot wait for itself.
package container
