package printable

import (
	"io"
	"strings"
)

// NewWriter returns a writer that puts Text in place of what is written, but
// for newlines, and passes it on to w. It is the net below whatever should have
// been escaped and was not. What is given to one Write is taken to have no rune
// that goes on in the next one.
func NewWriter(w io.Writer) io.Writer { return writer{w} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	lines := strings.Split(string(p), "\n")
	for i, l := range lines {
		lines[i] = Text(l)
	}
	if _, err := io.WriteString(w.to, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}
