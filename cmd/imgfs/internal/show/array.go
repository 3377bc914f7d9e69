package show

import "io"

// An Array prints a JSON array whose elements are not all known at once, one a line.
// Its text is that of Marshal. Nothing else may be written to the same place until
// Close.
type Array struct {
	w     io.Writer
	begun bool
}

// NewArray returns an array without elements. Close must be called, unless a Write has
// failed.
func NewArray(w io.Writer) *Array { return &Array{w: w} }

// Add prints one more element.
func (a *Array) Add(v any) error {
	text, err := Marshal(v)
	if err != nil {
		return err
	}
	before := ",\n    "
	if !a.begun {
		a.begun, before = true, "[\n    "
	}
	_, err = a.w.Write(append([]byte(before), text...))
	return err
}

// Close prints the end of the array.
func (a *Array) Close() error {
	end := "\n]\n"
	if !a.begun {
		end = "[]\n"
	}
	_, err := io.WriteString(a.w, end)
	return err
}
