package hosts

import "strings"

// A BrokenError says what is wrong with places that a credential was looked for
// in. They count as missing. Its text is made for a message: it is harmless to a
// terminal, and has no secret.
type BrokenError struct {
	// Reasons has one error for each place, which names it.
	Reasons []error
	// Loud says that one of them should be told to the user at once. A helper that
	// is not installed is of interest only when the registry refuses.
	Loud bool
}

// Error returns all reasons in one line.
func (e *BrokenError) Error() string {
	texts := make([]string, len(e.Reasons))
	for i, reason := range e.Reasons {
		texts[i] = reason.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns e.Reasons.
func (e *BrokenError) Unwrap() []error { return e.Reasons }
