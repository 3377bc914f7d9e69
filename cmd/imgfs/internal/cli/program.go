package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A Program is a command line: its commands, the flags that all of them take, and
// its help.
type Program struct {
	Name string
	// About is the first line of its help, without the name.
	About string
	// Commands are in the order in which help lists them.
	Commands []Command
	// HelpEntry is how help lists help itself.
	HelpEntry Entry
	// Column is where the texts of the commands begin in the help, at least.
	Column int
	// Notes are printed between the commands and the flags.
	Notes string
	// Flags declare the flags that all commands take. Help aligns those that one
	// function declares with each other. They are called more than once.
	Flags []func(*pflag.FlagSet)
	// Example is the last line of the help.
	Example string
}

// A Command is one word after the program's name, or a group of commands.
type Command struct {
	Name    string
	Aliases []string // other names that it has
	// Entry is how the list of commands, that of the program or the group, has it.
	Entry Entry
	// Usage follows the name in the first line of its help.
	Usage string
	// About are paragraphs of its help.
	About string
	// Setup declares the command's own flags and returns its action. Help calls it
	// too, to list the flags.
	Setup func(*pflag.FlagSet) Action
	// Column is where the texts of the flags begin in the help, but they never begin
	// less than two columns behind the longest flag.
	Column int
	// Notes are printed behind the flags, or the commands of a group.
	Notes string
	// Example is the end of its help: a command line.
	Example string
	// Commands make it a group: one of their names must follow. A group has no
	// Setup.
	Commands []Command
}

// An Entry is a line in a list of commands. Usage follows the name of the command,
// and Text stands in the second column. Without a Text there is no line.
type Entry struct{ Usage, Text string }

// An Action runs a command. args are its arguments without flags.
type Action func(ctx context.Context, args []string) error

// Run runs the command that args name, prints its error if there is one, and returns
// the exit code.
func (p *Program) Run(ctx context.Context, e *Env, args []string) int {
	return e.exitCode(p.dispatch(ctx, e, args))
}

// exitCode prints an error, if there is one, and returns the exit code.
func (e *Env) exitCode(err error) int {
	var silent *ExitError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &silent):
		return silent.Code
	}
	e.Error(err)
	if IsUsage(err) {
		return ExitUsage
	}
	return ExitFailure
}

// A place is a command, or the program itself, and the words that lead there.
type place struct {
	*Program
	name string
	cmd  *Command // nil: the program
}

// dispatch finds the command in args and runs it. The program's flags may stand
// before the command and after it.
func (p *Program) dispatch(ctx context.Context, e *Env, args []string) error {
	global := p.flags()
	global.SetInterspersed(false)
	at := place{Program: p}
	for at.commands() != nil {
		err := global.Parse(args)
		switch {
		case errors.Is(err, pflag.ErrHelp):
			return e.Print(at.help())
		case err != nil:
			return at.withHelp(err)
		case global.Arg(0) == "":
			return at.withHelp(at.missing())
		case at.cmd == nil && global.Arg(0) == "help":
			return p.printHelp(e, global.Args()[1:])
		}
		if at, err = at.find(global.Arg(0)); err != nil {
			return err
		}
		args = global.Args()[1:]
	}
	own := newFlagSet(p.Name + " " + at.name)
	do := at.cmd.Setup(own)
	own.AddFlagSet(global)
	err := own.Parse(args)
	if err == nil {
		err = do(ctx, own.Args())
	}
	if errors.Is(err, pflag.ErrHelp) {
		return e.Print(at.help())
	}
	return at.withHelp(err)
}

// printHelp prints the help of the program, or of the command that words name.
func (p *Program) printHelp(e *Env, words []string) error {
	at := place{Program: p}
	for _, word := range words {
		if at.commands() == nil {
			return place{Program: p}.withHelp(Usagef("help: one command at a time"))
		}
		var err error
		if at, err = at.find(word); err != nil {
			return err
		}
	}
	return e.Print(at.help())
}

// flags returns the flags that all commands take.
func (p *Program) flags() *pflag.FlagSet {
	f := newFlagSet(p.Name)
	for _, declare := range p.Flags {
		declare(f)
	}
	return f
}

// newFlagSet returns a set of flags that prints nothing by itself.
func newFlagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.Usage = func() {}
	return f
}

// commands returns the commands that can follow.
func (at place) commands() []Command {
	if at.cmd == nil {
		return at.Program.Commands
	}
	return at.cmd.Commands
}

// find returns the command that a word means here.
func (at place) find(word string) (place, error) {
	name, all := strings.TrimSpace(at.name+" "+word), at.commands()
	i := slices.IndexFunc(all, func(c Command) bool { return c.Name == word || slices.Contains(c.Aliases, word) })
	if i < 0 {
		return at, at.withHelp(Usagef("unknown command %q", name))
	}
	return place{at.Program, name, &all[i]}, nil
}

func (at place) missing() error {
	if at.cmd == nil {
		return Usagef("no command")
	}
	return Usagef("%s needs another word", at.name)
}

// withHelp adds a hint to the help of this place to an error, if the command line
// is at fault and the error has no hint of its own.
func (at place) withHelp(err error) error {
	if own := (*hintedError)(nil); err == nil || !IsUsage(err) || errors.As(err, &own) {
		return err
	}
	return WithHint(err, strings.TrimSpace(at.Program.Name+" help "+at.name))
}
