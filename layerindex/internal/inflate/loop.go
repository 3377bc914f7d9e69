package inflate

import "encoding/binary"

const (
	// copyStep is how much a match writes at least.
	copyStep = 32
	// turnInput is how much input has to be left for a turn of the loop:
	// its loads of 8 bytes, each at most 7 bytes after the one before.
	turnInput = 32
	// loopInput is how much there has to be for the loop to get anywhere:
	// it begins with a load of its own.
	loopInput = turnInput + 8
)

// A match is a copy of length bytes from dist bytes back.
type match struct{ length, dist uint }

// stop says why the loop ended.
type stop int

const (
	atLimit  stop = iota // of the input or output
	atStop               // end of the block
	atBad                // invalid codeword
	atFarRef             // d.match reaches behind the floor
)

// decode decodes symbols until the block ends or there is no more input or
// room. At the end of the input, where a turn of the loop could read past it,
// symbols are decoded one by one.
func (d *Decoder) decode() error {
	for d.op < outLimit {
		if d.in.end-d.in.pos < loopInput+8 {
			if d.in.err == nil {
				return nil
			}
			if done, err := d.decodeOne(); done || err != nil {
				return err
			}
			continue
		}
		switch d.loop() {
		case atStop:
			d.endBlock()
			return nil
		case atBad:
			return d.in.fault(errCodeword)
		case atFarRef:
			if err := d.copyFar(); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFar does the match that the loop left: it reaches back to before the
// stream's history, or to before the place that is tracked.
func (d *Decoder) copyFar() error {
	m := d.match
	if m.dist > d.op-d.floor {
		return d.in.fault(errDistance)
	}
	d.mark(m)
	for range m.length {
		d.out[d.op&outMask] = d.out[(d.op-m.dist)&outMask]
		d.op++
	}
	return nil
}

// decodeOne decodes one symbol, and tells whether it ended the block.
func (d *Decoder) decodeOne() (bool, error) {
	at := d.in.at()
	v := d.in.load(at)
	take := func(e uint32) uint {
		extra := uint(v & (1<<(e&takeMask) - 1) >> (e >> 8 & 15))
		v >>= e & takeMask
		at += uint(e & takeMask)
		return uint(e>>16&0x7fff) + extra
	}
	look := func(table []uint32, width uint) uint32 {
		e := table[v&(1<<width-1)]
		if e&(exception|stopBit) == exception {
			at += width
			v >>= width
			e = table[uint(e>>16)+uint(v&(1<<(e>>8&15)-1))]
		}
		return e
	}
	e := look(d.lit[:], litBits)
	value := take(e)
	bad := e&exception != 0 && value != 0
	if e&literalBit == 0 && e&exception == 0 {
		de := look(d.dist[:], distBits)
		bad = de&exception != 0
		d.match = match{length: value, dist: take(de)}
	}
	if err := d.in.setAt(at); err != nil {
		return false, err
	}
	switch {
	case bad:
		return false, d.in.fault(errCodeword)
	case e&literalBit != 0:
		d.out[d.op] = byte(value)
		d.op++
	case e&exception != 0:
		d.endBlock()
		return true, nil
	default:
		return false, d.copyFar()
	}
	return false, nil
}

// loop is the inner loop: it decodes symbols while there is enough input and
// room for whatever a turn may take. It is in one piece so that everything
// stays in registers.
//
// Bits are in bb, and the low six bits of nb say how many; the other bits of nb,
// and the bits of bb behind those, mean nothing, except that the latter are
// either 0 or what the next load gives again. At the head of a turn e is the
// entry for the next bits, which are not taken yet. A load makes 56 bits at
// least. Two literals and a length take at most 11+11+20 of them and leave
// enough to look up, but not to take, a distance, which with the next
// look-up takes 28+11 at most of the second load.
func (d *Decoder) loop() stop {
	in, out, lit, dists := &d.in.buf, &d.out, &d.lit, &d.dist
	op, floor := d.op, d.floor
	if d.track.active {
		floor = d.track.base
	}
	ip, inEnd := d.in.pos, d.in.end-turnInput

	bb := binary.LittleEndian.Uint64(in[ip&inMask:][:8]) >> (d.in.bit & 63)
	nb := uint64(56 - d.in.bit)
	ip += 7
	why := atLimit
	e := lit[bb&(1<<litBits-1)]
	for ip <= inEnd && op < outLimit {
		bb |= binary.LittleEndian.Uint64(in[ip&inMask:][:8]) << (nb & 63)
		ip += uint(^nb>>3) & 7
		nb |= 56

		saved := bb
		bb >>= e & takeMask
		nb -= uint64(e)
		if int32(e) < 0 {
			out[op&outMask] = byte(e >> 16)
			op++
			e = lit[bb&(1<<litBits-1)]
			saved = bb
			if int32(e) < 0 {
				bb >>= e & takeMask
				nb -= uint64(e)
				out[op&outMask] = byte(e >> 16)
				op++
				e = lit[bb&(1<<litBits-1)]
				saved = bb
				if int32(e) < 0 {
					bb >>= e & takeMask
					nb -= uint64(e)
					out[op&outMask] = byte(e >> 16)
					op++
					e = lit[bb&(1<<litBits-1)]
					continue
				}
			}
			bb >>= e & takeMask
			nb -= uint64(e)
		}
		if e&exceptions != 0 {
			if e&stopBit == 0 {
				e = lit[(uint64(e>>16)+bb&(1<<(e>>8&15)-1))&litMask]
				saved = bb
				bb >>= e & takeMask
				nb -= uint64(e)
				if int32(e) < 0 {
					out[op&outMask] = byte(e >> 16)
					op++
					e = lit[bb&(1<<litBits-1)]
					continue
				}
			}
			if e&exceptions != 0 {
				why = atStop
				if e>>16 != 0 {
					why = atBad
				}
				break
			}
		}
		// Looked up before the load, which need not be waited for so.
		de := dists[bb&(1<<distBits-1)]
		length := uint(e>>16) + uint((saved^bb<<(e&takeMask))>>(e>>8&takeMask))
		bb |= binary.LittleEndian.Uint64(in[ip&inMask:][:8]) << (nb & 63)
		ip += uint(^nb>>3) & 7
		nb |= 56
		e = de
		saved = bb
		bb >>= e & takeMask
		nb -= uint64(e)
		if e&exceptions != 0 {
			if e&stopBit == 0 {
				e = dists[(uint64(e>>16)+bb&(1<<(e>>8&15)-1))&distMask]
				saved = bb
				bb >>= e & takeMask
				nb -= uint64(e)
			}
			if e&exceptions != 0 {
				why = atBad
				break
			}
		}
		dist := uint(e>>16) + uint((saved^bb<<(e&takeMask))>>(e>>8&takeMask))
		e = lit[bb&(1<<litBits-1)]
		if dist > op-floor {
			d.match = match{length, dist}
			why = atFarRef
			break
		}

		to, from := op, op-dist
		op += length
		if dist >= 8 {
			for {
				a := (*[copyStep]byte)(out[from&outMask:])
				b := (*[copyStep]byte)(out[to&outMask:])
				binary.LittleEndian.PutUint64(b[0:8], binary.LittleEndian.Uint64(a[0:8]))
				binary.LittleEndian.PutUint64(b[8:16], binary.LittleEndian.Uint64(a[8:16]))
				binary.LittleEndian.PutUint64(b[16:24], binary.LittleEndian.Uint64(a[16:24]))
				binary.LittleEndian.PutUint64(b[24:32], binary.LittleEndian.Uint64(a[24:32]))
				to += copyStep
				from += copyStep
				if to >= op {
					break
				}
			}
			continue
		}
		// The pattern of dist bytes, repeated, is stored in steps that are
		// a multiple of its length.
		v := binary.LittleEndian.Uint64(out[from&outMask:][:8]) & (1<<(dist*8&63) - 1)
		v |= v << (dist * 8 & 63)
		v |= v << (dist * 16)
		v |= v << (dist * 32)
		step := uint(0x76586880>>(dist*4&31)) & 15
		for {
			binary.LittleEndian.PutUint64(out[to&outMask:][:8], v)
			binary.LittleEndian.PutUint64(out[(to+step)&outMask:][:8], v)
			binary.LittleEndian.PutUint64(out[(to+2*step)&outMask:][:8], v)
			binary.LittleEndian.PutUint64(out[(to+3*step)&outMask:][:8], v)
			to += 4 * step
			if to >= op {
				break
			}
		}
	}
	at := ip<<3 - uint(nb&63)
	d.in.pos, d.in.bit = at>>3, at&7
	d.op = op
	return why
}
