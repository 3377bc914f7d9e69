// Package layerindex is the index of a container image's layer: what is written
// down when a layer is read whole for the first time, so that later any part of it
// can be read, and checked, by itself.
//
// A layer is a tar, mostly compressed by gzip or zstd: one stream that can only be
// decoded from its start. Its Index says
//
//   - what entries the tar has, and where in the tar their content lies (Entry);
//   - where in the compressed stream decoding can start, and what it needs for that
//     of the bytes before (Spans);
//   - what each piece of the blob, and the content of each file, must hash to.
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
// them decodes what, spool how a long span is kept in a file. A package that makes
// indexes of what others wrote down about a layer belongs beside build: it calls a
// Writer with what it knows.
//
// # Limits
//
// An index is believed. Its checksums find damage, but nothing binds it to an image:
// it must come from build, or from a directory that nobody else can write to. It
// describes the layer alone: whiteouts are entries like any other, and names are not
// cleaned; package fs merges layers. An image has at most MaxEntries entries, sizes
// are at most MaxSize, and a Budget bounds what names and attributes may take.
package layerindex
