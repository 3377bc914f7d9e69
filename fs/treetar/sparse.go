package treetar

import (
	"iter"
	"strconv"

	"github.com/imgfs/imgfs/fs"
)

// runsOf iterates over the runs of a file that are in the tar. Of a sparse file they
// begin and end with blocks, or with the file: GNU tar reads each from a new block on.
func runsOf(n fs.Node) iter.Seq2[int64, int64] {
	if !n.IsSparse() {
		return n.Data()
	}
	return wholeBlocks(n.Data(), n.Attr().Size)
}

// wholeBlocks iterates over runs of a file of a size, made longer to whole blocks.
// Those that touch become one.
func wholeBlocks(runs iter.Seq2[int64, int64], size int64) iter.Seq2[int64, int64] {
	return func(yield func(off, end int64) bool) {
		var from, to int64
		for off, end := range runs {
			off -= off & (blockSize - 1)
			end += min(padding(end), size-end)
			if off > to {
				if to > from && !yield(from, to) {
					return
				}
				from = off
			}
			to = end
		}
		if to > from {
			yield(from, to)
		}
	}
}

// sparseMap returns the map of a sparse file, and how many bytes it and the data are.
func sparseMap(n fs.Node) (text []byte, size int64) {
	count := 0
	var b []byte
	add := func(off, size int64) {
		b = append(strconv.AppendInt(b, off, 10), '\n')
		b = append(strconv.AppendInt(b, size, 10), '\n')
		count++
	}
	end := int64(0)
	for from, to := range runsOf(n) {
		add(from, to-from)
		size += to - from
		end = to
	}
	if whole := n.Attr().Size; end < whole || count == 0 {
		add(whole, 0) // so GNU tar says that there is a hole at the end
	}
	text = pad(append([]byte(strconv.Itoa(count)+"\n"), b...))
	return text, size + int64(len(text))
}
