//go:build linux

package fusefs

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What a mount tells of itself are documents with names. They are extended attributes of the
// root, and where the mount has no attributes ([Options].Engine) there is an ioctl of the
// root directory. The attributes are asked for first: no permission to read the directory is
// needed for them, and they can be had before there is a tree.

// controlPrefix begins other names of the attributes that are about a mount. The kernel
// asks for those without looking at the mode of the root, which it may have to wait for:
// see xattr_permission in its fs/xattr.c.
const controlPrefix = "security.imgfs."

// controlName returns the name as ownPrefix has it of an attribute that is about a mount.
func controlName(name string) (own string, ok bool) {
	if rest, ok := strings.CutPrefix(name, controlPrefix); ok {
		return ownPrefix + rest, true
	}
	return name, strings.HasPrefix(name, ownPrefix)
}

// mayAsk reports whether a caller is told what is about the mount: what others read, and
// where the cache is.
func (r *rawFS) mayAsk(c *fuse.Caller) bool {
	if r.control == nil {
		return false
	}
	user := r.threads.userOf(c)
	return user == 0 || user == r.owner
}

// controlFor returns an attribute that is about the mount, if there is one for a caller.
func (r *rawFS) controlFor(name string, c *fuse.Caller) (value string, ok bool) {
	if !r.mayAsk(c) {
		return "", false
	}
	own, _ := controlName(name)
	b, ok := r.control(own)
	return string(b), ok
}

// fillXattr is the answer to a request for a value.
func fillXattr(value string, dest []byte) (uint32, fuse.Status) {
	switch {
	case len(value) > xattrMax:
		return 0, fuse.Status(unix.E2BIG)
	case copy(dest, value) < len(value):
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(len(value)), fuse.OK
}

// The ioctl takes a block of memory and fills it, both in the order of bytes of the machine:
//
//	0   8  number of the document; 0 asks for a new one, whose name is at 16
//	8   4  length of the document, as an answer
//	12  4  offset of the piece
//	16     the name, with zeros behind it; as an answer the piece, to the end of the document
//	       or of the block
//
// It is EACCES for who is not told, ENODATA if there is no document of the name, and ESTALE
// if the server has it no longer: it is asked for anew then. A block fits a page of the
// journal with the request around it.
const (
	controlBlock  = 2048
	controlLength = 8
	controlOffset = 12
	controlPiece  = 16

	// controlIoctl is _IOWR('I', 'F', controlBlock).
	controlIoctl = 3<<30 | controlBlock<<16 | 'I'<<8 | 'F'
)

// keptDocuments is how many documents are kept of which not all was read: those of as many
// who ask at a time.
const keptDocuments = 16

// documents are what is read by pieces. The zero value has none.
type documents struct {
	mu   sync.Mutex
	kept []document // the oldest first
}

type document struct {
	number uint64 // no other server has given it
	text   []byte
}

// add keeps a document, and returns its number.
func (d *documents) add(text []byte) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.kept) == keptDocuments {
		d.kept = slices.Delete(d.kept, 0, 1)
	}
	number := max(rand.Uint64(), 1)
	d.kept = append(d.kept, document{number, text})
	return number
}

// get returns a document. One that is read to its end is kept no longer.
func (d *documents) get(number uint64, off uint32) (text []byte, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, doc := range d.kept {
		if doc.number != number {
			continue
		}
		if int64(off)+controlBlock-controlPiece >= int64(len(doc.text)) {
			d.kept = slices.Delete(d.kept, i, i+1)
		}
		return doc.text, true
	}
	return nil, false
}

// Ioctl answers for what is about the mount. Anything else is ENOTTY: ENOSYS reaches the
// caller on older kernels.
func (r *rawFS) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, block []byte, _ *fuse.IoctlOut, answer []byte) fuse.Status {
	if in.Cmd != controlIoctl || in.NodeId != fuse.FUSE_ROOT_ID || len(block) < controlBlock || len(answer) < controlBlock {
		return fuse.Status(unix.ENOTTY)
	}
	if !r.mayAsk(&in.Caller) {
		return fuse.EACCES
	}
	text, number, off, status := r.document(block)
	if status != fuse.OK {
		return status
	}
	clear(answer)
	binary.NativeEndian.PutUint64(answer, number)
	binary.NativeEndian.PutUint32(answer[controlLength:], uint32(len(text)))
	binary.NativeEndian.PutUint32(answer[controlOffset:], off)
	copy(answer[controlPiece:controlBlock], text[off:])
	return fuse.OK
}

// document returns the document that a block asks for, its number, and the offset of the
// piece.
func (r *rawFS) document(block []byte) (text []byte, number uint64, off uint32, status fuse.Status) {
	if number = binary.NativeEndian.Uint64(block); number != 0 {
		off = binary.NativeEndian.Uint32(block[controlOffset:])
		text, ok := r.documents.get(number, off)
		if !ok || int64(off) > int64(len(text)) {
			return nil, 0, 0, fuse.Status(unix.ESTALE)
		}
		return text, number, off, fuse.OK
	}
	name, _, _ := bytes.Cut(block[controlPiece:controlBlock], []byte{0})
	own, ok := controlName(string(name))
	if ok {
		text, ok = r.control(own)
	}
	switch {
	case !ok:
		return nil, 0, 0, fuse.ENODATA
	case len(text) > xattrMax:
		return nil, 0, 0, fuse.Status(unix.E2BIG)
	case len(text) > controlBlock-controlPiece:
		number = r.documents.add(text)
	}
	return text, number, 0, fuse.OK
}
