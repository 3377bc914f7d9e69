package soci

import (
	"slices"
	"testing"

	flatbuffers "github.com/google/flatbuffers/go"
)

// A doc is a ztoc taken apart, so that tests can make it say something else.
type doc struct {
	version           string
	blobSize, tarSize int64
	entries           []docEntry
	algorithm         byte
	maxSpan           int32
	sums              []string
	points            []byte
}

type docEntry struct {
	name, kind, link, at string
	off, size            int64
	mode, major, minor   int64
	uid, gid             uint32
	records              [][2]string
}

// takeApart reads a ztoc that is right.
func takeApart(t testing.TB, b []byte) *doc {
	t.Helper()
	f := newBuffer(b)
	root := f.root()
	info := root.table(ztocInfo)
	d := &doc{
		version: string(root.bytes(ztocVersion)), blobSize: root.int64(ztocBlobSize), tarSize: root.int64(ztocTarSize),
		algorithm: info.byte(infoAlgorithm, algorithmGzip), maxSpan: int32(info.uint32(infoMaxSpan)),
		points: slices.Clone(info.bytes(infoCheckpoints)),
	}
	sums := info.vector(infoDigests)
	for i := range sums.n {
		d.sums = append(d.sums, string(sums.bytes(i)))
	}
	entries := root.table(ztocTOC).vector(tocEntries)
	for i := range entries.n {
		e := entries.table(i)
		c := docEntry{
			name: string(e.bytes(entryName)), kind: string(e.bytes(entryType)), link: string(e.bytes(entryLink)), at: string(e.bytes(entryTime)),
			off: e.int64(entryOff), size: e.int64(entrySize), mode: e.int64(entryMode), major: e.int64(entryMajor), minor: e.int64(entryMinor),
			uid: e.uint32(entryUID), gid: e.uint32(entryGID),
		}
		records := e.vector(entryRecords)
		for k := range records.n {
			r := records.table(k)
			c.records = append(c.records, [2]string{string(r.bytes(recordKey)), string(r.bytes(recordValue))})
		}
		d.entries = append(d.entries, c)
	}
	if f.err != nil {
		t.Fatal(f.err)
	}
	return d
}

// putTogether writes a ztoc, whatever it says.
func (d *doc) putTogether() []byte {
	b := flatbuffers.NewBuilder(0)
	texts := func(list []string) flatbuffers.UOffsetT {
		at := make([]flatbuffers.UOffsetT, len(list))
		for i, s := range list {
			at[i] = b.CreateString(s)
		}
		return b.CreateVectorOfTables(at)
	}
	entries := make([]flatbuffers.UOffsetT, len(d.entries))
	for i := range d.entries {
		entries[i] = d.entries[i].put(b)
	}
	list := b.CreateVectorOfTables(entries)
	b.StartObject(tocFields)
	b.PrependUOffsetTSlot(tocEntries, list, 0)
	toc := b.EndObject()
	sums, points := texts(d.sums), b.CreateByteVector(d.points)
	b.StartObject(infoFields)
	b.PrependByteSlot(infoAlgorithm, d.algorithm, 1)
	b.PrependInt32Slot(infoMaxSpan, d.maxSpan, 0)
	b.PrependUOffsetTSlot(infoDigests, sums, 0)
	b.PrependUOffsetTSlot(infoCheckpoints, points, 0)
	info := b.EndObject()
	v := b.CreateString(d.version)
	b.StartObject(ztocFields)
	b.PrependUOffsetTSlot(ztocVersion, v, 0)
	b.PrependInt64Slot(ztocBlobSize, d.blobSize, 0)
	b.PrependInt64Slot(ztocTarSize, d.tarSize, 0)
	b.PrependUOffsetTSlot(ztocTOC, toc, 0)
	b.PrependUOffsetTSlot(ztocInfo, info, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}

func (e *docEntry) put(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	var records []flatbuffers.UOffsetT
	for _, r := range e.records {
		k, v := b.CreateString(r[0]), b.CreateString(r[1])
		b.StartObject(recordFields)
		b.PrependUOffsetTSlot(recordKey, k, 0)
		b.PrependUOffsetTSlot(recordValue, v, 0)
		records = append(records, b.EndObject())
	}
	list := b.CreateVectorOfTables(records)
	name, kind, link, at := b.CreateString(e.name), b.CreateString(e.kind), b.CreateString(e.link), b.CreateString(e.at)
	b.StartObject(entryFields)
	b.PrependUOffsetTSlot(entryName, name, 0)
	b.PrependUOffsetTSlot(entryType, kind, 0)
	b.PrependUOffsetTSlot(entryLink, link, 0)
	b.PrependUOffsetTSlot(entryTime, at, 0)
	b.PrependInt64Slot(entryOff, e.off, 0)
	b.PrependInt64Slot(entrySize, e.size, 0)
	b.PrependInt64Slot(entryMode, e.mode, 0)
	b.PrependInt64Slot(entryMajor, e.major, 0)
	b.PrependInt64Slot(entryMinor, e.minor, 0)
	b.PrependUint32Slot(entryUID, e.uid, 0)
	b.PrependUint32Slot(entryGID, e.gid, 0)
	b.PrependUOffsetTSlot(entryRecords, list, 0)
	return b.EndObject()
}

// find returns the entry of a name.
func (d *doc) find(t testing.TB, name string) *docEntry {
	t.Helper()
	i := slices.IndexFunc(d.entries, func(e docEntry) bool { return e.name == name })
	if i < 0 {
		t.Fatalf("no entry %q", name)
	}
	return &d.entries[i]
}
