package find

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/spf13/pflag"
)

// A following says which symlinks are followed.
type following int

const (
	followNone  following = iota // -P
	followNamed                  // -H
	followAll                    // -L
)

// A test is a part of an expression. Actions are tests, too.
type test func(f *file) bool

// An Expression says which files are wanted, and what is done with them.
type Expression struct {
	test       test
	prepare    []func(*Walker) error // before each start of a search
	follow     following
	depthFirst bool
	minDepth   int
	maxDepth   int
	now        moment
	formats    string // an action that prints in a way of its own, or ""
}

// Formats returns the first action that prints in a way of its own, such as -ls, or "".
func (e *Expression) Formats() string { return e.formats }

// A parser reads an expression.
type parser struct {
	*Expression
	args     []string
	clock    time.Time
	dayEnd   moment // what ages count from
	syntax   syntax
	acts     bool // something prints
	brackets int  // how deep
}

// maxNesting is how deep an expression may be nested: it is more than anybody means, and
// less than what a stack holds.
const maxNesting = 10000

// beginsExpression reports whether a word is the first one of an expression, so that no
// paths follow.
func beginsExpression(word string) bool {
	return len(word) > 1 && word[0] == '-' || word == "(" || word == ")" || word == "!" || word == ","
}

// Cut divides arguments into paths and an expression.
func Cut(args []string) (paths, expression []string) {
	if i := slices.IndexFunc(args, beginsExpression); i >= 0 {
		return args[:i], args[i:]
	}
	return args, nil
}

// isOption reports whether a word is one of find's own flags, which stand before paths.
func isOption(word string) bool {
	return slices.Contains([]string{"-H", "-L", "-P", "-O0", "-O1", "-O2", "-O3"}, word)
}

// Split divides the arguments of the command into those in which flags are looked for,
// and the expression. The flags have two hyphens or one letter, and may stand within the
// expression, but not in the place of an argument there.
func Split(f *pflag.FlagSet, args []string) (flags, expression []string, err error) {
	var options []string
	within := false
	for len(args) > 0 {
		word, n := args[0], 1
		primary, known := primaries[word]
		_, isRefused := refused[word]
		name, _, hasValue := strings.Cut(strings.TrimPrefix(word, "--"), "=")
		switch flag := f.Lookup(name); {
		case word == "--":
		case strings.HasPrefix(word, "--"):
			if _, one := primaries["-"+name]; one && flag == nil {
				return nil, nil, cli.WithHint(cli.Usagef("find: %s has one hyphen", word), "-"+name)
			}
			if flag != nil && flag.NoOptDefVal == "" && !hasValue {
				n = min(2, len(args))
			}
			flags = append(flags, args[:n]...)
		case len(word) == 2 && word[0] == '-' && f.ShorthandLookup(word[1:]) != nil:
			flags = append(flags, word)
		case !within && word == "-h":
			flags = append(flags, word) // which is refused as in all commands
		case !within && isOption(word):
			options = append(options, word)
		case within || beginsExpression(word):
			within = true
			if isRefused {
				return flags, slices.Concat(options, expression, args), nil
			}
			if n = 1; known {
				n = min(1+primary.args, len(args))
			} else if typed, ok := strings.CutPrefix(word, "-"); ok && f.Lookup(typed) != nil && len(typed) > 1 {
				return nil, nil, cli.WithHint(cli.Usagef("find: %s: a flag of several letters has two hyphens", word), "-"+word)
			}
			expression = append(expression, args[:n]...)
		default:
			flags = append(flags, word)
		}
		args = args[n:]
	}
	return flags, append(options, expression...), nil
}

// Parse reads an expression. An error is one of the command line, with a hint.
func Parse(args []string, now time.Time) (*Expression, error) {
	p := &parser{Expression: &Expression{maxDepth: math.MaxInt, now: momentOf(now)}, args: args, clock: now, dayEnd: momentOf(now), syntax: syntaxes["emacs"]}
	for ; len(p.args) > 0 && isOption(p.args[0]); p.args = p.args[1:] {
		switch p.args[0] {
		case "-H":
			p.follow = followNamed
		case "-L":
			p.follow = followAll
		case "-P":
			p.follow = followNone
		}
	}
	p.test = yes
	if p.next() == ")" {
		return nil, cli.Usagef("find: a ) without a ( before it")
	}
	if len(p.args) > 0 {
		all, err := p.list()
		if err != nil {
			return nil, err
		}
		if len(p.args) > 0 { // nothing else ends a list
			return nil, cli.Usagef("find: a ) without a ( before it")
		}
		p.test = all
	}
	if !p.acts {
		wanted := p.test
		p.test = func(f *file) bool {
			if wanted(f) && !f.w.quit {
				f.print()
			}
			return true
		}
	}
	return p.Expression, nil
}

