package diff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/treediff"
)

// A Form is a way to print changes.
type Form int

// The forms.
const (
	Lines   Form = iota // a line for each path, with what is not the same
	Names               // the paths alone
	Stat                // bytes that were added and removed
	Unified             // and the lines of text files that are not the same
	JSON
)

// Config is how a Reporter prints.
type Config struct {
	Form     Form
	Terminal bool // Output is one: names are escaped
	Width    int  // its columns; 0: no limit
	Color    bool
	Null     bool  // NUL follows each of Names, not a newline
	Depth    int   // Stat: how many names of a path have a row; 0: all
	Exact    bool  // Stat: sizes in bytes
	TextSize int64 // Unified: the size of files from which on they are not compared by lines

	Output io.Writer
	// Failed is told of files that cannot be compared.
	Failed func(error)
}

// A Reporter prints changes. It is for one goroutine.
type Reporter struct {
	Config
	w     *bufio.Writer
	array *show.Array
	stat  stat

	found, failed bool
}

// NewReporter returns a reporter. Close must be called, unless Report has failed.
func NewReporter(c Config) *Reporter {
	r := &Reporter{Config: c, w: bufio.NewWriterSize(c.Output, 32<<10)}
	if c.Form == JSON {
		r.array = show.NewArray(r.w)
	}
	return r
}

// Differs reports whether there was a change, and Failed whether something could not be
// compared.
func (r *Reporter) Differs() bool    { return r.found }
func (r *Reporter) Incomplete() bool { return r.failed }

// Report prints changes. old and new are the paths of what is compared, in their images.
// The error is that of ctx, or of writing.
func (r *Reporter) Report(ctx context.Context, changes iter.Seq2[treediff.Change, error], old, new string) error {
	for c, err := range changes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := located{Change: c, old: join(old, c.Path), new: join(new, c.Path)}
		if err != nil {
			r.failed = true
			if err := r.w.Flush(); err != nil {
				return err
			}
			r.Failed(fmt.Errorf("%s: %w", p.path(), err))
			if c.What == 0 {
				continue
			}
		}
		r.found = true
		if err := r.print(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Close prints what comes last.
func (r *Reporter) Close() error {
	var err error
	switch r.Form {
	case JSON:
		err = r.array.Close()
	case Stat:
		err = r.printStat()
	}
	return errors.Join(err, r.w.Flush())
}

// A located change knows the absolute paths of the file.
type located struct {
	treediff.Change
	old, new string
}

// path is the one that is printed.
func (c located) path() string {
	if c.Kind == treediff.Removed {
		return c.old
	}
	return c.new
}

func join(root, path string) string {
	switch {
	case path == "":
		return root
	case root == "/":
		return "/" + path
	}
	return root + "/" + path
}

func (r *Reporter) print(ctx context.Context, c located) error {
	switch r.Form {
	case JSON:
		return r.array.Add(newDocument(c))
	case Stat:
		r.stat.add(c, r.Depth)
		return nil
	case Names:
		end := "\n"
		if r.Null {
			end = "\x00"
		}
		_, err := r.w.WriteString(r.name(c.path()) + end)
		return err
	case Unified:
		return r.printUnified(ctx, c)
	}
	return r.printLine(c, r.name)
}

// name returns how a name is printed.
func (r *Reporter) name(s string) string { return entry.Name(s, r.Terminal) }

// letters are what lines begin with.
var letters = map[treediff.Kind]string{treediff.Changed: "~", treediff.Added: "+", treediff.Removed: "-"}

// printLine prints a change in a line, with names written by name.
func (r *Reporter) printLine(c located, name func(string) string) error {
	line := letters[c.Kind] + " " + name(c.path())
	if c.Kind == treediff.Changed {
		line += "  " + strings.Join(details(c.Change, name), ", ")
	}
	return r.writeLine(line)
}

// writeLine prints a line in the colour that its first letter has.
func (r *Reporter) writeLine(line string) error {
	_, err := r.w.WriteString(r.colored(line) + "\n")
	return err
}

// colored returns a line in the colour that its first letter has.
func (r *Reporter) colored(line string) string {
	if !r.Color || line == "" {
		return line
	}
	color := map[byte]string{'+': "32", '-': "31", '~': "33", '@': "36"}[line[0]]
	if color == "" {
		return line
	}
	return "\x1b[" + color + "m" + line + "\x1b[m"
}

// details returns the words for what is not the same.
func details(c treediff.Change, name func(string) string) []string {
	a, b := c.Old.Attr(), c.New.Attr()
	var all []string
	for _, word := range c.What.Words() {
		what, _ := treediff.ParseWhat(word)
		var old, new string
		switch what {
		case treediff.Type:
			old, new = entry.Type(a.Mode), entry.Type(b.Mode)
		case treediff.Target:
			old, new = name(c.Old.Target()), name(c.New.Target())
		case treediff.Device:
			old, new = fmt.Sprintf("%d:%d", a.Major, a.Minor), fmt.Sprintf("%d:%d", b.Major, b.Minor)
		case treediff.Mode:
			old, new = fmt.Sprintf("%04o", a.Mode&0o7777), fmt.Sprintf("%04o", b.Mode&0o7777)
		case treediff.Owner:
			old, new = fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID)
		case treediff.Time:
			old, new = entry.Time(a), entry.Time(b)
		case treediff.Xattrs:
			for _, x := range treediff.XattrNames(c.Old, c.New) {
				word += " " + name(x)
			}
			all = append(all, word)
			continue
		default:
			all = append(all, word)
			continue
		}
		all = append(all, word+" "+old+" -> "+new)
	}
	return all
}
