package cli

import (
	"cmp"
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
	// Topics are help texts besides those of the commands.
	Topics []Topic
	// HelpEntry is how help lists help itself.
	HelpEntry Entry
	// Column is where the texts of the commands begin in the help, at least.
	Column int
	// Notes are printed behind the commands.
	Notes string
	// Flags declare the flags that all commands take. They are called more than once.
	Flags []func(*pflag.FlagSet)
	// Settings returns the values that the flags f of a command have where the command
	// line gives none, or for "" those of the flags that all commands take. It may be
	// nil.
	Settings func(command string, f *pflag.FlagSet) ([]Setting, error)
	// Argument returns what an argument that is being typed can become. It may be nil.
	Argument func(context.Context, Argument) Completions
	// Example is the last line of the help.
	Example string
	// FlagsNote is the last line of the flags of a command, about those that all
	// commands take.
	FlagsNote string
	// Version is the command that --version and -V run.
	Version string
	// Others are commands of other programs, and what to type here in their place.
	Others map[string]string
	// OtherFlags are flags of other programs, with their hyphens, and what to type
	// here. {WORD} in it stands for the flag's value.
	OtherFlags map[string]string
	// Guess returns what to type for words that begin with no command, or "". It may
	// be nil.
	Guess func(words []string) string
}

// A Topic is a help text that is not of a command.
type Topic struct {
	Name    string
	Aliases []string // other names that it has
	// Title is its first line, and the heading of its part of the manual page.
	Title string
	// About are its paragraphs.
	About string
	// Flags lists the flags that all commands take behind that.
	Flags bool
	// Notes are paragraphs behind the flags.
	Notes string
}

// is reports whether a word is a name of the topic.
func (t *Topic) is(word string) bool { return t.Name == word || slices.Contains(t.Aliases, word) }

// A Command is one word after the program's name, or a group of commands.
type Command struct {
	Name    string
	Aliases []string // other names that it has
	// Entry is how the list of commands, that of the program or the group, has it.
	Entry Entry
	// Unlisted leaves it out of that list: the entry of another command names it.
	Unlisted bool
	// Usage follows the name in the first line of its help.
	Usage string
	// About are paragraphs of its help.
	About string
	// Setup declares the command's own flags and returns its action. Help calls it
	// too, to list the flags.
	Setup func(*pflag.FlagSet) Action
	// Raw, if it is not nil, divides the arguments: into those in which flags are looked
	// for, which are those that f declares, and those that the action gets behind its
	// other arguments as they are, such as the expression of find. An error is one of the
	// command line.
	Raw func(f *pflag.FlagSet, args []string) (flags, raw []string, err error)
	// Column is where the texts of the flags begin in the help, but they never begin
	// less than two columns behind the longest flag.
	Column int
	// Notes are printed behind the flags, or the commands of a group.
	Notes string
	// Example is the end of its help: a command line.
	Example string
	// Failure is the exit code of a command that fails; 0 is ExitFailure. Those whose
	// anchors have ExitFailure for something else, as diff and grep, have 2. One above
	// ExitUsage is also that of a wrong command line.
	Failure int
	// Lenient lets the command run though settings are wrong; it goes without them.
	Lenient bool
	// Others and OtherFlags are what this command, or its commands, have elsewhere; see
	// Program.
	Others, OtherFlags map[string]string
	// Commands make it a group: one of their names must follow, unless it has a Setup
	// too. Then it is run when the first word behind it is none of their names, or
	// stands behind --.
	Commands []Command
}

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
	var failed *failure
	code := ExitFailure
	if errors.As(err, &failed) {
		code = failed.code
	}
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &silent):
		return cmp.Or(silent.Code, code)
	}
	e.Error(err)
	if IsUsage(err) {
		return max(ExitUsage, e.FailureCode())
	}
	return code
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
	version := global.BoolP("version", "V", false, "")
	global.Lookup("version").Hidden, global.Lookup("version").Annotations = true, map[string][]string{Known: nil}
	wrong := p.settings("", global, nil)
	at := place{Program: p}
	for at.commands() != nil {
		if at.cmd != nil && at.cmd.Setup != nil && !at.leadsOn(global, args) {
			break
		}
		err := at.parse(global, args, false)
		switch {
		case errors.Is(err, pflag.ErrHelp):
			return at.printHelp(e, wordsBehindHelp(args))
		case err != nil:
			return err
		case *version:
			return p.dispatch(ctx, e, []string{p.Version})
		case global.Arg(0) == "":
			return at.withHelp(at.missing(e))
		case global.Arg(0) == "help":
			return at.printHelp(e, global.Args()[1:])
		}
		if at, err = at.find(global.Args()); err != nil {
			return err
		}
		args = global.Args()[1:]
	}
	own := newFlagSet(p.Name + " " + at.name)
	do := at.cmd.Setup(own)
	AddFlags(own, global)
	wrong = p.settings(at.name, own, wrong)
	e.failure.Store(int32(at.cmd.Failure))
	var raw []string
	var err error
	if at.cmd.Raw != nil {
		if args, raw, err = at.cmd.Raw(own, args); err != nil {
			return at.withHelp(err)
		}
	}
	err = at.parse(own, args, true)
	settle(own)
	switch {
	case err != nil:
	case *version && p.Version != at.name:
		return p.dispatch(ctx, e, []string{p.Version})
	case slices.Equal(own.Args(), []string{"help"}) && own.ArgsLenAtDash() < 0 && len(raw) == 0:
		err = pflag.ErrHelp
	default:
		if err = wrong; err == nil || at.cmd.Lenient {
			err = do(ctx, append(own.Args(), raw...))
		}
		if failed := (*failure)(nil); err != nil && at.cmd.Failure != 0 && !errors.As(err, &failed) {
			err = WithCode(err, at.cmd.Failure)
		}
	}
	if errors.Is(err, pflag.ErrHelp) {
		return e.Print(at.help())
	}
	return at.withHelp(err)
}

