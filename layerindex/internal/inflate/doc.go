// Package inflate decodes DEFLATE (RFC 1951) and can be entered in the middle.
//
// It accepts exactly the streams that compress/flate accepts and gives the
// same bytes, but it also reports where each block begins, resumes at any bit
// with the window before it (all of it, or only the bytes that are referred
// to), also between two symbols of a block, and finds out which bytes of a
// window the data behind it refers to.
//
//	d := inflate.NewDecoder(src, 0)
//	for {
//		event, err := d.Next()
//		if err != nil {
//			return err
//		}
//		if event == inflate.End {
//			break
//		}
//		w.Write(d.Take())
//	}
//	w.Write(d.Take())
//
// # How it is fast
//
// A 64-bit buffer of bits is topped up by one load of 8 bytes, which is enough
// for several literals, or for a match. Tables of packed 32-bit entries, 11 bits
// wide for literals and lengths and 8 for distances, give in one look-up what
// to do and how many bits that takes. Output goes to one linear buffer,
// history first, so matches are plain copies, 8 bytes at a time and past their
// end, where the next symbol writes anyway. All buffers are arrays whose sizes
// are powers of two plus room for an overshoot, and indexes are masked, so the
// compiler sees that no access is out of bounds and checks none: damaged input
// can give wrong bytes in the buffer, which are never handed on, but no panic.
//
// # Limits
//
// A Decoder takes about 570 KiB. There are no preset dictionaries other than
// the windows of checkpoints.
package inflate
