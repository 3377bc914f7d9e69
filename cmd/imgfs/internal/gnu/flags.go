package gnu

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/spf13/pflag"
)

// Flags declare flags whose functions are called in the order of the command line. A
// flag that has only a letter has it as its long name, too. Help does not list them but
// those that have a text (Help): there are many, and people know them.
type Flags struct{ set *pflag.FlagSet }

// NewFlags returns what declares flags in set.
func NewFlags(set *pflag.FlagSet) Flags { return Flags{set} }

// On declares a flag without a value.
func (d Flags) On(letter, name string, do func()) {
	d.value(letter, name, "true", func(s string) error {
		if s != "true" {
			return fmt.Errorf("it takes no value")
		}
		do()
		return nil
	})
}

// Optional declares a flag whose value, one of some words, may be missing; then it is
// "always".
func (d Flags) Optional(letter, name string, words []string, set func(string) error) {
	d.value(letter, name, "always", set).Annotations[cli.Words] = words
}

// Word declares a flag with a value.
func (d Flags) Word(letter, name string, set func(string) error) {
	d.value(letter, name, "", set)
}

// Refuse declares a flag that is an error.
func (d Flags) Refuse(letter, name string, why error) {
	f := d.value(letter, name, "true", func(string) error { return why })
	delete(f.Annotations, cli.Known)
}

// value declares a flag; missing is its value where it may be missing.
func (d Flags) value(letter, name, missing string, set setter) *pflag.Flag {
	if name == "" {
		name = letter
	}
	f := d.set.VarPF(set, name, letter, "")
	f.NoOptDefVal, f.Hidden, f.Annotations = missing, true, map[string][]string{cli.Known: nil}
	return f
}

// Help has help list a flag, with a text as pflag takes it.
func (d Flags) Help(name, text string) {
	f := d.set.Lookup(name)
	f.Hidden, f.Usage = false, text
}

// A setter is a pflag.Value that calls a function.
type setter func(string) error

// Set implements pflag.Value.
func (s setter) Set(text string) error { return s(text) }

// String implements pflag.Value.
func (s setter) String() string { return "" }

// Type implements pflag.Value.
func (s setter) Type() string { return "" }

// OneOf returns a function that sets one of some values by its name.
func OneOf[T any](values map[string]T, set func(T)) func(string) error {
	return func(s string) error {
		v, ok := values[s]
		if !ok {
			return fmt.Errorf("it is one of %s", strings.Join(slices.Sorted(maps.Keys(values)), ", "))
		}
		set(v)
		return nil
	}
}
