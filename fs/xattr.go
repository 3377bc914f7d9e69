package fs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// Linux limits: XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrNames = 64 << 10 // of one inode, each with a NUL
)

// addXattrs adds to a list that is sorted by name what an inode with a mode
// keeps of another, and returns the list. The later one of a name wins.
func addXattrs(to, list []layerindex.Xattr, mode uint16) ([]layerindex.Xattr, error) {
	for _, x := range list {
		// setxattr(2) refuses these.
		if x.Name == "" || len(x.Name) > maxXattrName || len(x.Value) > maxXattrValue {
			return nil, fmt.Errorf("%w: xattr %.40q of %d bytes", ErrEntry, x.Name, len(x.Value))
		}
		if !keepsXattr(x.Name, mode) {
			continue
		}
		i, found := slices.BinarySearchFunc(to, x.Name, func(x layerindex.Xattr, name string) int {
			return strings.Compare(x.Name, name)
		})
		if found {
			to[i] = x
		} else {
			to = slices.Insert(to, i, x)
		}
	}
	size := 0
	for _, x := range to {
		size += len(x.Name) + 1
	}
	if size > maxXattrNames {
		return nil, fmt.Errorf("%w: %d bytes of xattr names", ErrEntry, size)
	}
	return to, nil
}

func keepsXattr(name string, mode uint16) bool {
	if strings.HasPrefix(name, "trusted.overlay.") {
		return false // overlayfs's own, about a stack that is not ours
	}
	if strings.HasPrefix(name, "user.") {
		// xattr(7): only files and directories have user attributes.
		format := uint32(mode) & syscall.S_IFMT
		return format == syscall.S_IFREG || format == syscall.S_IFDIR
	}
	return true
}

// An xattrTable stores lists of xattrs, equal ones once. A list is the number
// of its xattrs and, of each, the lengths of name and value and their bytes;
// numbers are varints.
type xattrTable struct {
	data strings.Builder // at most 4 GiB, or the offsets are wrong
	seen map[string]uint32
}

// add returns the offset of a list that is sorted by name.
func (t *xattrTable) add(list []layerindex.Xattr) uint32 {
	b := binary.AppendUvarint(nil, uint64(len(list)))
	for _, x := range list {
		b = binary.AppendUvarint(b, uint64(len(x.Name)))
		b = binary.AppendUvarint(b, uint64(len(x.Value)))
		b = append(append(b, x.Name...), x.Value...)
	}
	off, ok := t.seen[string(b)]
	if ok {
		return off
	}
	if t.seen == nil {
		t.seen = make(map[string]uint32)
	}
	off = uint32(t.data.Len())
	t.seen[string(b)] = off
	t.data.Write(b)
	return off
}

// decodeXattrs returns the list at an offset that add returned.
func decodeXattrs(data string, off uint32) []layerindex.Xattr {
	count, data := cutUvarint(data[off:])
	if count == 0 {
		return nil
	}
	list := make([]layerindex.Xattr, count)
	for i := range list {
		var name, value uint64
		name, data = cutUvarint(data)
		value, data = cutUvarint(data)
		list[i] = layerindex.Xattr{Name: data[:name], Value: data[name : name+value]}
		data = data[name+value:]
	}
	return list
}

// cutUvarint is binary.Uvarint for strings.
func cutUvarint(s string) (v uint64, rest string) {
	for i := 0; ; i++ {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, s[i+1:]
		}
	}
}
