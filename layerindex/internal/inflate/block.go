package inflate

// lengthOrder is the order of the code length codes' lengths: RFC 1951, 3.2.7.
const lengthOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

// readHeader decodes the header of a block: RFC 1951, 3.2.3.
func (d *Decoder) readHeader() error {
	at := d.in.at()
	v := d.in.load(at)
	final, kind := v&1 != 0, v>>1&3
	at += 3
	var err error
	switch kind {
	case 0:
		at, err = d.readStored(at)
	case 1:
		d.buildFixed()
		d.state = inSymbols
	case 2:
		at, err = d.readCodes(at)
		d.state = inSymbols
	default:
		err = errBlockType
	}
	if end := d.in.setAt(at); end != nil {
		return end
	}
	if err != nil {
		return d.in.fault(err)
	}
	d.final = final
	d.begin = (d.In()-d.block.In)<<3 + int64(d.in.bit) - int64(d.block.Bit)
	return nil
}

// readStored decodes the header of a stored block, which goes on at the next
// byte boundary: RFC 1951, 3.2.4.
func (d *Decoder) readStored(at uint) (uint, error) {
	at = (at + 7) &^ 7
	v := uint32(d.in.load(at))
	if uint16(v) != ^uint16(v>>16) {
		return at + 32, errStored
	}
	d.stored = int(uint16(v))
	d.state = inStored
	return at + 32, nil
}

// copyStored copies what there is and there is room for of a stored block.
func (d *Decoder) copyStored() error {
	if d.stored > 0 && d.in.pos == d.in.end {
		return d.in.endError()
	}
	room := d.out[d.op:outLimit]
	n := copy(room[:min(len(room), d.stored)], d.in.buf[d.in.pos:d.in.end])
	d.op += uint(n)
	d.in.pos += uint(n)
	d.stored -= n
	if d.stored == 0 {
		d.endBlock()
	}
	return nil
}

// buildFixed makes the tables of RFC 1951, 3.2.6.
func (d *Decoder) buildFixed() {
	if d.fixed {
		return
	}
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	build(d.lit[:], litBits, lengths[:], d.symbols.lit[:])
	for i := range 32 {
		lengths[i] = 5
	}
	build(d.dist[:], distBits, lengths[:32], d.symbols.dist[:])
	d.fixed = true
}

// readCodes decodes the two codes of a dynamic block and makes their tables:
// RFC 1951, 3.2.7. Behind the end of the input it reads zeros.
func (d *Decoder) readCodes(at uint) (uint, error) {
	d.fixed = false
	v := d.in.load(at)
	lits, dists, lens := int(v&31)+257, int(v>>5&31)+1, int(v>>10&15)+4
	at += 14
	if lits > maxLits || dists > maxDists {
		return at, errLengths
	}
	var lenLengths [maxLens]uint8
	v = d.in.load(at)
	for i := range lens {
		if i == 16 {
			v = d.in.load(at + 48)
		}
		lenLengths[lengthOrder[i]] = uint8(v & 7)
		v >>= 3
	}
	at += uint(lens) * 3
	if !build(d.lens[:], lenBits, lenLengths[:], d.symbols.lens[:]) {
		return at, errLengths
	}
	var lengths [512]uint8
	at, ok := d.readLengths(at, lengths[:], lits+dists)
	if !ok ||
		!build(d.lit[:], litBits, lengths[:lits], d.symbols.lit[:]) ||
		!build(d.dist[:], distBits, lengths[lits:lits+dists], d.symbols.dist[:]) {
		return at, errLengths
	}
	return at, nil
}

// readLengths decodes n code lengths. There is room for a repetition that
// goes too far.
func (d *Decoder) readLengths(at uint, lengths []uint8, n int) (uint, bool) {
	v, left := d.in.load(at), 57
	for i := 0; i < n; {
		if left < 14 {
			v, left = d.in.load(at), 57
		}
		e := d.lens[v&(lenSize-1)]
		if e&exception != 0 {
			return at, false
		}
		take := e & takeMask
		sym := e >> 16
		var value uint8
		repeat, extra := 1, uint32(0)
		switch {
		case sym < 16:
			value = uint8(sym)
		case sym == 16:
			if i == 0 {
				return at, false
			}
			value = lengths[i-1]
			repeat, extra = 3, 2
		case sym == 17:
			repeat, extra = 3, 3
		default:
			repeat, extra = 11, 7
		}
		v >>= take
		repeat += int(v & (1<<extra - 1))
		v >>= extra
		left -= int(take + extra)
		at += uint(take + extra)
		if i+repeat > n {
			return at, false
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return at, true
}
