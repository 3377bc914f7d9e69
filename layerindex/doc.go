// Package layerindex is the index of a container image's layer: what is written
// down when a layer is read whole for the first time, so that later any part of it
// can be read, and checked, by itself.
//
// A layer is a tar, mostly compressed by gzip or zstd: one stream that can only be
// decoded from its start. Its Index says
//
//   - what entries the tar has, and where their content lies (Entry): in the tar, or,
//     if nobody has read that, in the contents of all files one behind the other (Space);
//   - where in the compressed stream decoding can start, and what it needs for that
//     of the bytes before (Spans);
//   - what each piece of the blob, or of what it decodes to, must hash to (Index.ChunkSums,
//     Proofs), and the content of each file.
//
// An index belongs to the digest of a blob, whatever image the blob is part of. Its
// file is specified in docs/index-format.md; ReadIndex and Index.WriteTo read and
// write it.
//
// # Build, store, read
//
// Package build makes an index, remote/cache/indexes keeps index files, and package
// reader reads a layer by its index:
//
//	x, err := build.Index(ctx, layer, blob, nil) // reads the blob once
//	err = store.Save(ctx, x)
//
//	x, err = store.Load(ctx, layer) // from now on
//	defer x.Close()
//	r := reader.New(x, verified, nil)
//	defer r.Close()
//	entries, err := x.Entries()
//	for e := range entries {
//		_, err = r.ReadAt(ctx, buf[:e.Size], e.Off)
//	}
//
// The packages below internal each know one thing: tarscan what a tar means,
// gzip, zstd and inflate how a stream is decoded from the middle, decoders which of
// them decodes what, spool how a long span is kept in a file. Packages that make indexes
// of what others wrote down about a layer (estargz, zstdchunked, soci) lie beside build:
// they call a Writer with what they know.
//
// # Far away
//
// An index can be published (Index.WritePublished) and be read from where it is
// (OpenPublished): its header, which somebody has to vouch for, pins a checksum of each
// piece of the file, so any part can be fetched and checked by itself.
//
// # Limits
//
// An index is believed. Its checksums find damage, but nothing binds it to an image:
// it must come from build, or from a directory that nobody else can write to. It
// describes the layer alone: whiteouts are entries like any other, and names are not
// cleaned; package fs merges layers. An image has at most MaxEntries entries, sizes
// are at most MaxSize, and a Budget bounds what names and attributes may take.
package layerindex
