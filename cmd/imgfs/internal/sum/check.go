package sum

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
)

// counts are of what a check has found.
type counts struct{ matched, differ, unread, missing, malformed int }

// maxLine is how long a line of a list may be: a path has 4,096 bytes, two for each in a
// line.
const maxLine = 64 << 10

// Check compares the sums in a list, called name, with files of an image. Names that begin
// with no slash begin in dir. An error is one of the list or of writing; whether files
// are as the list has them Finish says.
func (s *Summer) Check(name string, list io.Reader, img *entry.Image, dir string) error {
	lines := bufio.NewScanner(list)
	lines.Buffer(nil, maxLine)
	number := 0
	err := s.files(func(yield func(file) bool) {
		for lines.Scan() {
			number++
			line := lines.Text()
			if line == "" || line[0] == '#' {
				continue
			}
			sum, typed, ok := parseLine(line)
			if !ok {
				s.malformed(name, number)
				continue
			}
			if !yield(s.listed(img, dir, typed, sum)) {
				return
			}
		}
	})
	switch {
	case err != nil:
		return err
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return fmt.Errorf("%s: line %d has more than %d bytes", name, number+1, maxLine)
	case lines.Err() != nil:
		return fmt.Errorf("%s: %w", name, lines.Err())
	}
	return s.summarize(name)
}

// malformed counts a line that is no sum.
func (s *Summer) malformed(name string, number int) {
	s.counts.malformed++
	if s.o.warn {
		s.out.Warnf("%s: line %d has no SHA-256 and name", name, number)
	}
}

// listed looks up a file of a list.
func (s *Summer) listed(img *entry.Image, dir, typed, sum string) file {
	f := file{image: img, typed: typed, path: typed, expected: sum}
	if !strings.HasPrefix(typed, "/") {
		f.path = strings.TrimSuffix(dir, "/") + "/" + typed
	}
	if f.node, f.err = img.Tree.Lookup(f.path, true); f.err == nil {
		f.err = regular(f.node)
	}
	f.path = path.Clean("/" + f.path)
	return f
}

// checked prints whether a file is as the list has it.
func (s *Summer) checked(f *file) error {
	status, word := "ok", "OK"
	switch {
	case f.err != nil:
		s.counts.unread++
		status, word = "unreadable", "FAILED open or read"
	case f.sum != f.expected:
		s.counts.differ++
		status, word = "differs", "FAILED"
	default:
		s.counts.matched++
	}
	switch {
	case s.array != nil:
		r := f.row()
		r.Expected, r.Status = "sha256:"+f.expected, status
		return s.array.Add(r)
	case s.o.status, s.out.Quiet && status == "ok":
		return nil
	}
	name := f.typed
	if strings.Contains(name, "\n") {
		name = `\` + escapes.Replace(name)
	}
	_, err := fmt.Fprintf(s.w, "%s: %s\n", s.shown(name), word)
	return err
}

// summarize says what was not as it should be.
func (s *Summer) summarize(name string) error {
	c := s.counts
	if c == (counts{malformed: c.malformed}) {
		return fmt.Errorf("%s: no line has a SHA-256 and a name", name)
	}
	if c.differ+c.unread > 0 || s.o.strict && c.malformed > 0 {
		s.failed = true
	}
	for _, trouble := range []struct {
		files int
		what  string
	}{{c.malformed, "lines without a SHA-256 and a name"}, {c.unread, "files that cannot be read"}, {c.differ, "files that differ"}} {
		if trouble.files > 0 && !s.o.status {
			s.out.Warnf("%s: %s: %d", name, trouble.what, trouble.files)
		}
	}
	if s.o.ignoreMissing && c.matched == 0 {
		return fmt.Errorf("%s: no file of the image was compared", name)
	}
	return nil
}
