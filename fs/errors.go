package fs

import (
	"errors"
	"fmt"
)

// Reasons for which Merge refuses a layer, to be found with errors.Is.
var (
	// ErrEscape: the name climbs above the root.
	ErrEscape = errors.New("name climbs above the root")
	// ErrWhiteoutName: a whiteout of "", "." or "..".
	ErrWhiteoutName = errors.New("invalid whiteout name")
	// ErrNameTooLong: a component over 255 bytes or a path over 4,096.
	ErrNameTooLong = errors.New("name too long")
	// ErrParent: the entry lies below something of the same layer that is
	// neither a directory nor a symlink.
	ErrParent = errors.New("parent is not a directory")
	// ErrLoop: more than 40 symlinks on the way to the entry.
	ErrLoop = errors.New("too many levels of symlinks")
	// ErrLinkTarget: a hard link to a directory, to itself, or to what is not
	// there at that position.
	ErrLinkTarget = errors.New("hard link target")
	// ErrEntry: the entry contradicts itself or describes what no file system
	// can hold.
	ErrEntry = errors.New("invalid entry")
	// ErrTooLarge: more layers, inodes or bytes of names than a Tree can number.
	ErrTooLarge = errors.New("tree too large")
)

// An EntryError says which entry of which layer Merge refused, and why.
type EntryError struct {
	Layer string // Layer.Name
	Name  string // as the entry has it
	Err   error  // wraps one of the reasons above
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("layer %s: entry %q: %v", e.Layer, e.Name, e.Err)
}

// Unwrap returns e.Err.
func (e *EntryError) Unwrap() error { return e.Err }
