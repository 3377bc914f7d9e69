// Package containerd is what imgfs does for containerd: the server of a snapshotter
// ([github.com/imgfs/imgfs/fs/snapshotter]), the trees that it mounts, each of which a process
// of its own serves, and the lines for the configuration of containerd and docker.
//
// It opens no image: that is done by programs that it starts, which are imgfs again, and by
// functions that it is given.
package containerd
