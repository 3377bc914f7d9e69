// Package soci reads and writes the indexes of SOCI (github.com/awslabs/soci-snapshotter,
// 0.16): for each layer of an image a ztoc, which has the entries of the tar, places in
// the gzip stream where decoding can start, and a digest of each span of the blob
// between two such places; and for an image a manifest that names the ztocs.
//
//	m, err := soci.ParseIndex(manifest)
//	files, ok := m.Layers[layer.Digest]
//	x, err := soci.Index(ctx, layer, ztoc, nil) // the blob of files.Ztoc
//
// A ztoc says of a layer what a pass over it finds, so that its index is one in tar
// space and differs in nothing but the proofs: each is of a whole span. What a ztoc
// cannot say, the maps of sparse files, makes Index fail.
//
//	z, err := soci.Build(ctx, layer, blob, nil) // reads the blob once
//	image, err := soci.Convert(soci.Source{…})  // what to push
//
// # Differences
//
// A ztoc of Build has the entries, places and digests that SOCI's own builder finds.
// Windows have zeros for the bytes that decoding does not need.
package soci
