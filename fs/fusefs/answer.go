//go:build linux

package fusefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Opcodes that are looked at before go-fuse does.
const (
	opForget      = 2
	opOpen        = 14
	opRead        = 15
	opGetxattr    = 22
	opListxattr   = 23
	opInit        = 26
	opReaddir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReaddirplus = 44
)

// Lengths in bytes, and offsets, of what the protocol has.
const (
	inHeader     = 40
	outHeader    = 16
	opcodeOffset = 4
	uniqueOffset = 8
	nodeOffset   = 16
	pidOffset    = 32

	readOffset = inHeader + 8 // in a READ
	readSize   = inHeader + 16
	readEnd    = inHeader + 40

	// deviceBuffer is the least that may be read from the device at a time:
	// what a WRITE of maxRead bytes takes.
	deviceBuffer = maxRead + 4096
)

func opcode(request []byte) uint32 { return binary.NativeEndian.Uint32(request[opcodeOffset:]) }
func unique(request []byte) uint64 { return binary.NativeEndian.Uint64(request[uniqueOffset:]) }

// initFlags returns the kernel's capabilities in its INIT.
func initFlags(request []byte) (uint64, error) {
	// Older kernels send less of it.
	var in fuse.InitIn
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in)), request)
	if in.Opcode != opInit {
		return 0, fmt.Errorf("the first request has opcode %d, want INIT", in.Opcode)
	}
	return in.Flags64(), nil
}

// An answerer answers requests of one connection, whichever way they come.
type answerer struct {
	raw  *rawFS
	held *gate // nil if there is a tree from the beginning
	opts *Options
	ps   *fuse.ProtocolServer
}

// tryRead answers reads of what is in memory. To hand such a read to another
// goroutine and its reply back takes longer than the read.
func (c *answerer) tryRead(request, header, payload []byte) (n int, ok bool) {
	if len(request) < readEnd || c.opts.Debug {
		return 0, false
	}
	node, ok := c.raw.tree.Node(binary.NativeEndian.Uint64(request[nodeOffset:]))
	if !ok || node.Mode()&unix.S_IFMT != unix.S_IFREG {
		return 0, false
	}
	off, size := int64(binary.NativeEndian.Uint64(request[readOffset:])), node.Attr().Size
	if off < 0 || off >= size {
		return 0, false
	}
	want := min(int64(binary.NativeEndian.Uint32(request[readSize:])), size-off, int64(len(payload)))
	if !node.ReadHeldAt(payload[:want], off) {
		return 0, false
	}
	putReply(header, unique(request), 0, int(want))
	return int(want), true
}

// Answer answers a request, and returns how much of the payload the reply has.
func (c *answerer) Answer(request, header, payload []byte) int {
	id := unique(request)
	n, _ := c.ps.HandleRequest([][]byte{request}, [][]byte{header, payload})
	if n < outHeader {
		putReply(header, id, unix.EIO, 0)
		n = outHeader
	}
	return n - outHeader
}

// putReply makes the header of a reply with n bytes behind it.
func putReply(header []byte, id uint64, errno unix.Errno, n int) {
	binary.NativeEndian.PutUint32(header, uint32(outHeader+n))
	binary.NativeEndian.PutUint32(header[4:], uint32(-int32(errno)))
	binary.NativeEndian.PutUint64(header[uniqueOffset:], id)
}

// interrupt has a request end early. It returns false if there is no such
// request under way.
func (c *answerer) interrupt(id uint64) bool {
	var request [inHeader + 8]byte
	var reply [outHeader]byte
	binary.NativeEndian.PutUint32(request[:], uint32(len(request)))
	binary.NativeEndian.PutUint32(request[opcodeOffset:], opInterrupt)
	binary.NativeEndian.PutUint64(request[uniqueOffset:], id|1)
	binary.NativeEndian.PutUint64(request[inHeader:], id)
	n, _ := c.ps.HandleRequest([][]byte{request[:]}, [][]byte{reply[:]})
	return n == 0
}

// A device is the FUSE device of one connection.
type device struct{ *os.File }

// FUSE_DEV_IOC_BACKING_OPEN and FUSE_DEV_IOC_BACKING_CLOSE
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// control calls f with the descriptor of the device.
func (d device) control(f func(fd uintptr) error) error {
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

func (d device) register(fd uintptr) (id int32, err error) {
	m := fuse.BackingMap{Fd: int32(fd)}
	err = d.control(func(device uintptr) error {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, device, backingOpen, uintptr(unsafe.Pointer(&m)))
		if id = int32(r); errno != 0 {
			return errno
		}
		return nil
	})
	return id, err
}

func (d device) unregister(id int32) error {
	return d.control(func(device uintptr) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, device, backingClose, uintptr(unsafe.Pointer(&id))); errno != 0 {
			return errno
		}
		return nil
	})
}
