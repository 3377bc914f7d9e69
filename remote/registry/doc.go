// Package registry reads images from a registry that speaks the OCI
// distribution API. It is a remote.Source.
//
// Authentication, tags and the resolving of references are oras-go's; the
// rest is written for reading an image little by little over hours: blobs are
// read in ranges, an answer that is not the range asked for is refused, a
// broken one is taken up where it broke, and what a registry says about
// waiting is obeyed by all readers of a host together.
//
//	client := registry.New(nil)
//	defer client.Close()
//	ref, err := remote.ParseReference("quay.io/fedora/fedora:latest")
//	...
//	image, err := remote.Open(ctx, client.Repository(ref), "")
//
// Package hosts says whom to ask, by what containerd, podman and docker have
// configured; Options can hand in other functions for it. Mirrors are asked in order, one that fails is
// left alone for some minutes, and none is sent another's credential.
// docs/registries.md has the rules.
//
// No registry verifies a range, so neither can a reader here: whoever reads
// blobs checks the bytes against digests of its own (see package cache). What
// Fetch returns is checked against its descriptor.
//
// The errors are the sentinels of package remote, wrapped; their texts carry
// no credential and no query of a signed URL.
package registry
