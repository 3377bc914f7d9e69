package fs

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// maxNameSteps is how many components resolving one name may pass, those of
	// symlinks' targets and empty ones too. A path that Linux takes has 2,048.
	maxNameSteps = 1 << 12
	// maxImageSteps is that of all names of an image together, while its layers
	// are merged.
	maxImageSteps = 1 << 28
)

// ErrSteps: a name leads through more components than any that is no attack, or
// all names of the image do together.
var ErrSteps = errors.New("too many steps to resolve")

// A pathWalk takes the components off a path, and off the targets of the
// symlinks on it.
type pathWalk struct {
	path  string   // what comes next
	outer []string // what comes after that, the last first: not empty
	steps int
	links int
}

// next returns the next component and whether others come after it, if only
// because a slash does. ok is false at the end.
func (w *pathWalk) next() (name string, more, ok bool) {
	for w.path == "" {
		last := len(w.outer) - 1
		if last < 0 {
			return "", false, false
		}
		w.path, w.outer = w.outer[last], w.outer[:last]
	}
	w.steps++
	name, rest, slash := strings.Cut(w.path, "/")
	if slash && rest == "" {
		rest = "."
	}
	w.path = rest
	return name, slash || len(w.outer) > 0, true
}

// follow goes on with a symlink's target.
func (w *pathWalk) follow(target string) error {
	if w.links++; w.links > maxFollow {
		return ErrLoop
	}
	if w.path != "" {
		w.outer = append(w.outer, w.path)
	}
	w.path = target
	return nil
}

// tooLong reports a name that takes more steps than any may.
func (w *pathWalk) tooLong() error {
	if w.steps > maxNameSteps {
		return fmt.Errorf("%w: more than %d", ErrSteps, maxNameSteps)
	}
	return nil
}
