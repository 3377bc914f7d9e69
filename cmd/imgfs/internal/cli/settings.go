package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"
)

// A Setting is the value of a flag for where the command line gives none, such as one of
// a configuration file.
type Setting struct {
	Flag   string   // its long name
	Values []string // more than one only of a flag that may be given several times
	From   string   // where it is written, for messages
}

// Annotations of flags.
const (
	// Variables are environment variables that say what the flag does, if that is not
	// given. A setting counts less than they do.
	Variables = "variables"
	// settingFrom is where the setting is written that a flag has its value from.
	settingFrom = "setting"
)

// A Replacer is the value of a flag that adds to a list. What the command line gives
// replaces a setting: after Replace has been called the next value begins a new list.
type Replacer interface{ Replace() }

// From returns where the setting is written that a flag has its value from, or "" if it
// has none.
func From(f *pflag.FlagSet, flag string) string {
	if from := f.Lookup(flag).Annotations[settingFrom]; len(from) > 0 {
		return from[0]
	}
	return ""
}

// IsGiven reports whether the command line gives a flag, and no setting does.
func IsGiven(flag *pflag.Flag) bool {
	return flag.Changed && len(flag.Annotations[settingFrom]) == 0
}

// Variable returns the environment variable that decides about a flag, or "".
func Variable(flag *pflag.Flag) string {
	for _, name := range flag.Annotations[Variables] {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return ""
}

// IsSetting reports whether a flag can have settings: users know it, and it says how
// something is done, and not what is wanted.
func IsSetting(flag *pflag.Flag) bool {
	return isKnown(flag) && flag.Name != "help" && flag.Name != "version"
}

// Note adds to an annotation of a flag.
func Note(flag *pflag.Flag, annotation string, texts ...string) {
	if flag.Annotations == nil {
		flag.Annotations = make(map[string][]string)
	}
	flag.Annotations[annotation] = append(flag.Annotations[annotation], texts...)
}

// apply gives flags the values of settings, as if they stood before those on the command
// line. Flags that have been given already stay.
func apply(f *pflag.FlagSet, settings []Setting) error {
	for _, s := range settings {
		flag := f.Lookup(s.Flag)
		if flag == nil || flag.Changed || Variable(flag) != "" {
			continue
		}
		replace(flag)
		for _, value := range s.Values {
			if err := flag.Value.Set(value); err != nil {
				return fmt.Errorf("%s: %s: %w", s.From, s.Flag, err)
			}
		}
		replace(flag)
		delete(flag.Annotations, settingFrom)
		Note(flag, settingFrom, s.From)
	}
	return nil
}

func replace(flag *pflag.Flag) {
	if list, ok := flag.Value.(Replacer); ok {
		list.Replace()
	}
}

// settle marks the flags that have the value of a setting as given, and forgets the
// settings of those that the command line gives.
func settle(f *pflag.FlagSet) {
	f.VisitAll(func(flag *pflag.Flag) {
		if _, ok := flag.Annotations[settingFrom]; !ok {
			return
		}
		if flag.Changed {
			delete(flag.Annotations, settingFrom)
			return
		}
		flag.Changed = true
	})
}

// settings reads the settings for a command, or for all commands, and gives flags their
// values. Errors are kept until it is known whether the command minds.
func (p *Program) settings(command string, f *pflag.FlagSet, before error) error {
	if p.Settings == nil || before != nil {
		return before
	}
	all, err := p.Settings(command, f)
	if err != nil {
		return err
	}
	return apply(f, slices.Clone(all))
}
