// Package containerd is what imgfs does for containerd: the server of a snapshotter
// ([github.com/imgfs/imgfs/fs/snapshotter]), the trees that it mounts, each of which a process
// of its own serves, and the lines for the configuration of containerd and docker.
//
// It opens no image: that is done by programs that it starts, which are imgfs again, and by
// functions that it is given.
//
// # Credentials
//
// A snapshotter is never told what an image is pulled with. kubelet and crictl send that to
// the runtime's image service (runtime.v1.ImageService of the container runtime interface), for
// which they can name another socket than the runtime's: [ImageService] answers there, hands
// every call on to containerd, and keeps the credentials in memory ([Credentials]). What this
// process asks of registries finds them there; programs that it has started ask it over
// another socket ([CredentialServer]), so that the one that serves a mount for weeks gets the
// token of today, also from the next snapshotter, and nothing is in a file, a command line or
// an environment.
//
// Of that interface one message is read, by package protowire, and all others, with fields and
// methods that came later than this program, are handed on as the bytes that they are:
// k8s.io/cri-api would bring all of its generated types for the sake of six fields, and know
// no method of a later version.
package containerd
