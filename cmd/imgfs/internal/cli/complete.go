package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A Candidate is a word that can stand where a word is being typed.
type Candidate struct {
	Word string
	Text string // says what it means; it may be ""
	More bool   // something follows without a space
}

// Completions are the words that can stand where one is being typed.
type Completions struct {
	Words []Candidate
	// Files and Dirs are for the shell to find, on this machine.
	Files, Dirs bool
}

// An Argument is an argument of a command that is being typed.
type Argument struct {
	// Command has the words of the command.
	Command string
	// Means are the words that the usage of the command has in this place, in capital
	// letters: IMAGE, IMAGE:/PATH, DIR.
	Means []string
	// Before are the arguments before it, without flags.
	Before []string
	// Word is what has been typed of it.
	Word string

	usage string
}

// MeansAt returns what Means would be for argument i, from 0.
func (a *Argument) MeansAt(i int) []string { return meanings(a.usage, i) }

// Complete returns what the last of words, which follow the name of the program, can
// become: commands, flags and their values, and what Program.Argument says of arguments.
// Of a command line that makes no sense it returns nothing.
func (p *Program) Complete(ctx context.Context, words []string) Completions {
	if len(words) == 0 {
		return Completions{}
	}
	at, word := place{Program: p}, words[len(words)-1]
	flags := p.flags()
	_ = p.settings("", flags, nil) // what is wrong with them says the command itself
	var before []string
	noFlags, help := false, false
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		switch {
		case !noFlags && w == "--":
			noFlags = true
		case !noFlags && isFlag(w) && w != "-":
			flag, value, has, err := readFlag(flags, w)
			if err != nil || flag == nil {
				continue
			}
			if !has {
				if value = flag.NoOptDefVal; value == "" {
					if i++; i == len(words)-1 {
						return flagValues(flag, "", word)
					}
					value = words[i]
				}
			}
			_ = flag.Value.Set(value)
		case at.leads(w) && len(before) == 0:
			at, _ = at.find([]string{w})
			if at.cmd.Setup != nil {
				own := newFlagSet(p.Name + " " + at.name)
				at.cmd.Setup(own)
				AddFlags(own, flags)
				flags = own
				_ = p.settings(at.name, flags, nil)
			}
		case at.cmd == nil && w == "help" && !help:
			help = true
		default:
			before = append(before, w)
		}
	}
	switch {
	case !noFlags && isFlag(word):
		return completeFlag(flags, word)
	case help:
		return at.commandWords(word, len(before) == 0)
	case len(before) > 0 && (at.cmd == nil || at.cmd.Setup == nil):
		return Completions{}
	}
	found := Completions{}
	if len(before) == 0 {
		found = at.commandWords(word, at.cmd == nil)
	}
	if at.cmd != nil && at.cmd.Setup != nil && p.Argument != nil {
		more := p.Argument(ctx, Argument{at.name, meanings(at.cmd.Usage, len(before)), before, word, at.cmd.Usage})
		found.Words = append(found.Words, more.Words...)
		found.Files, found.Dirs = more.Files, more.Dirs
	}
	return found
}

// leads reports whether a word is a command that can follow.
func (at place) leads(word string) bool {
	return slices.ContainsFunc(at.commands(), func(c Command) bool { return c.is(word) })
}

// commandWords returns the commands that can follow and begin with a word, and of the
// program itself topics of help.
func (at place) commandWords(word string, withHelp bool) (found Completions) {
	for _, c := range at.commands() {
		found.add(word, Candidate{Word: c.Name, Text: c.Entry.Text})
	}
	if at.cmd == nil && withHelp {
		found.add(word, Candidate{Word: "help", Text: at.HelpEntry.Text})
		for _, t := range at.Topics {
			if word != "" || len(at.Topics) == 0 {
				found.add(word, Candidate{Word: t.Name, Text: t.Title})
			}
		}
	}
	return found
}

// add adds a candidate if it begins with what was typed.
func (c *Completions) add(typed string, word Candidate) {
	if strings.HasPrefix(word.Word, typed) {
		c.Words = append(c.Words, word)
	}
}

// completeFlag returns the flags that begin with a word, or the values of the one that
// it has with a =.
func completeFlag(flags *pflag.FlagSet, word string) (found Completions) {
	if name, value, ok := strings.Cut(word, "="); ok {
		if flag := flags.Lookup(strings.TrimPrefix(name, "--")); flag != nil && strings.HasPrefix(name, "--") {
			return flagValues(flag, name+"=", value)
		}
		return found
	}
	flags.VisitAll(func(flag *pflag.Flag) {
		if !isKnown(flag) {
			return
		}
		_, text := flagHelp(flag)
		text, _, _ = strings.Cut(text, "\n")
		if len(flag.Name) > 1 {
			found.add(word, Candidate{Word: "--" + flag.Name, Text: text})
		}
		if flag.Shorthand != "" && word == "-"+flag.Shorthand {
			found.add(word, Candidate{Word: word, Text: text})
		}
	})
	return found
}

// flagValues returns the values of a flag that begin with what was typed of one, with
// text before them.
func flagValues(flag *pflag.Flag, before, typed string) (found Completions) {
	words := flag.Annotations[Words]
	switch t := flag.Value.Type(); {
	case len(words) > 0:
	case t == FileType || t == DirType:
		found.Files, found.Dirs = t == FileType, t == DirType
		return found
	case t == "bool":
		words = []string{"true", "false"}
	}
	for _, w := range words {
		found.add(before+typed, Candidate{Word: before + w})
	}
	return found
}

// meanings returns what the words of a usage are that can stand in the place of argument
// i, from 0. Alternatives are separated by |, and flags are in brackets.
func meanings(usage string, i int) (means []string) {
	for alternative := range strings.SplitSeq(withoutFlags(usage), " | ") {
		words := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(alternative))
		if len(words) > 0 && isFlag(words[0]) {
			continue
		}
		repeated := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "...") })
		first, last := i, i
		if repeated >= 0 && i > repeated {
			first = repeated
		}
		for _, w := range words[min(first, len(words)):min(last+1, len(words))] {
			if w = strings.TrimSuffix(w, "..."); !slices.Contains(means, w) {
				means = append(means, w)
			}
		}
	}
	return means
}

// withoutFlags removes the flags in brackets from a usage.
func withoutFlags(usage string) string {
	for {
		start := strings.Index(usage, "[-")
		if start < 0 {
			return strings.TrimSpace(strings.ReplaceAll(usage, "[FLAGS]", ""))
		}
		end := strings.IndexByte(usage[start:], ']')
		if end < 0 {
			return usage
		}
		usage = usage[:start] + usage[start+end+1:]
	}
}
