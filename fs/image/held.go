package image

import "github.com/imgfs/imgfs/fs"

// ReadHeldAt implements fs.Content.
func (c *layerContent) ReadHeldAt(n fs.Node, p []byte, off int64) bool {
	f := c.img.counts.files.get(fileID(n))
	if f == nil && c.img.contents != nil && mayKeep(n) {
		return false // ReadAt counts it from the first time on
	}
	if !c.readQuickly(n, f, p, off) {
		return false
	}
	l := &c.img.counts.layers[c.at]
	l.reads.Add(1)
	l.asked.Add(int64(len(p)))
	if f != nil {
		f.asked.Add(int64(len(p)))
	}
	return true
}
