package zstd

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// streamCount is how many streams are compared with a program that must be
// started for each: IMGFS_STREAMS, or few.
func streamCount() int {
	if n, err := strconv.Atoi(os.Getenv("IMGFS_STREAMS")); err == nil {
		return n
	}
	return 100
}

// onlyWeRefuse has why a stream that the program takes may be refused, by a
// part of the error's text. None of them comes out of an encoder.
var onlyWeRefuse = []struct{ text, reason string }{
	{"stream overrun", "a Huffman stream that does not end where it should: klauspost/compress, which the runtimes decode with, refuses it"},
	{"block too small", "a compressed block of under three bytes: likewise"},
	{"frame size does not match", "a frame that states another size than it has: the program does not look if its last block is empty"},
	{"needs a window of", "a window over MaxWindow: the program does not look at it where the frame says its size and fits in its buffers"},
}

// TestAgreesWithProgram composes streams of frames, by an encoder and by hand,
// and damages some: the zstd program and this package accept the same ones and
// have the same bytes of them, but for what onlyWeRefuse lists.
func TestAgreesWithProgram(t *testing.T) {
	testenv.Slow(t)
	verdicts := map[string]int{}
	for seed := range streamCount() {
		stream := composed(t, rand.New(rand.NewPCG(uint64(seed), 2)))
		got, err := drain(NewIndexer(bytes.NewReader(stream), nil))
		want, theirErr := program(t, stream, "-dc", "--memory=128MB", "--no-sparse")
		switch {
		case err == nil && theirErr == nil && bytes.Equal(got, want):
			verdicts["accepted"]++
		case err != nil && theirErr != nil:
			verdicts["refused"]++
		case err != nil && allowed(err) != "":
			verdicts[allowed(err)]++
		default:
			t.Errorf("seed %d: %d bytes, %v; the program %d bytes, %v\n%x", seed, len(got), err, len(want), theirErr, stream[:min(len(stream), 400)])
		}
	}
	t.Log(verdicts)
	if verdicts["accepted"] < 20 || verdicts["refused"] < 20 {
		t.Errorf("%v: too few to tell", verdicts)
	}
}

func allowed(err error) string {
	for _, a := range onlyWeRefuse {
		if strings.Contains(err.Error(), a.text) {
			return a.reason
		}
	}
	return ""
}

// composed is a stream of up to four frames, with something wrong in every
// second one.
func composed(t *testing.T, r *rand.Rand) []byte {
	var in []byte
	for range 1 + r.IntN(4) {
		switch r.IntN(6) {
		case 0:
			in = append(in, skippable(uint32(r.IntN(16)), string(make([]byte, r.IntN(40))))...)
		case 1, 2:
			in = append(in, handmade(r)...)
		default:
			in = append(in, encode(t, text(r.IntN(1<<r.IntN(17)+1)), zstd.WithEncoderLevel(zstd.EncoderLevel(1+r.IntN(4))),
				zstd.WithEncoderCRC(r.IntN(2) == 0), zstd.WithSingleSegment(r.IntN(2) == 0), zstd.WithEncoderConcurrency(1))...)
		}
	}
	for range r.IntN(4) - 1 {
		at := r.IntN(len(in))
		switch r.IntN(6) {
		case 0:
			in[at] ^= 1 << r.IntN(8)
		case 1:
			in[r.IntN(min(len(in), 16))] = byte(r.IntN(256))
		case 2:
			in = in[:at+1]
		case 3:
			in = append(in, byte(r.IntN(256)))
		case 4:
			in = append(in[:at:at], append([]byte{byte(r.IntN(256))}, in[at:]...)...)
		case 5:
			in = append(in[:at:at], in[min(at+1, len(in)-1):]...)
		}
	}
	return in
}

// handmade is a frame of raw and run-length blocks with a header of any kind:
// RFC 8878, 3.1.1. What it claims is mostly true.
func handmade(r *rand.Rand) []byte {
	var blocks []byte
	size, n := 0, 1+r.IntN(4)
	for i := range n {
		length := r.IntN(1 << r.IntN(10))
		size += length
		kind := r.IntN(2)
		if r.IntN(40) == 0 {
			kind = 2 + r.IntN(2)
		}
		header := uint32(length<<3 | kind<<1)
		if i == n-1 {
			header |= 1
		}
		blocks = append(blocks, byte(header), byte(header>>8), byte(header>>16))
		if kind == 1 {
			length = 1
		}
		blocks = append(blocks, bytes.Repeat([]byte{byte('a' + i)}, length)...)
	}
	if r.IntN(20) == 0 {
		size += r.IntN(9) - 4
	}
	out := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	var sizeField []byte
	flag, single := r.IntN(4), r.IntN(2)
	switch flag {
	case 0:
		if single == 1 && size > 255 {
			single = 0
		}
		if single == 1 {
			sizeField = []byte{byte(size)}
		}
	case 1:
		if size < 256 {
			size, flag = max(size, 0), 2
			sizeField = binary.LittleEndian.AppendUint32(nil, uint32(size))
			break
		}
		sizeField = binary.LittleEndian.AppendUint16(nil, uint16(size-256))
	case 2:
		sizeField = binary.LittleEndian.AppendUint32(nil, uint32(size))
	case 3:
		sizeField = binary.LittleEndian.AppendUint64(nil, uint64(size))
	}
	descriptor := byte(flag<<6 | single<<5)
	var dictionary []byte
	switch r.IntN(20) {
	case 0:
		descriptor |= 8 // reserved
	case 1:
		descriptor |= 16 // unused
	case 2, 3:
		id := 1 + r.IntN(3)
		descriptor |= byte(id)
		dictionary = make([]byte, []int{0, 1, 2, 4}[id])
		if r.IntN(4) == 0 {
			dictionary[0] = 1
		}
	}
	out = append(out, descriptor)
	if single == 0 {
		window := byte(r.IntN(12)<<3 | r.IntN(8))
		if r.IntN(20) == 0 {
			window = byte(r.IntN(256))
		}
		out = append(out, window)
	}
	return append(append(append(out, dictionary...), sizeField...), blocks...)
}
