package soci

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rawEntries returns what a ztoc says of each entry, all fields of it.
func rawEntries(t testing.TB, z *ztoc) []string {
	t.Helper()
	list := make([]string, z.entries.n)
	for i := range list {
		e := z.entries.table(i)
		var b strings.Builder
		for _, field := range []int{entryName, entryType, entryLink, entryUser, entryGroup} {
			fmt.Fprintf(&b, "%q ", e.bytes(field))
		}
		for _, field := range []int{entryOff, entrySize, entryMode, entryMajor, entryMinor} {
			fmt.Fprintf(&b, "%d ", e.int64(field))
		}
		// Time zones differ.
		fmt.Fprintf(&b, "%d:%d %.19q", e.uint32(entryUID), e.uint32(entryGID), e.bytes(entryTime))
		records := e.vector(entryRecords)
		for k := range records.n {
			r := records.table(k)
			fmt.Fprintf(&b, " %q=%q", r.bytes(recordKey), r.bytes(recordValue))
		}
		list[i] = b.String()
	}
	if z.f.err != nil {
		t.Fatal(z.f.err)
	}
	return list
}

// spanSizeOf returns the span size that a ztoc was built with.
func spanSizeOf(z *ztoc) int64 {
	info := z.f.root().table(ztocInfo)
	b := info.bytes(infoCheckpoints)
	if z.plain {
		return newBuffer(b).root().int64(tarSpanSize)
	}
	return int64(binary.LittleEndian.Uint64(b[4:]))
}

func mustOpen(t testing.TB, b []byte) *ztoc {
	t.Helper()
	z, err := open(b)
	if err == nil {
		err = z.readSpans()
	}
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// checkSame compares a ztoc of ours with one of SOCI's builder.
func checkSame(t testing.TB, ours, theirs []byte) {
	t.Helper()
	got, want := mustOpen(t, ours), mustOpen(t, theirs)
	if got.blobSize != want.blobSize || got.tarSize != want.tarSize || got.plain != want.plain {
		t.Errorf("sizes %d, %d (plain: %v), SOCI has %d, %d (%v)", got.blobSize, got.tarSize, got.plain, want.blobSize, want.tarSize, want.plain)
	}
	if g, w := rawEntries(t, got), rawEntries(t, want); !slices.Equal(g, w) {
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Errorf("entry %d\n%s\nSOCI: %s", i, g[i], w[i])
			}
		}
		t.Errorf("%d entries, SOCI has %d", len(g), len(w))
	}
	if len(got.spans) != len(want.spans) {
		t.Errorf("%d spans, SOCI has %d", len(got.spans), len(want.spans))
		return
	}
	for i := range got.spans {
		g, w := &got.spans[i], &want.spans[i]
		if g.off != w.off || g.end != w.end || g.sum != w.sum || g.point.In != w.point.In || g.point.Bit != w.point.Bit || g.point.Out != w.point.Out {
			t.Errorf("span %d: %d to %d, for %d, %x\nSOCI: %d to %d, for %d, %x", i, g.off, g.end, g.point.Out, g.sum, w.off, w.end, w.point.Out, w.sum)
		}
		if !bytes.Equal(g.point.Window.Data, w.point.Window.Data) {
			for k, c := range g.point.Window.Data {
				if c != 0 && c != w.point.Window.Data[k] {
					t.Errorf("span %d: byte %d of the window", i, k)
					break
				}
			}
		}
	}
}

// TestBuildForeign: our ztocs have the entries, places and digests that those of SOCI
// have, and windows with some of their bytes.
func TestBuildForeign(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"latin1-soci-v2", "sink-soci-v2", "sink-soci-v2-small", "soci-forty", "soci-tar"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range foreign(t, name) {
				theirs := mustOpen(t, s.ztoc)
				var read int64
				ours, err := Build(context.Background(), s.layer(), bytes.NewReader(s.blob), &BuildOptions{SpanSize: spanSizeOf(theirs), Progress: func(n int64) { read = n }})
				if err != nil {
					t.Fatal(err)
				}
				if read != int64(len(s.blob)) {
					t.Errorf("progress ends at %d of %d", read, len(s.blob))
				}
				checkSame(t, ours, s.ztoc)
				s.ztoc, s.first = ours, nil
				checkEntries(t, s.index(t), s.pass(t))
				s.checkContent(t, s.index(t))
			}
		})
	}
}