func yes(*file) bool { return true }

// next returns the next word, or "".
func (p *parser) next() string {
	if len(p.args) == 0 {
		return ""
	}
	return p.args[0]
}

// take takes the next word if it is one of some.
func (p *parser) take(words ...string) bool {
	if len(p.args) == 0 || !slices.Contains(words, p.args[0]) {
		return false
	}
	p.args = p.args[1:]
	return true
}

// operand reads what follows an operator, or begins an expression.
func (p *parser) operand(after string, read func() (test, error)) (test, error) {
	switch word := p.next(); {
	case len(p.args) == 0 || word == ")" && after != "(":
		return nil, cli.Usagef("find: an expression is missing behind %s", after)
	case word == ")":
		return nil, cli.Usagef("find: there is nothing in the parentheses ( )")
	case slices.Contains([]string{"-o", "-or", "-a", "-and", ","}, word):
		return nil, cli.Usagef("find: an expression is missing before %s", word)
	}
	return read()
}

// list reads expressions with commas between them: all are evaluated, and the last one
// counts.
func (p *parser) list() (test, error) {
	left, err := p.operand("(", p.either)
	for err == nil && p.take(",") {
		var right test
		first := left
		if right, err = p.operand(",", p.either); err == nil {
			left = func(f *file) bool { first(f); return !f.w.quit && right(f) }
		}
	}
	return left, err
}

// either reads expressions with -o between them.
func (p *parser) either() (test, error) {
	left, err := p.operand("(", p.both)
	for word := p.next(); err == nil && p.take("-o", "-or"); word = p.next() {
		var right test
		first := left
		if right, err = p.operand(word, p.both); err == nil {
			left = func(f *file) bool { return first(f) || !f.w.quit && right(f) }
		}
	}
	return left, err
}

// both reads expressions with -a or nothing between them.
func (p *parser) both() (test, error) {
	left, err := p.operand("(", p.single)
	for err == nil && len(p.args) > 0 && !slices.Contains([]string{")", ",", "-o", "-or"}, p.next()) {
		word := p.next()
		p.take("-a", "-and")
		var right test
		first := left
		if right, err = p.operand(word, p.single); err == nil {
			left = func(f *file) bool { return first(f) && !f.w.quit && right(f) }
		}
	}
	return left, err
}

// single reads a primary, one that is negated, or an expression in parentheses.
func (p *parser) single() (test, error) {
	if p.brackets++; p.brackets > maxNesting {
		return nil, cli.Usagef("find: the expression is nested too deep")
	}
	defer func() { p.brackets-- }()
	switch word := p.next(); {
	case p.take("!", "-not"):
		not, err := p.operand(word, p.single)
		return func(f *file) bool { return !not(f) }, err
	case p.take("("):
		inner, err := p.operand("(", p.list)
		if err == nil && !p.take(")") {
			err = cli.Usagef("find: a ) is missing")
		}
		return inner, err
	case !strings.HasPrefix(word, "-") || word == "-":
		return nil, cli.WithHint(cli.Usagef("find: %s: paths come before the expression", word), "a pattern wants quotes, so that the shell leaves it as it is")
	default:
		return p.primary(word)
	}
}

// primary reads a test, an action or an option.
func (p *parser) primary(word string) (test, error) {
	if hint, ok := refused[word]; ok {
		return nil, cli.WithHint(cli.Usagef("find: there is no %s: %s", word, hint.why), hint.instead)
	}
	known, ok := primaries[word]
	if !ok {
		err := cli.Usagef("find: unknown primary %s", word)
		if near := cli.Nearest(word, slices.Sorted(maps.Keys(primaries))); len(near) > 0 {
			return nil, cli.WithHint(err, near[0])
		}
		return nil, err
	}
	if len(p.args) <= known.args {
		return nil, cli.Usagef("find: %s needs an argument", word)
	}
	arg := ""
	if known.args > 0 {
		arg = p.args[1]
	}
	p.args = p.args[1+known.args:]
	t, err := known.build(p, word, arg)
	if err != nil {
		err = cli.Usagef("find: %s %s: %v", word, arg, err)
	}
	return t, err
}

// reject returns why an argument is refused.
func reject(format string, args ...any) (test, error) { return nil, fmt.Errorf(format, args...) }
