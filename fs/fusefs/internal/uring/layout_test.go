//go:build linux

package uring

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structs as include/uapi/linux has them.
type (
	uapiEntInOut struct {
		_, commitID    uint64
		payloadSize, _ uint32
		_              uint64
	}
	uapiReqHeader struct {
		_, opIn [128]byte
		ring    uapiEntInOut
	}
	uapiCmdReq struct {
		_, commitID uint64
		qid         uint16
		_           [6]byte
	}
	uapiSQE struct {
		_, _      uint8
		_         uint16
		fd        int32
		off, addr uint64
		len, _    uint32
		userData  uint64
		_, _      uint16
		_         uint32
		cmd       uapiCmdReq
		_         [80 - unsafe.Sizeof(uapiCmdReq{})]byte
	}
)

func TestLayout(t *testing.T) {
	var h uapiReqHeader
	var s uapiSQE
	var p ringParams
	var a enterArg
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"a header", headerSize, unsafe.Sizeof(h)},
		{"op_in", opOffset, unsafe.Offsetof(h.opIn)},
		{"commit_id", commitIDOffset, unsafe.Offsetof(h.ring) + unsafe.Offsetof(h.ring.commitID)},
		{"payload_sz", payloadOffset, unsafe.Offsetof(h.ring) + unsafe.Offsetof(h.ring.payloadSize)},
		{"an sqe", sqeSize, unsafe.Sizeof(s)},
		{"fd", sqeFD, unsafe.Offsetof(s.fd)},
		{"off", sqeOff, unsafe.Offsetof(s.off)},
		{"addr", sqeAddr, unsafe.Offsetof(s.addr)},
		{"len", sqeLen, unsafe.Offsetof(s.len)},
		{"user_data", sqeUserData, unsafe.Offsetof(s.userData)},
		{"commit_id of a command", cmdCommitID, unsafe.Offsetof(s.cmd) + unsafe.Offsetof(s.cmd.commitID)},
		{"qid of a command", cmdQueue, unsafe.Offsetof(s.cmd) + unsafe.Offsetof(s.cmd.qid)},
		{"a cqe", cqeSize, unsafe.Sizeof(cqe{})},
		{"io_uring_params", 120, unsafe.Sizeof(p)},
		{"sq_off", 40, unsafe.Offsetof(p.sq)},
		{"cq_off", 80, unsafe.Offsetof(p.cq)},
		{"io_uring_getevents_arg", 24, unsafe.Offsetof(a.seconds)},
		{"ts", 16, unsafe.Offsetof(a.timespec)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
	if vectorOffset < headerSize || counterOffset < vectorOffset+2*unsafe.Sizeof(unix.Iovec{}) || headerStride < counterOffset+8 {
		t.Error("what is behind a header overlaps")
	}
}

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		name        string
		op, payload string
		total       int // 0: what it is
		none        bool
	}{
		{name: "a header alone"},
		{name: "an operation's header", op: "size and offset"},
		{name: "a name", payload: "passwd\x00"},
		{name: "both", op: "mask", payload: "user.x\x00"},
		{name: "a full header", op: string(make([]byte, opSize))},
		{name: "shorter than its payload", payload: "passwd\x00", total: inHeaderSize + 6, none: true},
		{name: "a header too long", total: inHeaderSize + opSize + 1, none: true},
		{name: "a payload longer than its buffer", payload: "0123456789abcdef0", none: true},
	} {
		h := header(make([]byte, headerSize, headerStride))
		payload := make([]byte, 16)
		head := bytes.Repeat([]byte{7}, inHeaderSize)
		total := c.total
		if total == 0 {
			total = inHeaderSize + len(c.op) + len(c.payload)
		}
		binary.NativeEndian.PutUint32(head, uint32(total))
		copy(h, head)
		copy(h[opOffset:], c.op)
		copy(payload, c.payload)
		h.setReply(len(c.payload))
		want := string(head) + c.op + c.payload
		if c.none {
			want = ""
		}
		if got := string(h.request([]byte("x"), payload)); got != "x"+want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
}

func TestFail(t *testing.T) {
	h := header(make([]byte, headerSize))
	binary.NativeEndian.PutUint64(h[uniqueOffset:], 42)
	if h.fail(unix.EIO); !h.failed() || h.unique() != 42 || binary.NativeEndian.Uint32(h) != outHeaderSize || int32(binary.NativeEndian.Uint32(h[4:])) != -5 {
		t.Errorf("% x", h[:outHeaderSize])
	}
}

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{
		"0": 1, "0-1": 2, "0-3,8-11": 8, "0,2,4-5": 4, "3-3": 1,
		"": 0, "-": 0, "1-0": 0, "0-": 0, "a": 0, "0-65536": 0, "0-4294967296": 0, "-1": 0, "0,": 0,
	} {
		if got, err := countCPUs(list); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", list, got, err, want)
		}
	}
}
