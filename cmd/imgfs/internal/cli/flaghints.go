package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// Known is an annotation of flags that help does not list, and that are known all the
// same: they are proposed for a misspelt one.
const Known = "known"

// Words is an annotation of flags whose value may be missing: the words that it can be.
const Words = "words"

// checkFlags finds mistakes in arguments that parse, but not as they are meant:
//
//	--offline false      the value of such a flag follows a =
//	--cache-size 10 G    the unit is part of the value
//	-platform x          flags of several letters have two hyphens
//	–platform x          that is no hyphen
//
// It looks at the flags before the first other argument, or at all of them.
func checkFlags(f *pflag.FlagSet, args []string, all bool) error {
	for len(args) > 0 && args[0] != "--" {
		arg := args[0]
		args = args[1:]
		next := append(args, "")[0]
		if rest := strings.TrimLeft(arg, dashes); rest != arg && f.Lookup(flagName(rest)) != nil && !strings.HasPrefix(arg, "-") {
			return usageHint("--"+rest, "%q begins with a dash, and not with two hyphens", arg)
		}
		if len(arg) < 2 || arg[0] != '-' {
			if !all {
				return nil
			}
			continue
		}
		flag, value, has, err := readFlag(f, arg)
		switch {
		case err != nil:
			return err
		case flag == nil: // pflag says so
			return nil
		case flag.NoOptDefVal != "":
			if word := valueMeant(flag, strings.ToLower(next)); word != "" && !has && strings.HasPrefix(arg, "--") {
				return usageHint("--"+flag.Name+"="+word, "%s %s: the value of this flag follows a =", arg, next)
			}
			continue
		case !has && len(args) > 0:
			value, args = next, args[1:]
			next = append(args, "")[0]
		}
		if _, isUnit := sizeUnit(strings.ToLower(next)); isUnit && next != "" && flag.Value.Type() == sizeType && isNumber(value) {
			return usageHint("--"+flag.Name+" "+value+next, "--%s %s %s: the unit is part of the size", flag.Name, value, next)
		}
	}
	return nil
}

// valueMeant returns the value of a flag whose value may be missing that the word behind
// it means, or "".
func valueMeant(flag *pflag.Flag, word string) string {
	if slices.Contains(flag.Annotations[Words], word) {
		return word
	}
	switch word {
	case "true", "false":
		return word
	case "yes", "on":
		word = "true"
	case "no", "off":
		word = "false"
	default:
		return ""
	}
	if flag.Value.Type() != "bool" {
		return ""
	}
	return word
}

// dashes are what word processors make of hyphens.
const dashes = "-‐‑‒–—―−"

// readFlag returns the last flag in an argument, which may take a value, and the
// value if that is in the argument. There is no flag if one of them is not known.
func readFlag(f *pflag.FlagSet, arg string) (flag *pflag.Flag, value string, has bool, err error) {
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		_, value, has = strings.Cut(name, "=")
		return f.Lookup(flagName(name)), value, has, nil
	}
	letters := arg[1:]
	for i := range len(letters) {
		if flag = f.ShorthandLookup(letters[i : i+1]); flag != nil && flag.NoOptDefVal != "" {
			continue
		}
		if len(letters) > 1 && f.Lookup(flagName(letters)) != nil {
			return nil, "", false, usageHint("--"+letters, "%s: a flag of several letters has two hyphens", arg)
		}
		return flag, letters[i+1:], i+1 < len(letters), nil
	}
	return flag, "", false, nil
}

// flagName returns what stands before the first =.
func flagName(s string) string {
	name, _, _ := strings.Cut(s, "=")
	return name
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789.") == "" }

// flagHint returns what to type in place of a flag that pflag refused, or "". The
// flags are those of f.
func (at place) flagHint(f *pflag.FlagSet, args []string, err error) string {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return at.unknownFlag(f, args, unknown)
	case errors.As(err, &invalid):
		flag, unit := invalid.GetFlag(), "s"
		if _, long := flag.Value.(*Age); long {
			unit = "d"
		}
		if flag.Value.Type() == "duration" && isNumber(invalid.GetValue()) {
			return "--" + flag.Name + " " + invalid.GetValue() + unit
		}
	}
	return ""
}

