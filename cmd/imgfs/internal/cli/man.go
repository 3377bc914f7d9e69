package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Flags of the command help: manual pages are for packages, and help does not name them.
const (
	manFlag      = "--man"       // prints a manual page instead of help
	manNamesFlag = "--man-names" // prints the commands that have one, a line each
)

// A roff is a manual page that is being written.
type roff struct{ strings.Builder }

// escape writes text so that roff prints just that.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`, "'", `\(aq`, `"`, `\(dq`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func (r *roff) section(title string) { fmt.Fprintf(r, ".SH %s\n", escape(strings.ToUpper(title))) }

// text writes paragraphs. Those with lines that begin with spaces stay as they are.
func (r *roff) text(text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if i > 0 {
			r.WriteString(".PP\n")
		}
		as := strings.HasPrefix(paragraph, "  ") || strings.Contains(paragraph, "\n  ")
		if as {
			r.WriteString(".nf\n")
		}
		for _, line := range lines {
			r.WriteString(escape(line) + "\n")
		}
		if as {
			r.WriteString(".fi\n")
		}
	}
}

// flags lists the flags that a function declares.
func (r *roff) flags(declare func(*pflag.FlagSet)) {
	for _, row := range flagList(declare, 0).rows {
		fmt.Fprintf(r, ".TP\n\\fB%s\\fR\n%s\n", escape(strings.TrimSpace(row[0])), escape(strings.ReplaceAll(row[1], "\n", " ")))
	}
}

// list lists commands.
func (r *roff) list(before string, commands []Command) {
	for _, c := range commands {
		if c.Entry.Text != "" {
			name := strings.TrimSpace(before + " " + c.Name + " " + c.Entry.Usage)
			fmt.Fprintf(r, ".TP\n\\fB%s\\fR\n%s\n", escape(name), escape(c.Entry.Text))
		}
	}
}

// example writes the example of a page.
func (r *roff) example(text string) {
	r.section("Example")
	fmt.Fprintf(r, ".nf\n%s\n.fi\n", escape(text))
}

// man renders the manual page of this place, in man(7).
func (at place) man() string {
	r := new(roff)
	title := strings.ReplaceAll(strings.TrimSpace(at.Program.Name+" "+at.name), " ", "-")
	fmt.Fprintf(r, ".TH %s 1 \"\" %s\n", escape(strings.ToUpper(title)), escape(at.Program.Name))
	r.section("Name")
	if at.cmd == nil {
		fmt.Fprintf(r, "%s \\- %s\n", escape(title), escape(at.About))
		at.manOfProgram(r)
		return r.String()
	}
	about := at.cmd.Entry.Text
	if about == "" {
		about, _, _ = strings.Cut(at.cmd.About, "\n")
	}
	fmt.Fprintf(r, "%s \\- %s\n", escape(title), escape(about))
	r.section("Synopsis")
	r.text(strings.TrimPrefix(at.usage(), "usage: "))
	r.section("Description")
	r.text(at.cmd.About)
	if at.cmd.Setup != nil {
		r.section("Options")
		before := r.Len()
		r.flags(func(f *pflag.FlagSet) { at.cmd.Setup(f) })
		if r.Len() > before {
			r.WriteString(".PP\n")
		}
		r.text(at.FlagsNote)
	}
	if len(at.cmd.Commands) > 0 {
		r.section("Commands")
		r.list(at.Program.Name+" "+at.name, at.cmd.Commands)
	}
	if at.cmd.Notes != "" {
		r.section("Notes")
		r.text(at.cmd.Notes)
	}
	r.example(at.cmd.Example)
	r.section("See also")
	fmt.Fprintf(r, ".BR %s (1)\n", escape(at.Program.Name))
	return r.String()
}

// manOfProgram writes what the page of the program has behind its name.
func (at place) manOfProgram(r *roff) {
	r.section("Synopsis")
	r.text(at.Program.Name + " COMMAND [FLAGS] ARGUMENTS...")
	r.section("Commands")
	r.list("", append(slices.Clone(at.Commands), Command{Name: "help", Entry: at.HelpEntry}))
	r.WriteString(".PP\n")
	r.text(at.Program.Notes)
	for _, t := range at.Topics {
		r.section(t.Title)
		if t.About != "" {
			r.text(t.About)
		}
		if t.Flags {
			r.flags(at.declare)
			r.WriteString(".PP\n")
		}
		if t.Notes != "" {
			r.text(t.Notes)
		}
	}
	r.example(at.Program.Example)
	r.section("See also")
	var names []string
	for _, name := range at.manNames() {
		names = append(names, ".BR "+escape(at.Program.Name+"-"+strings.ReplaceAll(name, " ", "-"))+" (1)")
	}
	r.WriteString(strings.Join(names, " ,\n") + "\n")
}

// manNames returns the words of all commands.
func (p *Program) manNames() (names []string) {
	var add func(before string, commands []Command)
	add = func(before string, commands []Command) {
		for _, c := range commands {
			names = append(names, before+c.Name)
			add(before+c.Name+" ", c.Commands)
		}
	}
	add("", p.Commands)
	return names
}
