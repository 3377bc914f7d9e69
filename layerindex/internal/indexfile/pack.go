package indexfile

import (
	"bytes"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/klauspost/compress/zstd"
)

// A Packer compresses, each time one zstd frame.
type Packer struct{ w *zstd.Encoder }

// NewPacker returns a Packer, which the caller closes.
func NewPacker() (*Packer, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	return &Packer{w}, err
}

// Pack returns b compressed.
func (p *Packer) Pack(b []byte) []byte { return p.w.EncodeAll(b, nil) }

// PackFrom compresses what write writes, which must be size bytes.
func (p *Packer) PackFrom(size int64, write func(io.Writer) error) (column.Column, error) {
	var packed column.Column
	if size <= smallSection {
		var raw bytes.Buffer
		if err := write(&raw); err != nil {
			return packed, err
		}
		_, err := packed.Write(p.Pack(raw.Bytes()))
		return packed, err
	}
	p.w.ResetContentSize(&packed, size)
	if err := write(p.w); err != nil {
		return packed, err
	}
	return packed, p.w.Close()
}

// Close frees what the Packer holds.
func (p *Packer) Close() { p.w.Close() }

// NewUnpacker returns a decoder for Unpack, which any number of goroutines may use,
// in turn. It remembers what it decoded last.
func NewUnpacker() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxSection))
}

// unpackOnce is Unpack with a decoder of its own, which leaves nothing.
func unpackOnce(b []byte, size int64) ([]byte, error) {
	dec, err := NewUnpacker()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return Unpack(dec, b, size)
}

// Unpack decodes one zstd frame of a known decoded length.
func Unpack(dec *zstd.Decoder, b []byte, size int64) ([]byte, error) {
	// What claims to be longer than this is decoded piece by piece, so that
	// memory follows what really comes out.
	if credible := int64(len(b))*256 + 1<<20; size > credible {
		return unpackSlowly(b, size)
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	if h.HasFCS && h.FrameContentSize != uint64(size) {
		return nil, errLength(size)
	}
	out, err := dec.DecodeAll(b, make([]byte, 0, size))
	if err == nil && int64(len(out)) != size {
		err = errLength(size)
	}
	return out, err
}

func errLength(size int64) error { return fmt.Errorf("decodes to another length than %d", size) }

// unpackSlowly is Unpack for a length that is hard to believe.
func unpackSlowly(b []byte, size int64) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, size+1))
	if err == nil && int64(len(out)) != size {
		err = errLength(size)
	}
	return out, err
}