// AddFlags adds the flags of all commands to those of one. Where both have a letter it is
// the command's, as -v is of grep.
func AddFlags(own, global *pflag.FlagSet) {
	global.VisitAll(func(flag *pflag.Flag) {
		if flag.Shorthand != "" && own.ShorthandLookup(flag.Shorthand) != nil {
			long := *flag
			long.Shorthand, flag = "", &long
		}
		if own.Lookup(flag.Name) == nil {
			own.AddFlag(flag)
		}
	})
}

// leadsOn reports whether arguments go on with the name of one of a command's own
// commands, behind flags that all commands take.
func (at place) leadsOn(global *pflag.FlagSet, args []string) bool {
	if global.Parse(args) != nil || global.ArgsLenAtDash() >= 0 {
		return false
	}
	return slices.ContainsFunc(at.commands(), func(c Command) bool { return c.is(global.Arg(0)) })
}

// is reports whether a word is a name of the command.
func (c *Command) is(word string) bool { return c.Name == word || slices.Contains(c.Aliases, word) }

// parse parses flags. An error has a hint to what was meant, and to the help.
func (at place) parse(f *pflag.FlagSet, args []string, all bool) error {
	err := parseWords(f, args)
	switch {
	case err == pflag.ErrHelp: // what pflag says to -h if that is no flag
		return at.withHelp(Usagef("unknown flag -h; help is --help"))
	case errors.Is(err, pflag.ErrHelp):
		return err
	}
	if meant := checkFlags(f, args, all); meant != nil {
		return meant
	}
	if hint := at.flagHint(f, args, err); hint != "" {
		return at.withHint(err, hint)
	}
	return at.withHelp(err)
}

// parseWords parses flags. A word that begins with "-:" or "-@" is none: there "-" is
// standard input, and what follows says which part of it.
func parseWords(f *pflag.FlagSet, args []string) error {
	const mark = "\x00" // no argument of a process has one
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if strings.HasPrefix(arg, "-:") || strings.HasPrefix(arg, "-@") {
			args[i] = mark + arg
		}
	}
	err := f.Parse(args)
	for i, arg := range f.Args() {
		f.Args()[i] = strings.TrimPrefix(arg, mark)
	}
	return err
}

// withHint adds a hint to an error, and where the help of this place is.
func (at place) withHint(err error, hint string) error {
	if help := at.helpCommand(); hint != help {
		hint += "; " + help
	}
	return WithHint(err, hint)
}

// wordsBehindHelp returns the words that follow --help, up to the next flag.
func wordsBehindHelp(args []string) []string {
	i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "--help") })
	words := args[i+1:]
	if end := slices.IndexFunc(words, isFlag); end >= 0 {
		words = words[:end]
	}
	return words
}

func isFlag(arg string) bool { return strings.HasPrefix(arg, "-") }

