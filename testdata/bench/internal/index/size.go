package index

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// The kinds of sections, docs/index-format.md.
const (
	kindEntries = 1
	kindSpans   = 3
	kindWindows = 4
	kindDigests = 5
	sectionRow  = 64 // bytes in the table
)

// sectionSizes returns how many bytes an index file has and how many the body
// of each of its sections has, by kind. It goes by the specification.
func sectionSizes(x *layerindex.Index) (total int64, stored map[uint32]int64, err error) {
	var file bytes.Buffer
	if _, err := x.WriteTo(&file); err != nil {
		return 0, nil, err
	}
	b, le := file.Bytes(), binary.LittleEndian
	if len(b) < 128 || len(b) < 128+sectionRow*int(le.Uint32(b[120:])) {
		return 0, nil, errors.New("index file without a table of sections")
	}
	stored = map[uint32]int64{}
	for i := range int(le.Uint32(b[120:])) {
		row := b[128+sectionRow*i:]
		stored[le.Uint32(row)] = int64(le.Uint64(row[16:]))
	}
	return int64(len(b)), stored, nil
}

// manySmall is how many entries for a MB of its blob make a layer one of many
// small files, which are wanted less of: the npm packages of the lab's node
// image have 1,000, base has 130.
const manySmall = 500

// size reports how big an index is.
func (b *bench) size(in *input) error {
	total, stored, err := sectionSizes(in.index)
	if err != nil {
		return err
	}
	total -= stored[kindDigests] + sectionRow
	percent := func(n int64) float64 { return 100 * float64(n) / float64(in.Size) }
	whole := figures.Figure{Name: in.Name + ": all but content digests, of the blob", Unit: "%", Ours: percent(total), Peer: sociPeer}
	z, err := b.ztoc(in)
	switch {
	case errors.Is(err, runner.ErrNotBuilt):
		whole.PeerMissing = err.Error()
	case err != nil:
		return err
	}
	whole.Theirs = percent(z.Bytes)
	points := figures.Figure{Name: in.Name + ": checkpoints and windows, of the blob", Unit: "%", Ours: percent(stored[kindSpans] + stored[kindWindows])}
	entries := figures.Figure{Name: in.Name + ": entries, of the blob", Unit: "%", Ours: percent(stored[kindEntries])}
	switch perMB := float64(in.index.NumEntries()) / (float64(in.Size) / 1e6); {
	case perMB > manySmall:
		points.AtMost, entries.AtMost = figures.Most(0.7), figures.Most(2)
	case in.Made:
		whole.AtMost = figures.Most(1)
	default:
		whole.AtMost, points.AtMost, entries.AtMost = figures.Most(1), figures.Most(0.7), figures.Most(0.25)
	}
	b.Add(whole, points, entries)
	files, err := filledFiles(in.index)
	if err != nil || files == 0 {
		return err
	}
	b.Add(figures.Figure{Name: in.Name + ": content digests, for a file with content", Unit: "B", Ours: float64(stored[kindDigests]) / float64(files), AtMost: figures.Most(33)})
	return nil
}

// filledFiles returns how many regular files have content: the others need no
// digest.
func filledFiles(x *layerindex.Index) (int, error) {
	entries, err := x.EntriesWithDigests()
	if err != nil {
		return 0, err
	}
	n := 0
	for e := range entries {
		if e.Type == layerindex.TypeReg && e.Size > 0 {
			n++
		}
	}
	return n, nil
}