// unknownFlag returns what to type in place of a flag that there is not, or "".
func (at place) unknownFlag(f *pflag.FlagSet, args []string, err *pflag.NotExistError) string {
	name, before := err.GetSpecifiedName(), "--"
	if letters := err.GetSpecifiedShortnames(); letters != "" {
		before = "-"
		// -platfrom: flags of several letters that begin with one hyphen
		i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") && strings.HasSuffix(a, letters) })
		if i >= 0 && len(flagName(args[i])) > 3 {
			name, before = flagName(args[i][1:]), "--"
		}
	}
	value := valueOf(args, name)
	if hint, ok := at.otherFlag(before + name); ok {
		return fill(hint, value)
	}
	if before == "-" {
		return ""
	}
	if command := at.commandWith(name); command != "" {
		return command + " --" + name
	}
	var names []string
	f.VisitAll(func(flag *pflag.Flag) {
		if isKnown(flag) {
			names = append(names, flag.Name)
		}
	})
	typed := strings.ReplaceAll(strings.TrimPrefix(name, "no-"), "_", "-")
	like := append(beginWith(typed, names), Nearest(typed, names)...)
	if len(like) == 0 {
		return ""
	}
	near := "--" + like[0]
	switch boolean := f.Lookup(like[0]).NoOptDefVal != ""; {
	case boolean && strings.HasPrefix(name, "no-"):
		near += "=false"
	case boolean && value != "" && slices.Contains(args, "--"+name+"="+value):
		near += "=" + printable.Word(value)
	}
	return near
}

// isKnown reports whether a flag is proposed for a misspelt one.
func isKnown(flag *pflag.Flag) bool {
	_, known := flag.Annotations[Known]
	return known || !flag.Hidden
}

// commandWith returns the first of the commands that can follow which has a flag, or "".
func (at place) commandWith(flag string) string {
	for _, c := range at.commands() {
		below := place{at.Program, strings.TrimSpace(at.name + " " + c.Name), &c}
		if found := below.commandWith(flag); found != "" {
			return found
		}
		if c.Setup == nil {
			continue
		}
		f := newFlagSet("")
		c.Setup(f)
		if known := f.Lookup(flag); known != nil && !known.Hidden {
			return at.Program.Name + " " + below.name
		}
	}
	return ""
}

// beginWith returns the one name that begins with a word, if that is long enough to
// mean it and there is one.
func beginWith(word string, names []string) []string {
	var found []string
	for _, n := range names {
		if strings.HasPrefix(n, word) {
			found = append(found, n)
		}
	}
	if len(word) < 3 || len(found) != 1 {
		return nil
	}
	return found
}

// otherFlag finds what a flag of another program is called here.
func (at place) otherFlag(flag string) (hint string, ok bool) {
	if at.cmd != nil {
		if hint, ok = at.cmd.OtherFlags[flag]; ok {
			return hint, true
		}
	}
	hint, ok = at.Program.OtherFlags[flag]
	return hint, ok
}

// valueOf returns the value that a flag has in args, whatever flags there are; or "".
func valueOf(args []string, name string) string {
	for i, arg := range args {
		typed, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case typed != name || !strings.HasPrefix(arg, "-"):
		case ok:
			return value
		case i+1 < len(args) && !strings.HasPrefix(args[i+1], "-"):
			return args[i+1]
		}
	}
	return ""
}

// fill puts a value in the place of {WORD} in a hint, or WORD if there is no value.
func fill(hint, value string) string {
	before, rest, ok := strings.Cut(hint, "{")
	if !ok {
		return hint
	}
	word, after, _ := strings.Cut(rest, "}")
	if value != "" {
		word = printable.Word(value)
	}
	return before + word + after
}
