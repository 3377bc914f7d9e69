package treediff

import (
	"strings"

	"github.com/imgfs/imgfs/fs"
)

// A Kind says on which side of a comparison a path is.
type Kind uint8

// The kinds of changes.
const (
	Changed Kind = iota // on both sides
	Added               // on the second alone
	Removed             // on the first alone
)

// String returns the word for the kind.
func (k Kind) String() string {
	switch k {
	case Added:
		return "added"
	case Removed:
		return "removed"
	}
	return "changed"
}

// What is a set of the things in which two files can differ.
type What uint16

// The things that are compared.
const (
	Type      What = 1 << iota // a file, a directory, a symlink, ...
	Content                    // of regular files
	Target                     // of symlinks
	Device                     // the numbers of devices
	Mode                       // permissions, with setuid, setgid and sticky
	Owner                      // user and group
	Time                       // of modification
	Xattrs                     // extended attributes
	HardLinks                  // which other paths are the same file
)

// words are the names of single things, in the order of the constants.
var words = [...]string{"type", "content", "target", "device", "mode", "owner", "time", "xattrs", "hardlinks"}

// Words returns the names of the things in the set.
func (w What) Words() []string {
	var all []string
	for i, word := range words {
		if w&(1<<i) != 0 {
			all = append(all, word)
		}
	}
	return all
}

// String returns the names of the things in the set, with commas between them.
func (w What) String() string { return strings.Join(w.Words(), ",") }

// ParseWhat returns the thing that has a name.
func ParseWhat(word string) (w What, ok bool) {
	for i, known := range words {
		if word == known {
			return 1 << i, true
		}
	}
	return 0, false
}

// A Change is a path that is not the same on both sides.
type Change struct {
	// Path leads from what is compared to the file, with slashes between names:
	// "etc/passwd". It is "" of what is compared itself.
	Path string
	Kind Kind
	// Old and New are the file on the first side and on the second. Where it is not,
	// Node is the zero Node.
	Old, New fs.Node
	// What is not the same; 0 unless Kind is Changed.
	What What
}
