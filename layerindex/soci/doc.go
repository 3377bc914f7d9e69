// Package soci reads the indexes of SOCI (github.com/awslabs/soci-snapshotter,
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
package soci
