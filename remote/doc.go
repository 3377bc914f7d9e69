// Package remote is the vocabulary of images that are elsewhere: how they
// are named, what they consist of, and what can go wrong. It knows no
// transport; remote/registry, remote/ocilayout and remote/dockerarchive each
// implement Source.
//
// A name becomes a Location and, for a registry, a Reference. The Source made
// of it hands out manifests and blobs by digest, and Open puts them together
// to an Image, whose layers are read with ReadAt or NewStream:
//
//	loc, err := remote.ParseLocation("oci:/srv/layout:v1")
//	src, err := ocilayout.Open(loc.Path, loc.Image)
//	img, err := remote.Open(ctx, src, "linux/arm64")
//	r := remote.NewStream(ctx, img.Layers[0], nil)
//
// Manifests and configs are checked against their digests. Blobs are not:
// a reader of their ranges verifies those.
package remote
