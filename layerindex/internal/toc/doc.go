// Package toc reads the table of contents (TOC) that eStargz and zstd:chunked layers
// have: a JSON text with an entry for each file and for each further chunk of a file's
// content. Both formats have the same one, each with members of its own.
//
// A Text decodes the JSON from what a layer has of it. A Reader reads the entries one
// after the other and keeps one in memory. A Builder makes a layer index of them, whose
// out space are the contents (layerindex.SpaceContents). ReadTarSplit reads what
// zstd:chunked has besides, a tar without its contents, with the same JSON reader.
//
// What a TOC says is a claim. A Reader is strict about what other readers might take
// differently, so that all see the same tree: a member that comes twice, or that is one
// of the known ones but for upper case, is refused. What it does not know, it skips.
//
// The members are those of
// github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md, "TOC, TOCEntries",
// and go.podman.io/storage/pkg/chunked/internal/minimal, FileMetadata.
package toc
