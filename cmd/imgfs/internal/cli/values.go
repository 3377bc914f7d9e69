package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Unlimited is how a user writes that a size has no bound, besides 0.
const Unlimited = "none"

// Types of flags whose value is a path on this machine.
const (
	FileType = "file"
	DirType  = "dir"
)

// sizeType is the type of flags whose value is a size.
const sizeType = "size"

// A Size is a flag whose value is a number of bytes.
type Size struct {
	Bytes int64
	Given bool // by the user
	text  string
}

// String implements pflag.Value.
func (s *Size) String() string { return s.text }

// Set implements pflag.Value.
func (s *Size) Set(text string) error {
	n, err := parseSize(text)
	if err != nil {
		return err
	}
	*s = Size{n, true, text}
	return nil
}

// Type implements pflag.Value.
func (s *Size) Type() string { return sizeType }

// A Bound is a Size that may be "none", which is 0 bytes.
type Bound struct{ Size }

// Set implements pflag.Value.
func (b *Bound) Set(text string) error {
	if text == Unlimited {
		b.Size = Size{0, true, text}
		return nil
	}
	return b.Size.Set(text)
}

// Option returns the bound as options of packages have it: 0 is their default,
// and a negative number is no bound.
func (b *Bound) Option() int64 {
	if b.Given && b.Bytes == 0 {
		return -1
	}
	return b.Bytes
}

// parseSize reads a number of bytes as du and docker do: K, M, G and T, also
// with iB, are powers of 1024, and kB, MB, GB and TB of 1000, in upper or
// lower case. A part of a byte is a byte: only nothing is 0, which may mean
// that there is no bound.
func parseSize(text string) (int64, error) {
	number := strings.TrimRightFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is not a size such as 500M or 10GB", text)
	}
	factor, ok := sizeUnit(unit)
	if !ok {
		return 0, fmt.Errorf("%q: there is no unit %q, only K, M, G and T, with B or iB behind it or nothing", text, unit)
	}
	if v *= factor; v >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too much", text)
	}
	return int64(math.Ceil(v)), nil
}

// sizeUnit returns how many bytes a unit in lower case has.
func sizeUnit(unit string) (float64, bool) {
	if unit == "" || unit == "b" {
		return 1, true
	}
	exponent := strings.IndexByte("kmgt", unit[0]) + 1
	if exponent == 0 {
		return 0, false
	}
	switch unit[1:] {
	case "", "ib":
		return math.Pow(1024, float64(exponent)), true
	case "b":
		return math.Pow(1000, float64(exponent)), true
	}
	return 0, false
}

// An Age is a flag whose value is a time span as Go's time package reads it, with
// days (d) and weeks (w) before that.
type Age struct {
	Duration time.Duration // 0: not given
	text     string
}

// String implements pflag.Value.
func (a *Age) String() string { return a.text }

// Set implements pflag.Value.
func (a *Age) Set(text string) error {
	age, err := parseAge(text)
	if err != nil {
		return err
	}
	*a = Age{age, text}
	return nil
}

// Type implements pflag.Value.
func (a *Age) Type() string { return "duration" }

var errAge = errors.New("not a time span such as 36h, 7d or 2w")

// parseAge reads a time span, which is more than nothing.
func parseAge(text string) (time.Duration, error) {
	rest, hours := text, 0.0
	for _, u := range []struct {
		unit  string
		hours float64
	}{{"w", 7 * 24}, {"d", 24}} {
		number, after, ok := strings.Cut(rest, u.unit)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" {
			return 0, fmt.Errorf("%q: %w", text, errAge)
		}
		rest, hours = after, hours+v*u.hours
	}
	var age time.Duration
	if rest != "" || rest == text {
		var err error
		if age, err = time.ParseDuration(rest); err != nil {
			return 0, fmt.Errorf("%q: %w", text, errAge)
		}
	}
	if hours += age.Hours(); hours*float64(time.Hour) >= math.MaxInt64 || hours <= 0 {
		return 0, fmt.Errorf("%q: %w", text, errAge)
	}
	return time.Duration(hours * float64(time.Hour)), nil
}

// A Bool is a boolean flag that knows whether it was given.
type Bool struct{ Value, Given bool }

// String implements pflag.Value.
func (b *Bool) String() string {
	if !b.Given {
		return ""
	}
	return fmt.Sprint(b.Value)
}

// Set implements pflag.Value.
func (b *Bool) Set(s string) error {
	switch s {
	case "true", "1", "t":
		*b = Bool{true, true}
	case "false", "0", "f":
		*b = Bool{false, true}
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

// Type implements pflag.Value.
func (b *Bool) Type() string { return "bool" }
