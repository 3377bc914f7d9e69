package zstd

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/klauspost/compress/zstd"
)

// smallWindow is the most that a decoder keeps of a frame's output without
// asking. A match reaches no farther back than there is output, so that much
// is also enough for the beginning of a frame with a larger window, and for
// all of one that turns out short: what is asked for says little about what
// is needed, "zstd --long=27" writes 128 MiB in front of everything.
//
// It is a little over 8 MiB: a reader that decodes spans of at most 8 MiB,
// and may stop in the middle of one for as long as it likes, never asks.
const smallWindow = 9 << 20

// maxKept is the most of a frame's beginning that is kept, to decode it again
// with a larger window. No encoder makes 64 MiB of 9. It is a variable for
// tests.
var maxKept = 64 << 20

// errGrow is what the small decoder gets to see for the rest of a frame that
// goes on behind smallWindow. It does not leave the package.
var errGrow = errors.New("frame needs a larger window")

var errKept = errors.New("frame's blocks have next to no output")

// spare are decoders with windows up to smallWindow, of type *zstd.Decoder,
// that nobody uses: each would otherwise make its window anew.
var spare sync.Pool

// large is the one decoder of the process for windows over smallWindow: side
// by side they would take 128 MiB each. A Decoder of such a frame has it
// from smallWindow bytes of output on until the frame's end.
var large = largeDecoder{held: make(chan struct{}, 1)}

type largeDecoder struct {
	held chan struct{} // has an element while somebody has it

	// These are its owner's: the last decoder with its window, and how large that
	// is. The garbage collector may take it when nobody needed it for a while.
	idle   weak.Pointer[zstd.Decoder]
	window uint64
	recent atomic.Pointer[zstd.Decoder]
}

// patience is how long a decoder is kept for the next frame: a window that is
// made anew has to be cleared first, however little of it is used then.
const patience = time.Second

// impatience is how long a wait for the large decoder lasts before it looks
// for owners that are gone without a word.
const impatience = time.Second

// A hold on the large decoder ends once.
type hold struct{ once sync.Once }

func (h *hold) end() { h.once.Do(func() { <-large.held }) }

// acquire waits for the large decoder and makes it ready for a window. It gives
// up when done is closed.
func (l *largeDecoder) acquire(window uint64, done <-chan struct{}) (*hold, *zstd.Decoder, error) {
	for waiting := true; waiting; {
		select {
		case l.held <- struct{}{}:
			waiting = false
		case <-done:
			return nil, nil, errEnded
		case <-time.After(impatience):
			runtime.GC()
		}
	}
	h := new(hold)
	if dec := l.idle.Value(); dec != nil && l.window >= window {
		return h, dec, nil
	}
	if l.idle.Value() != nil {
		// A smaller one is of no use: its memory should go first.
		l.recent.Store(nil)
		runtime.GC()
	}
	dec, err := newDecoder()
	if err != nil {
		h.end()
		return nil, nil, err
	}
	l.idle, l.window = weak.Make(dec), window
	return h, dec, nil
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), // no goroutines
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxWindow),
		zstd.WithDecodeAllCapLimit(true))
}

// acquire gets the large decoder for the current frame.
func (d *Decoder) acquire() error {
	d.putSmall() // a Decoder that waits should not hold much
	h, dec, err := large.acquire(d.body.need, d.in.done())
	if err != nil {
		return err
	}
	d.hold, d.zstd = h, dec
	// For a Decoder that is dropped without Close.
	d.dropped = runtime.AddCleanup(d, (*hold).end, h)
	return nil
}

// grow goes over to the large decoder, which decodes the frame once more from
// its beginning, and skips what has been handed on.
func (d *Decoder) grow() error {
	if err := d.acquire(); err != nil {
		return err
	}
	given := d.body.given
	if err := d.zstd.Reset(d.body.again()); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, d.zstd, given)
	return err
}

// release gives the large decoder back.
func (d *Decoder) release() {
	if d.hold == nil {
		return
	}
	d.dropped.Stop()
	dec := d.zstd
	d.zstd = nil
	dec.Reset(nil) // so that it does not keep d alive
	large.recent.Store(dec)
	time.AfterFunc(patience, func() { large.recent.CompareAndSwap(dec, nil) })
	d.hold.end()
	d.hold = nil
}

// end gives back the decoder in use.
func (d *Decoder) end() {
	d.release()
	d.putSmall()
}

// putSmall leaves the small decoder in use, if there is one, to others.
func (d *Decoder) putSmall() {
	if d.zstd == nil {
		return
	}
	d.zstd.Reset(nil) // as above
	spare.Put(d.zstd)
	d.zstd = nil
}

// Close gives back what the decoder shares with others: the memory for
// windows. It need not be called after Next has returned an error. Without it
// others wait for a large window until the garbage collector notices.
func (d *Decoder) Close() error {
	if d.err == nil {
		d.err = errClosed
	}
	d.end()
	return nil
}

// errEnded: what the stream is read for has ended.
var errEnded = errors.New("zstd: the stream is not read any more")

var errClosed = errors.New("zstd: decoder is closed")

// lessen returns a frame's header with a window that is enough for need bytes
// of output, and that window; or the header as it is, if that asks for no more.
func (h header) lessen(raw []byte, need uint64) ([]byte, uint64) {
	b, window := windowFor(need)
	if window >= h.window {
		return raw, h.window
	}
	const singleSegment = 0x20
	rest := raw[6:]
	if raw[4]&singleSegment != 0 {
		rest = raw[5:] // there is no window
	}
	out := append([]byte{}, raw[:4]...)
	out = append(out, raw[4]&^singleSegment, b)
	return append(out, rest...), window
}

// windowFor returns the smallest window of at least n bytes that a frame can
// ask for, and the byte that asks for it: RFC 8878, 3.1.1.1.2.
func windowFor(n uint64) (byte, uint64) {
	for b := 0; b < 0xff; b++ {
		base := uint64(1) << (10 + b>>3)
		if w := base + base/8*uint64(b&7); w >= n {
			return byte(b), w
		}
	}
	return 0xff, 15 << 38
}
