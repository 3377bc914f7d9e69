// Package codec has what the decoders of layer formats have in common: how
// they hand on their output, and where they can be entered again.
package codec

import (
	"errors"
	"fmt"
)

// ErrFormat: the compressed stream is not what its format allows, or its own
// checksum or size does not hold. It comes wrapped in an *Error.
var ErrFormat = errors.New("invalid compressed data")

// An Error says where in the compressed stream decoding failed. Err wraps
// ErrFormat, or is io.ErrUnexpectedEOF for a stream that ends too early, or
// what the underlying reader returned.
type Error struct {
	In  int64 // bytes into the compressed stream: about here
	Err error
}

// A Decoder decodes one compressed layer from its start or from a checkpoint.
// It is for one goroutine at a time and starts none that outlives a call.
type Decoder interface {
	// Next returns the next piece of output, never empty without an error.
	// The slice is valid until the next call. It returns io.EOF after the
	// last piece, and an *Error when the input is at fault.
	Next() ([]byte, error)
}

// An Indexer is a Decoder that was started at the beginning and takes down
// checkpoints while it decodes.
type Indexer interface {
	Decoder
	// Checkpoints returns those complete so far and forgets them, in order.
	// After io.EOF it returns the rest. The first checkpoint of a layer has
	// In, Bit and Out 0. Out strictly increases.
	Checkpoints() []Checkpoint
}

// A Checkpoint is a place where decoding can start without what is before.
type Checkpoint struct {
	// In is the offset in the compressed stream of the byte to start with;
	// Bit (0 to 7) is how many low bits of it to skip (DEFLATE only).
	In  int64
	Bit uint8
	// Out is the offset in the uncompressed stream of the first byte that
	// decoding from here gives.
	Out int64
	// Start says that a gzip member or zstd frame begins here, with its
	// header: Bit and Symbol are 0 and Window is empty.
	Start bool
	// Symbol is not 0 for a checkpoint inside a DEFLATE block: In and Bit
	// are where the block's header begins, and Symbol is the number of bits
	// from there to the first symbol to decode.
	Symbol int64
	Window Window
}

// A Window holds those of the last 32 KiB before a checkpoint that decoding
// from it refers to.
type Window struct {
	// Runs are in ascending order and do not touch or overlap.
	Runs []Run
	// Data holds the bytes of all runs, one behind the other.
	Data []byte
}

// A Run is a run of bytes in a window. Off counts from 32 KiB before the
// checkpoint: Off 32767 is the byte just before it.
type Run struct {
	Off, Len uint16
}

// Error tells the place and the cause.
func (e *Error) Error() string { return fmt.Sprintf("at byte %d: %v", e.In, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
