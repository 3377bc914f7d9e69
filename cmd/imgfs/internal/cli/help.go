package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// help renders the help of the program or of a command.
func (at place) help() string {
	if at.cmd == nil {
		return at.Program.help()
	}
	return at.cmd.help(at.Program.Name+" "+at.wordsBefore()+at.cmd.Name, at.usage(), at.Program.FlagsNote)
}

// wordsBefore returns the words before the last one, with a space behind them.
func (at place) wordsBefore() string { return at.name[:strings.LastIndex(at.name, " ")+1] }

// help renders the help of the program.
func (p *Program) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", p.Name, p.About)
	list := listing{column: p.Column}
	for _, c := range p.Commands {
		if !c.Unlisted {
			list.addEntry(c.Name, c.Entry)
		}
	}
	list.addEntry("help", p.HelpEntry)
	list.print(&b)
	fmt.Fprintf(&b, "%s\nexample: %s\n", p.Notes, p.Example)
	return b.String()
}

// topicHelp renders a topic.
func (p *Program) topicHelp(t *Topic) string {
	flags := ""
	if t.Flags {
		flags = p.flagsHelp()
	}
	return paragraphs(t.Title, t.About, flags, t.Notes)
}

// flagsHelp lists the flags that all commands take.
func (p *Program) flagsHelp() string {
	var b strings.Builder
	flagList(p.declare, 0).print(&b)
	return strings.TrimSuffix(b.String(), "\n")
}

// paragraphs puts an empty line between parts of a text; those that are empty are left
// out.
func paragraphs(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	return strings.Join(parts, "\n\n") + "\n"
}

// help renders the help of a command. name is all of its words, and first the first
// line.
func (c *Command) help(name, first, flagsNote string) string {
	list := flagList(func(f *pflag.FlagSet) {
		if c.Setup != nil {
			c.Setup(f)
		}
	}, c.Column)
	commands := &listing{}
	for _, sub := range c.Commands {
		commands.addEntry(name+" "+sub.Name, sub.Entry)
	}
	var b strings.Builder
	list.print(&b)
	if c.Setup != nil && flagsNote != "" {
		fmt.Fprintf(&b, "  %s\n", flagsNote)
	}
	if c.Setup != nil && len(c.Commands) > 0 {
		b.WriteString("\n")
	}
	commands.print(&b)
	return paragraphs(first, c.About, strings.TrimSuffix(b.String(), "\n"), c.Notes, "example:\n  "+c.Example)
}

// An Entry is a line in a list of commands. Usage follows the name of the command,
// and Text stands in the second column. Without a Text there is no line.
type Entry struct{ Usage, Text string }

// A listing is two columns of a help text: names, and texts about them.
type listing struct {
	column int // where the second one begins, at least
	rows   [][2]string
}

func (l *listing) add(name, text string) { l.rows = append(l.rows, [2]string{"  " + name, text}) }

// addEntry adds a command, if it is to be listed.
func (l *listing) addEntry(name string, e Entry) {
	if e.Text != "" {
		l.add(strings.TrimSpace(name+" "+e.Usage), e.Text)
	}
}

// print writes the rows. The lines of a text begin below each other.
func (l *listing) print(b *strings.Builder) {
	column := l.column
	for _, r := range l.rows {
		column = max(column, len(r[0])+2)
	}
	for _, r := range l.rows {
		fmt.Fprintf(b, "%-*s%s\n", column, r[0], strings.ReplaceAll(r[1], "\n", "\n"+strings.Repeat(" ", column)))
	}
}

// flagList lists the flags that a function declares, in that order.
func flagList(declare func(*pflag.FlagSet), column int) *listing {
	f := newFlagSet("")
	f.SortFlags = false
	declare(f)
	list := &listing{column: column}
	f.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			list.add(flagHelp(flag))
		}
	})
	return list
}

// flagHelp returns the two columns of help for a flag.
func flagHelp(f *pflag.Flag) (name, text string) {
	value, text := "", f.Usage
	if rest, ok := strings.CutPrefix(f.Usage, "`"); ok {
		value, text, _ = strings.Cut(rest, "` ")
	}
	short := "    "
	if f.Shorthand != "" {
		short = "-" + f.Shorthand + ", "
	}
	switch name = short + "--" + f.Name; {
	case value == "":
	case f.NoOptDefVal != "": // the value may be missing, and another word would be an argument
		name += "=" + value
	default:
		name += " " + value
	}
	return name, text
}
