//go:build linux

package uring

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets and lengths in struct fuse_uring_req_header.
const (
	opOffset   = 128 // op_in: the request's own header
	opSize     = 128
	tailOffset = 256 // ring_ent_in_out
	headerSize = 288

	commitIDOffset = tailOffset + 8
	payloadOffset  = tailOffset + 16 // payload_sz

	// headerStride keeps headers from sharing cache lines. Behind a header
	// is the vector that describes it and the payload.
	headerStride = 512
	vectorOffset = 320
	// counterOffset is for what a loop reads from its eventfd.
	counterOffset = 384
)

const (
	inHeaderSize  = 40 // struct fuse_in_header
	outHeaderSize = 16 // struct fuse_out_header

	errorOffset  = 4 // in the latter
	uniqueOffset = 8 // in both
)

// Commands, enum fuse_uring_cmd.
const (
	cmdRegister       = 1
	cmdCommitAndFetch = 2
)

// minPayload is FUSE_MIN_READ_BUFFER.
const minPayload = 8192

// Offsets in struct io_uring_sqe with IORING_SETUP_SQE128, from cmdOffset on in
// struct fuse_uring_cmd_req.
const (
	sqeSize = 128

	sqeOpcode   = 0
	sqeFD       = 4
	sqeOff      = 8 // cmd_op of commands
	sqeAddr     = 16
	sqeLen      = 24
	sqeUserData = 32

	cmdOffset   = 48
	cmdCommitID = cmdOffset + 8
	cmdQueue    = cmdOffset + 16
)

const (
	opRead     = 22 // IORING_OP_READ
	opURingCmd = 46 // IORING_OP_URING_CMD
)

// An sqe is an entry of a submission queue.
type sqe [sqeSize]byte

func (s *sqe) prepare(opcode byte, fd int, userData uint64) {
	*s = sqe{}
	s[sqeOpcode] = opcode
	binary.NativeEndian.PutUint32(s[sqeFD:], uint32(fd))
	binary.NativeEndian.PutUint64(s[sqeUserData:], userData)
}

// read reads 8 bytes to an address.
func (s *sqe) read(fd int, to unsafe.Pointer, userData uint64) {
	s.prepare(opRead, fd, userData)
	binary.NativeEndian.PutUint64(s[sqeOff:], ^uint64(0)) // no offset
	binary.NativeEndian.PutUint64(s[sqeAddr:], uint64(uintptr(to)))
	binary.NativeEndian.PutUint32(s[sqeLen:], 8)
}

// register adds an entry to a queue, whose two buffers vector describes.
func (s *sqe) register(fd int, queue uint16, vector unsafe.Pointer, userData uint64) {
	s.prepare(opURingCmd, fd, userData)
	binary.NativeEndian.PutUint32(s[sqeOff:], cmdRegister)
	binary.NativeEndian.PutUint64(s[sqeAddr:], uint64(uintptr(vector)))
	binary.NativeEndian.PutUint32(s[sqeLen:], 2)
	binary.NativeEndian.PutUint16(s[cmdQueue:], queue)
}

// commit hands over the reply to a request and fetches the next one.
func (s *sqe) commit(fd int, queue uint16, commitID, userData uint64) {
	s.prepare(opURingCmd, fd, userData)
	binary.NativeEndian.PutUint32(s[sqeOff:], cmdCommitAndFetch)
	binary.NativeEndian.PutUint64(s[cmdCommitID:], commitID)
	binary.NativeEndian.PutUint16(s[cmdQueue:], queue)
}

// A header is a struct fuse_uring_req_header, with headerStride bytes of
// capacity.
type header []byte

func (h header) unique() uint64   { return binary.NativeEndian.Uint64(h[uniqueOffset:]) }
func (h header) commitID() uint64 { return binary.NativeEndian.Uint64(h[commitIDOffset:]) }

// setReply says how long the payload of the reply is.
func (h header) setReply(payload int) {
	binary.NativeEndian.PutUint32(h[payloadOffset:], uint32(payload))
}

func (h header) reply() uint32 { return binary.NativeEndian.Uint32(h[payloadOffset:]) }
func (h header) failed() bool  { return binary.NativeEndian.Uint32(h[errorOffset:]) != 0 }

// fail makes the header of a reply that is an error.
func (h header) fail(errno unix.Errno) {
	binary.NativeEndian.PutUint32(h, outHeaderSize)
	binary.NativeEndian.PutUint32(h[errorOffset:], uint32(-int32(errno)))
}

// setVector describes the header and the payload to the kernel, behind the
// header.
func (h header) setVector(payload []byte) {
	v := (*[2]unix.Iovec)(unsafe.Pointer(&h[:headerStride][vectorOffset]))
	v[0].Base, v[1].Base = &h[0], &payload[0]
	v[0].SetLen(headerSize)
	v[1].SetLen(len(payload))
}

// request appends the request to buf as the device would have it: the header,
// the operation's own header, and the payload. Nothing is appended if the
// lengths make no sense.
func (h header) request(buf, payload []byte) []byte {
	total := int64(binary.NativeEndian.Uint32(h))
	rest := int64(binary.NativeEndian.Uint32(h[payloadOffset:]))
	op := total - inHeaderSize - rest
	if op < 0 || op > opSize || rest > int64(len(payload)) {
		return buf
	}
	buf = append(buf, h[:inHeaderSize]...)
	buf = append(buf, h[opOffset:opOffset+op]...)
	return append(buf, payload[:rest]...)
}
