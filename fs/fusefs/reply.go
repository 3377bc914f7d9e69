//go:build linux

package fusefs

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// room returns how long the payload of the reply to a request may be.
func room(request []byte) int {
	at, more := 0, 256 // what the operation's own header takes
	switch opcode(request) {
	case opRead, opReaddir, opReaddirplus:
		at, more = readSize, 0
	case opGetxattr, opListxattr:
		at = inHeader
	case opIoctl:
		at = inHeader + 28
	default:
		return smallReply
	}
	if len(request) < at+4 {
		return smallReply
	}
	return min(int(binary.NativeEndian.Uint32(request[at:])), maxRead) + more
}

const (
	// replyLead is what lies before the payload, so that this lies in whole pages: the
	// kernel copies page by page.
	replyLead = 4096
	// smallReply is the least that a buffer for replies has room for.
	smallReply = 4096
)

// replyPools are of buffers for replies, each twice as long as those before.
var replyPools [10]sync.Pool

// A replyBuffer is memory for a reply.
type replyBuffer struct {
	mem  []byte
	pool *sync.Pool
}

// takeReply returns a buffer for a payload of n bytes, which are not more than twice
// maxRead.
func takeReply(n int) *replyBuffer {
	class := bits.Len(uint(max(n, smallReply)-1) / smallReply)
	if b, ok := replyPools[class].Get().(*replyBuffer); ok {
		return b
	}
	return &replyBuffer{make([]byte, replyLead+smallReply<<class), &replyPools[class]}
}

func (b *replyBuffer) give()           { b.pool.Put(b) }
func (b *replyBuffer) head() []byte    { return b.mem[replyLead-outHeader : replyLead : replyLead] }
func (b *replyBuffer) payload() []byte { return b.mem[replyLead:] }

// reply returns the reply, whose payload has n bytes.
func (b *replyBuffer) reply(n int) []byte { return b.mem[replyLead-outHeader : replyLead+n] }
