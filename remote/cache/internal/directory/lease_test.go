package directory

import (
	"encoding/binary"
	"testing"
	"time"
)

// A program that knows nothing of temporary files writes 0, and what cannot be
// counts as that.
func TestDecodeLease(t *testing.T) {
	for _, tt := range []struct {
		bytes, temps int64
		want         lease
	}{
		{5, 0, lease{5, 0}},
		{5, 4, lease{5, 4}},
		{5, 6, lease{5, 0}},
		{-1, 0, lease{}},
		{MaxTotal, 1, lease{}},
		{5, -1, lease{5, 0}},
	} {
		s := ledger{temps: func() int64 { return tt.temps }}
		p := s.encodeLease(max(tt.bytes, tt.temps))
		copy(p, (&ledger{}).encodeLease(tt.bytes)[:8])
		if got := decodeLease(p); got != tt.want {
			t.Errorf("%d, %d: got %+v, want %+v", tt.bytes, tt.temps, got, tt.want)
		}
	}
}

func TestSpaceEncoding(t *testing.T) {
	id := [16]byte{1, 2, 3}
	p := EncodeLedger(id, 1234, 567)
	if len(p) != ledgerHeader || string(p[:8]) != "imgfsspc" || p[8] != 1 || p[16] != 1 ||
		binary.LittleEndian.Uint64(p[32:]) != 1234 || binary.LittleEndian.Uint64(p[40:]) != 567 {
		t.Errorf("encoded as %x", p)
	}
	if r, _ := DecodeLedger(p, id); r.Used != 1234 || r.walked != 567 || !r.Known {
		t.Errorf("decoded as %+v", r)
	}
}

func TestSeries(t *testing.T) {
	var s recordingGroup
	now := time.Now()
	s.begin(now)
	first := s.began
	s.active, s.ended = 0, now.Add(time.Second)
	if s.begin(s.ended.Add(groupPause / 2)); s.began != first {
		t.Error("a short pause ends a group")
	}
	s.active = 0
	if s.begin(s.ended.Add(2 * groupPause)); s.began == first {
		t.Error("a long pause does not end a group")
	}
	first = s.began
	if s.begin(first.Add(2 * groupTime)); s.began == first {
		t.Error("a group has no end")
	}
}
