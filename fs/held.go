package fs

import "syscall"

// ReadHeldAt is ReadAt of bytes that are in memory, or in a content that is
// open. It fills p from off and returns true if all of p is in the file and
// there; if not, the read has still to be done, and has not counted. It does
// not wait for the network, and hardly for the disk.
func (n Node) ReadHeldAt(p []byte, off int64) bool {
	in, c := n.inode(), n.t.counts
	if c == nil || in.format() != syscall.S_IFREG || len(p) == 0 || off < 0 || int64(len(p)) > in.size-off {
		return false
	}
	f := c.files.get(n.id)
	if f == nil && n.t.contents != nil && n.mayKeep() {
		return false // ReadAt counts it from the first time on
	}
	if !c.readQuickly(n, f, p, off) {
		return false
	}
	l := &c.layers[in.layer]
	l.reads.Add(1)
	l.asked.Add(int64(len(p)))
	if f != nil {
		f.asked.Add(int64(len(p)))
	}
	return true
}
