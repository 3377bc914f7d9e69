package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unlimited is what a size that has no bound is written as, besides 0.
const unlimited = "none"

// A sizeFlag is a number of bytes that was given, or not.
type sizeFlag struct {
	text  string
	bytes int64
	set   bool
}

// String, Set and Type implement pflag.Value.
func (s *sizeFlag) String() string { return s.text }

func (s *sizeFlag) Set(text string) error {
	n, err := parseSize(text)
	if err != nil {
		return err
	}
	*s = sizeFlag{text, n, true}
	return nil
}

func (s *sizeFlag) Type() string { return "size" }

// A boundFlag is a sizeFlag that may be "none", which is 0.
type boundFlag struct{ sizeFlag }

// Set implements pflag.Value.
func (b *boundFlag) Set(text string) error {
	if text == unlimited {
		b.sizeFlag = sizeFlag{text, 0, true}
		return nil
	}
	return b.sizeFlag.Set(text)
}

// option is the bound as options of packages have it: 0 for their default and
// negative for none.
func (b *boundFlag) option() int64 {
	if b.set && b.bytes == 0 {
		return -1
	}
	return b.bytes
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

// An ageFlag is a time span of Go's time package, before which days (d) and
// weeks (w) may stand.
type ageFlag struct {
	text string
	age  time.Duration
}

// String, Set and Type implement pflag.Value.
func (a *ageFlag) String() string { return a.text }

func (a *ageFlag) Set(text string) error {
	age, err := parseAge(text)
	if err != nil {
		return err
	}
	*a = ageFlag{text, age}
	return nil
}

func (a *ageFlag) Type() string { return "duration" }

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
