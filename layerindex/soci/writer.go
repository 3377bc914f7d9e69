package soci

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/flatbuffers/go"
	"github.com/imgfs/imgfs/layerindex"
)

// A writer writes a ztoc. Strings that many entries have are in it once.
type writer struct {
	b       *flatbuffers.Builder
	entries []flatbuffers.UOffsetT
}

// A summary holds what a ztoc says of a layer as a whole.
type summary struct {
	tool              string
	blobSize, tarSize int64
}

func newWriter() *writer { return &writer{b: flatbuffers.NewBuilder(pieceSize)} }

// addEntry adds the next entry of the tar. off is where its content begins, or would. It
// refuses what a ztoc has no words for, some of which SOCI's builder lets pass.
func (w *writer) addEntry(h *tar.Header, off int64) error {
	t := int(h.Typeflag) - '0'
	if t < 0 || t >= len(typeNames) {
		return fmt.Errorf("%w: %.64q is of type %q", ErrUnsupported, h.Name, h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, sparsePrefix) {
			return fmt.Errorf("%w: %.64q is a sparse file", ErrUnsupported, h.Name)
		}
	}
	modified, err := h.ModTime.UTC().MarshalText()
	if err != nil {
		return fmt.Errorf("%w: %.64q: %w", ErrUnsupported, h.Name, err)
	}
	b := w.b
	size := int64(0) // whatever others say of theirs, nothing comes behind their headers
	if h.Typeflag == byte(layerindex.TypeReg) {
		size = h.Size
	}
	name := b.CreateString(h.Name)
	kind := b.CreateSharedString(typeNames[t])
	link := b.CreateSharedString(h.Linkname)
	user, group := b.CreateSharedString(h.Uname), b.CreateSharedString(h.Gname)
	at := b.CreateSharedString(string(modified))
	records := w.addRecords(h.PAXRecords)

	b.StartObject(entryFields)
	b.PrependUOffsetTSlot(entryName, name, 0)
	b.PrependUOffsetTSlot(entryType, kind, 0)
	b.PrependInt64Slot(entryOff, off, 0)
	b.PrependInt64Slot(entrySize, size, 0)
	b.PrependUOffsetTSlot(entryLink, link, 0)
	b.PrependInt64Slot(entryMode, h.Mode, 0)
	b.PrependUint32Slot(entryUID, uint32(h.Uid), 0)
	b.PrependUint32Slot(entryGID, uint32(h.Gid), 0)
	b.PrependUOffsetTSlot(entryUser, user, 0)
	b.PrependUOffsetTSlot(entryGroup, group, 0)
	b.PrependUOffsetTSlot(entryTime, at, 0)
	b.PrependInt64Slot(entryMajor, h.Devmajor, 0)
	b.PrependInt64Slot(entryMinor, h.Devminor, 0)
	b.PrependUOffsetTSlot(entryRecords, records, 0)
	w.entries = append(w.entries, b.EndObject())
	if w.size() > MaxZtoc {
		return errTooBig
	}
	return nil
}

// size returns how many bytes the ztoc has so far.
func (w *writer) size() int { return int(w.b.Offset()) + 4*len(w.entries) }

// addRecords adds the pax records of an entry, sorted.
func (w *writer) addRecords(records map[string]string) flatbuffers.UOffsetT {
	b := w.b
	list := make([]flatbuffers.UOffsetT, 0, len(records))
	for _, k := range slices.Sorted(maps.Keys(records)) {
		key, value := b.CreateSharedString(k), b.CreateSharedString(records[k])
		b.StartObject(recordFields)
		b.PrependUOffsetTSlot(recordKey, key, 0)
		b.PrependUOffsetTSlot(recordValue, value, 0)
		list = append(list, b.EndObject())
	}
	return b.CreateVectorOfTables(list)
}

// finish returns the ztoc. Nothing may be added any more.
func (w *writer) finish(of layer, s summary) ([]byte, error) {
	b := w.b
	algorithm, points, sums := of.spans()
	if w.size()+len(points)+len(sums)*(digestSize+8) > MaxZtoc {
		return nil, errTooBig
	}
	tool := b.CreateString(s.tool)
	v := b.CreateString(version)
	entries := b.CreateVectorOfTables(w.entries)
	b.StartObject(tocFields)
	b.PrependUOffsetTSlot(tocEntries, entries, 0)
	toc := b.EndObject()

	list := make([]flatbuffers.UOffsetT, len(sums))
	for i, sum := range sums {
		list[i] = b.CreateString(fmt.Sprintf("%s%x", digestPrefix, sum))
	}
	digests := b.CreateVectorOfTables(list)
	checkpoints := b.CreateByteVector(points)
	b.StartObject(infoFields)
	b.PrependByteSlot(infoAlgorithm, algorithm, 0)
	b.PrependInt32Slot(infoMaxSpan, int32(len(sums)-1), 0)
	b.PrependUOffsetTSlot(infoDigests, digests, 0)
	b.PrependUOffsetTSlot(infoCheckpoints, checkpoints, 0)
	info := b.EndObject()

	b.StartObject(ztocFields)
	b.PrependUOffsetTSlot(ztocVersion, v, 0)
	b.PrependUOffsetTSlot(ztocTool, tool, 0)
	b.PrependInt64Slot(ztocBlobSize, s.blobSize, 0)
	b.PrependInt64Slot(ztocTarSize, s.tarSize, 0)
	b.PrependUOffsetTSlot(ztocTOC, toc, 0)
	b.PrependUOffsetTSlot(ztocInfo, info, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes(), nil
}
