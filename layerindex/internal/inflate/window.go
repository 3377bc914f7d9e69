package inflate

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// A tracker finds out which bytes of the 32 KiB before a place are referred to
// by the 32 KiB behind it. It costs next to nothing: for that long the loop's
// check for a distance that is too far back is for the place instead of the
// beginning of the stream, so that exactly the matches in question come out.
type tracker struct {
	active bool
	base   uint // the place in the output buffer
	used   [windowSize / 64]uint64
	window [windowSize]byte
}

// Track starts to find out what of the window before the current place is
// needed to go on from there. What an earlier Track has not found out yet is
// lost.
func (d *Decoder) Track() {
	t := &d.track
	t.active = true
	t.base = d.op
	copy(t.window[:], d.out[d.op-windowSize:d.op])
	clear(t.used[:])
}

// Tracking tells whether the result of Track is not there yet. It is there 32
// KiB of output later, or at the end of the stream.
func (d *Decoder) Tracking() bool { return d.track.active }

// Window returns the result of the last Track once it is there.
func (d *Decoder) Window() codec.Window {
	t := &d.track
	total := 0
	for _, w := range t.used {
		total += bits.OnesCount64(w)
	}
	if total == 0 {
		return codec.Window{}
	}
	w := codec.Window{Data: make([]byte, 0, total)}
	for off := t.next(0, 0); off < windowSize; {
		end := t.next(off, ^uint64(0))
		w.Runs = append(w.Runs, codec.Run{Off: uint16(off), Len: uint16(end - off)})
		w.Data = append(w.Data, t.window[off:end]...)
		off = t.next(end, 0)
	}
	return w
}

// next returns the first byte of the window from off on that is used, or, if
// flip is all ones, that is not.
func (t *tracker) next(off int, flip uint64) int {
	for off < windowSize {
		w := (t.used[off>>6] ^ flip) >> (off & 63)
		if w != 0 {
			return off + bits.TrailingZeros64(w)
		}
		off = off&^63 + 64
	}
	return windowSize
}

// mark notes what a match takes from before the place.
func (d *Decoder) mark(m match) {
	t := &d.track
	behind := d.op - t.base
	if !t.active || m.dist <= behind {
		return
	}
	off := windowSize - (m.dist - behind)
	for end := min(off+m.length, windowSize); off < end; {
		n := min(end-off, 64-off&63)
		t.used[off>>6] |= (1<<n - 1) << (off & 63)
		off += n
	}
}

// trackOutput ends the tracking when no match can reach the window any more.
func (d *Decoder) trackOutput() {
	if d.track.active && d.op-d.track.base >= windowSize {
		d.track.active = false
	}
}

// Resume makes d go on at a checkpoint that is not a Start, reading from src,
// which is at byte cp.In of the compressed stream. For a checkpoint inside a
// block whatever lies between the block's header and the place is skipped, by
// seeking if src is an io.Seeker. Bytes of the window that cp does not have
// count as zeros.
func (d *Decoder) Resume(src io.Reader, cp *codec.Checkpoint) error {
	if cp.Bit > 7 || cp.Symbol < 0 || cp.Symbol > 1<<60 || cp.In < 0 || cp.Out < 0 {
		return fmt.Errorf("%w: bit %d of byte %d, symbol at %d", errPlace, cp.Bit, cp.In, cp.Symbol)
	}
	d.Reset(src, cp.In, cp.Out)
	if err := fillWindow(d.out[:windowSize], &cp.Window); err != nil {
		return err
	}
	d.floor = 0
	if err := d.in.skip(int64(cp.Bit)); err != nil {
		return err
	}
	if cp.Symbol == 0 {
		return nil
	}
	d.block, _ = d.Place()
	d.in.fill(headerSize)
	if err := d.readHeader(); err != nil {
		return err
	}
	if d.state != inSymbols || cp.Symbol < d.begin {
		return fmt.Errorf("%w: no symbol at bit %d of the block at byte %d", errPlace, cp.Symbol, cp.In)
	}
	return d.in.skip(cp.Symbol - d.begin)
}

// fillWindow puts the runs of w where they belong, and zeros elsewhere.
func fillWindow(p []byte, w *codec.Window) error {
	clear(p)
	data := w.Data
	last := -1
	for _, r := range w.Runs {
		off, end := int(r.Off), int(r.Off)+int(r.Len)
		if off <= last || end > len(p) || int(r.Len) > len(data) {
			return fmt.Errorf("%w: window with a run of %d bytes at %d", errPlace, r.Len, r.Off)
		}
		copy(p[off:end], data)
		data = data[r.Len:]
		last = end
	}
	if len(data) != 0 {
		return fmt.Errorf("%w: window with %d bytes too many", errPlace, len(data))
	}
	return nil
}
