package blobs

import (
	"slices"
	"testing"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// TestFillRanges: the chunks that ranges lie in come, in the order of the ranges, and no
// others.
func TestFillRanges(t *testing.T) {
	t.Parallel()
	one := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*bigChunk+1, 230)}
	two := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*bigChunk, 231)}
	c := openCache(t, t.TempDir(), nil)
	b1, b2 := cachedBig(t, c, one, one.Data), cachedBig(t, c, two, two.Data)
	checkRead(t, b1, one, 11*bigChunk, 1)
	before := len(one.Asked())
	err := c.FillRanges(t.Context(), []Range{
		{b2, 3*bigChunk + 1, 4*bigChunk + 1},   // 3 and 4
		{b1, 10 * bigChunk, 13 * bigChunk},     // 10 and 12: 11 is there
		{b1, 50 * bigChunk, 99 * bigChunk},     // the last one
		{b1, 20 * bigChunk, 20 * bigChunk},     // nothing
		{b1, 60 * bigChunk, 61 * bigChunk},     // nothing, behind the end
		{b2, -5 * bigChunk, 1},                 // 0
		{b1, 12*bigChunk - 1, 12*bigChunk + 1}, // 11 and 12, which are there
	})
	if err != nil {
		t.Fatal(err)
	}
	chunks := func(src *cachetest.FakeBlob, from int) (list []int64) {
		for _, r := range src.Asked()[from:] {
			for at := r.Off; at < r.End; at += bigChunk {
				list = append(list, at/bigChunk)
			}
		}
		slices.Sort(list)
		return list
	}
	if got, want := chunks(one, before), []int64{10, 12, 50}; !slices.Equal(got, want) {
		t.Errorf("asked for the chunks %v of the first blob, want %v", got, want)
	}
	if got, want := chunks(two, 0), []int64{0, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("asked for the chunks %v of the second blob, want %v", got, want)
	}
	if err := c.FillRanges(t.Context(), nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}
