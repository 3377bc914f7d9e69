package fs

import (
	"strings"
	"unsafe"
)

const (
	pieceBits = 20
	pieceSize = 1 << pieceBits
	pieceMask = pieceSize - 1
	// maxPieces keeps where a name is below 2^32.
	maxPieces = 1 << (32 - pieceBits)
)

// A textWriter collects strings in pieces of 1 MiB, so that it can grow without
// a copy of all that it holds. No string lies in two pieces.
type textWriter struct {
	pieces [][]byte
	room   Room
}

// text are the strings of a textWriter, frozen.
type text []string

// add appends a string, with its length in one byte before it if counted, and
// returns where it is.
func (w *textWriter) add(s string, counted bool) (at int64) {
	n := len(s)
	if counted {
		n++
	}
	last := len(w.pieces) - 1
	if last < 0 || len(w.pieces[last])+n > pieceSize {
		var piece []byte // the first one may stay small
		if last++; last > 0 || w.room != nil {
			piece = makeIn[byte](w.room, pieceSize)
		}
		w.pieces = append(w.pieces, piece)
	}
	p := w.pieces[last]
	at = int64(last)<<pieceBits | int64(len(p))
	if counted {
		p = append(p, byte(len(s)))
	}
	w.pieces[last] = append(p, s...)
	return at
}

// asString returns bytes that do not change any more, as append leaves those before them.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// at returns n bytes.
func (w *textWriter) at(at, n int64) string {
	return asString(w.pieces[at>>pieceBits])[at&pieceMask:][:n]
}

// counted returns a string that was added with its length.
func (w *textWriter) counted(at uint32) string {
	return counted(asString(w.pieces[at>>pieceBits]), at)
}

func counted(piece string, at uint32) string {
	from := at & pieceMask
	return piece[from+1:][:piece[from]]
}

// freeze returns the strings. Nothing may be added any more.
func (w *textWriter) freeze() text {
	t := make(text, len(w.pieces))
	for i, p := range w.pieces {
		t[i] = asString(p)
	}
	if last := len(w.pieces) - 1; last >= 0 && w.room == nil && cap(w.pieces[last])-len(t[last]) > len(t[last])/16 {
		t[last] = strings.Clone(t[last])
	}
	return t
}

func (t text) at(at, n int64) string { return t[at>>pieceBits][at&pieceMask:][:n] }

func (t text) counted(at uint32) string { return counted(t[at>>pieceBits], at) }