// printHelp prints the help of this place, or of the command that words name there.
// Flags among them say no more than that help is wanted.
func (at place) printHelp(e *Env, words []string) error {
	man := slices.Contains(words, manFlag)
	if slices.Contains(words, manNamesFlag) {
		return e.Print(strings.Join(at.manNames(), "\n") + "\n")
	}
	words = slices.DeleteFunc(slices.Clone(words), isFlag)
	if i := slices.IndexFunc(at.Topics, func(t Topic) bool { return slices.ContainsFunc(words, t.is) }); i >= 0 && at.cmd == nil && len(words) == 1 {
		return e.Print(at.Program.topicHelp(&at.Topics[i]))
	}
	for _, word := range words {
		if at.commands() == nil {
			return place{Program: at.Program}.withHelp(Usagef("help: one command at a time"))
		}
		if word == "help" {
			continue
		}
		var err error
		if at, err = at.find([]string{word}); err != nil {
			return err
		}
	}
	if man {
		return e.Print(at.man())
	}
	return e.Print(at.help())
}

// flags returns the flags that all commands take.
func (p *Program) flags() *pflag.FlagSet {
	f := newFlagSet(p.Name)
	p.declare(f)
	return f
}

// declare declares the flags that all commands take.
func (p *Program) declare(f *pflag.FlagSet) {
	for _, declare := range p.Flags {
		declare(f)
	}
}

// newFlagSet returns a set of flags that prints nothing by itself.
func newFlagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.Usage = func() {}
	help := f.VarPF(helpFlag{}, "help", "", "")
	help.Hidden, help.NoOptDefVal, help.Annotations = true, "true", map[string][]string{Known: nil}
	return f
}

// A helpFlag is the value of --help: an error that wraps pflag.ErrHelp.
type helpFlag struct{}

// Set implements pflag.Value.
func (helpFlag) Set(string) error { return pflag.ErrHelp }

// String implements pflag.Value.
func (helpFlag) String() string { return "" }

// Type implements pflag.Value.
func (helpFlag) Type() string { return "help" }

// commands returns the commands that can follow.
func (at place) commands() []Command {
	if at.cmd == nil {
		return at.Program.Commands
	}
	return at.cmd.Commands
}

// find returns the command that the first of some words means here.
func (at place) find(words []string) (place, error) {
	name, all := strings.TrimSpace(at.name+" "+words[0]), at.commands()
	i := slices.IndexFunc(all, func(c Command) bool { return c.is(words[0]) })
	if i < 0 {
		err := Usagef("unknown command %q", name)
		if hint := at.guess(words); hint != "" {
			return at, at.withHint(err, hint)
		}
		return at, at.withHelp(err)
	}
	return place{at.Program, name, &all[i]}, nil
}

// guess returns what to type for words that begin with no command, or "".
func (at place) guess(words []string) string {
	others := at.Program.Others
	if at.cmd != nil {
		others = at.cmd.Others
	}
	if hint, ok := others[strings.ToLower(words[0])]; ok {
		return hint
	}
	before := strings.TrimSpace(at.Program.Name+" "+at.name) + " "
	var names []string
	full := map[string]string{}
	for _, c := range at.commands() {
		for _, name := range append([]string{c.Name}, c.Aliases...) {
			names = append(names, name)
			full[name] = before + c.Name
		}
	}
	if at.cmd == nil {
		names, full["help"] = append(names, "help"), before+"help"
	}
	for _, near := range Nearest(words[0], names) {
		return full[near]
	}
	if at.cmd == nil && at.Program.Guess != nil {
		return at.Program.Guess(words)
	}
	return ""
}

func (at place) missing(e *Env) error {
	switch {
	case at.cmd != nil:
		return Usagef("%s needs another word", at.name)
	case e.Verbose: // as other programs have -v
		return WithHint(Usagef("no command"), at.Program.Name+" --version; "+at.helpCommand())
	}
	return Usagef("no command")
}

// helpCommand is how to get the help of this place.
func (at place) helpCommand() string {
	return strings.TrimSpace(at.Program.Name + " help " + at.name)
}

// withHelp adds a hint to an error, if the command line is at fault and the error
// has none: how the command is used, and where its help is.
func (at place) withHelp(err error) error {
	var own *usageError
	var hinted *hintedError
	switch {
	case err == nil || !IsUsage(err) || errors.As(err, &hinted):
		return err
	case errors.As(err, &own) && at.cmd != nil && at.cmd.Setup != nil:
		return WithHint(err, at.usage()+"; "+at.helpCommand())
	}
	return WithHint(err, at.helpCommand())
}

// usage is the first line of a command's help.
func (at place) usage() string {
	return strings.TrimSpace("usage: " + at.Program.Name + " " + at.wordsBefore() + at.cmd.Name + " " + at.cmd.Usage)
}
