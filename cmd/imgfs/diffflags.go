package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/fs/treediff"
)

// A statFlag is the value of diff --stat: how many names of a path have a row of their
// own; 0 is all.
type statFlag struct {
	given bool
	depth int
}

// String implements pflag.Value.
func (s *statFlag) String() string { return "" }

// Type implements pflag.Value.
func (s *statFlag) Type() string { return "number" }

// Set implements pflag.Value.
func (s *statFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("it is no number of names")
	}
	s.given, s.depth = true, int(n)
	return nil
}

// An ignoreFlag is the value of diff --ignore.
type ignoreFlag treediff.What

// ignorable are the words of --ignore.
var ignorable = []string{"mode", "owner", "time", "xattrs", "hardlinks"}

// String implements pflag.Value.
func (i *ignoreFlag) String() string { return treediff.What(*i).String() }

// Type implements pflag.Value.
func (i *ignoreFlag) Type() string { return "words" }

// Set implements pflag.Value.
func (i *ignoreFlag) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		for _, known := range ignorable {
			if word+"s" == known { // xattr
				word = known
			}
		}
		what, _ := treediff.ParseWhat(word)
		if !slices.Contains(ignorable, word) {
			return fmt.Errorf("%q is none of %s", word, strings.Join(ignorable, ", "))
		}
		*i |= ignoreFlag(what)
	}
	return nil
}

// colorWords are the values of --color.
var colorWords = []string{"always", "auto", "never"}

// A colorFlag is the value of --color.
type colorFlag string

// String implements pflag.Value.
func (c *colorFlag) String() string { return string(*c) }

// Type implements pflag.Value.
func (c *colorFlag) Type() string { return "when" }

// Set implements pflag.Value.
func (c *colorFlag) Set(text string) error {
	if !slices.Contains(colorWords, text) {
		return fmt.Errorf("it is none of %s", strings.Join(colorWords, ", "))
	}
	*c = colorFlag(text)
	return nil
}
