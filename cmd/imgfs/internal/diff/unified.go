package diff

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/remote/printable"
	linediff "github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"
)

// printUnified prints a change as diff -u does, and what that cannot say in a line before
// it. Names are quoted there, too, so that none looks like a part of a patch.
func (r *Reporter) printUnified(ctx context.Context, c located) error {
	text := isFile(c.Old) && c.Kind != treediff.Added || isFile(c.New) && c.Kind != treediff.Removed
	switch c.Kind {
	case treediff.Changed:
		text = c.What&treediff.Content != 0
	default:
		text = text && size(c.Old)+size(c.New) > 0
	}
	if !text || c.Kind == treediff.Changed && c.What != treediff.Content {
		if err := r.printLine(c, quoted); err != nil {
			return err
		}
	}
	if !text {
		return nil
	}
	from, to := "/dev/null", "/dev/null"
	if c.Kind != treediff.Added {
		from = label("a", c.old)
	}
	if c.Kind != treediff.Removed {
		to = label("b", c.new)
	}
	differ := func(why string) error {
		return r.writeLine(fmt.Sprintf("Files %s and %s differ (%s: --max-text)", strings.TrimSpace(from), strings.TrimSpace(to), why))
	}
	if larger := max(size(c.Old), size(c.New)); larger > r.TextSize {
		return differ(show.Bytes(larger))
	}
	before, errA := readAll(ctx, c.Old)
	after, errB := readAll(ctx, c.New)
	for _, err := range []error{errA, errB} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.failed = true
			r.Failed(fmt.Errorf("%s: %w", c.path(), err))
			return nil
		}
	}
	if bytes.IndexByte(before, 0) >= 0 || bytes.IndexByte(after, 0) >= 0 {
		return r.writeLine(fmt.Sprintf("Binary files %s and %s differ", strings.TrimSpace(from), strings.TrimSpace(to)))
	}
	if n := bytes.Count(before, newline) + bytes.Count(after, newline); int64(n) > r.TextSize/lineCost {
		return differ(show.Count(n, "line"))
	}
	patch, err := compareLines(ctx, from, before, to, after)
	if err != nil {
		return err
	}
	_, patch, _ = bytes.Cut(patch, newline) // the line "diff FROM TO"
	return r.printPatch(string(patch))
}

// compareLines returns a patch. What is not done when ctx ends goes on in vain: it is
// bounded, but can take seconds.
func compareLines(ctx context.Context, from string, before []byte, to string, after []byte) ([]byte, error) {
	done := make(chan []byte, 1)
	go func() { done <- linediff.Diff(from, before, to, after) }()
	select {
	case patch := <-done:
		return patch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var newline = []byte("\n")

// lineCost bounds lines, which cost more memory than their bytes: files are not compared
// by lines if both together have more of them than the size up to which they are is times
// as large as this. So 8 MiB of newlines do not take a gigabyte.
const lineCost = 8

// printPatch prints a patch: byte for byte unless that would act on a terminal.
func (r *Reporter) printPatch(patch string) error {
	if !r.Terminal && !r.Color {
		_, err := r.w.WriteString(patch)
		return err
	}
	for line := range strings.Lines(patch) {
		line = strings.TrimSuffix(line, "\n")
		if r.Terminal {
			parts := strings.Split(line, "\t")
			for i := range parts {
				parts[i] = printable.Text(parts[i])
			}
			line = strings.Join(parts, "\t")
		}
		if err := r.writeLine(line); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads a file that is not large. Nothing is an empty file.
func readAll(ctx context.Context, n fs.Node) ([]byte, error) {
	if !isFile(n) {
		return nil, nil
	}
	p := make([]byte, n.Attr().Size)
	k, err := n.ReadAt(ctx, p, 0)
	if err == io.EOF || k == len(p) {
		err = nil
	}
	return p[:k], err
}

func isFile(n fs.Node) bool {
	return n != (fs.Node{}) && n.Mode()&unix.S_IFMT == unix.S_IFREG
}

// label returns the name of a file in the head of a patch, below a or b.
func label(side, path string) string {
	name := quoted(side + path)
	if strings.Contains(name, " ") && name[0] != '"' {
		name += "\t" // else patch takes what is behind the space for a time
	}
	return name
}

// quoted returns a name as diff and patch have it: if anything in it could be taken for
// something else it stands in quotes, with the escapes of C.
func quoted(name string) string {
	if printable.Harmless(name) && !strings.ContainsAny(name, `"\`) && strings.TrimSpace(name) == name && name != "" {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
