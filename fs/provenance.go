package fs

import (
	"syscall"

	"github.com/opencontainers/go-digest"
)

// Provenance says where the content of a regular file lies: the layer's name,
// which is its digest, and the offset in its uncompressed tar. A sparse file
// has its data there, and not its holes. ok is false of other inodes.
func (n Node) Provenance() (layer digest.Digest, off int64, ok bool) {
	in := n.inode()
	if in.format() != syscall.S_IFREG {
		return "", 0, false
	}
	return digest.Digest(n.t.sources[in.layer].name), in.off, true
}

// ContentDigest returns the SHA-256 of a regular file's content if its layer
// knows it: layers know none of sparse files. The first call for a layer may
// have to read its index, and later ones, if many other layers were asked about
// since.
func (n Node) ContentDigest() (d digest.Digest, ok bool, err error) {
	in := n.inode()
	if in.format() != syscall.S_IFREG || n.IsSparse() || n.t.sources[in.layer].content == nil {
		return "", false, nil
	}
	return n.t.sources[in.layer].content.FileDigest(n)
}
