package find

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/spf13/pflag"
)

var someTime = time.Date(2026, 7, 2, 12, 0, 0, 0, time.UTC)

// TestParseErrors has command lines that are wrong, and what is said of them.
func TestParseErrors(t *testing.T) {
	for args, want := range map[string]string{
		"-nmae x": "unknown primary -nmae", "-name": "-name needs an argument", "( -name x": "a ) is missing", "-name x )": "a ) without a (", ")": "a ) without a (", "( )": "nothing in the parentheses", "(": "missing behind (",
		"-o": "missing before -o", "-name x -o": "missing behind -o", "-name x -o -o -true": "missing before -o", "-a -true": "missing before -a", ", -true": "missing before ,", "-true ,": "missing behind ,", "!": "missing behind !", "-not": "missing behind -not",
		"( -true -o )": "missing behind -o", "-true foo": "foo: paths come before", "-size x": "-size x: it is N", "-size 1x": "-size 1x:", "-size": "needs an argument", "-size ++1": "it is N", "-size 18446744073709551616": "it is N", "-perm 888": "it is a mode", "-perm 10000": "it is a mode", "-perm -u+q": "it is a mode",
		"-perm ": "it is a mode", "-perm u": "it is a mode", "-type q": "it is one of f, d", "-type f,": "it is one of", "-type ff": "it is one of", "-mtime x": "number N of days", "-mmin x": "number N of minutes", "-mtime 1e5": "number N", "-mtime Inf": "number N", "-mtime +": "number N",
		"-newermt xx": "it is no date", "-newermt @x": "@ stands before", "-maxdepth x": "number of levels", "-maxdepth -1": "number of levels", "-links x": "it is a number N", "-uid +-1": "it is a number N", "-regex \\(": "missing closing )", "-regex [": "a bracket [ is not closed",
		"-regex \\(a\\)\\1": "there is no \\1", "-regex x\\": "a backslash is its end", "-regextype perl": "there are the syntaxes awk", "-printf %Q": "there is no %Q", "-printf %": "a % is its end", "-printf \\": `a \ is its end`, "-printf \\q": `there is no \q`, "-printf %T": "needs a letter", "-printf %T!": "there is no %T!", "-printf %99999999999p": "a width is at most", "-printf %.p%D": "there is no %D",
		"-exec cat {} ;": "there is no -exec", "-delete": "images are read-only", "-readable": "depends on who", "-fprint x": "nothing is written", "-newerBt x": "when files were made",
	} {
		words := strings.Fields(args)
		if args == "-perm " {
			words = []string{"-perm", ""}
		}
		_, err := Parse(words, someTime)
		if err == nil || !cli.IsUsage(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one of the command line with %q", args, err, want)
		}
	}
	deep := slices.Repeat([]string{"("}, 1<<20)
	if _, err := Parse(deep, someTime); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Errorf("a million parentheses: error %v", err)
	}
	if _, err := Parse(slices.Repeat([]string{"!"}, 1<<20), someTime); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Errorf("a million negations: error %v", err)
	}
	if _, err := Parse(slices.Repeat([]string{"-true"}, 1<<16), someTime); err != nil {
		t.Errorf("a long expression: %v", err)
	}
}

func TestSplit(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.String("cache-dir", "", "")
	f.BoolP("quiet", "q", false, "")
	for _, c := range []struct{ args, flags, raw string }{
		{"IMAGE", "IMAGE", ""}, {"IMAGE -name x", "IMAGE", "-name x"}, {"-q IMAGE -name -q -q", "-q IMAGE -q", "-name -q"}, {"--cache-dir -name IMAGE /p -name --cache-dir", "--cache-dir -name IMAGE /p", "-name --cache-dir"},
		{"IMAGE -type f --cache-dir d -o -true", "IMAGE --cache-dir d", "-type f -o -true"}, {"IMAGE -true --cache-dir=d", "IMAGE --cache-dir=d", "-true"}, {"-L IMAGE -name -L", "IMAGE", "-L -name -L"}, {"IMAGE -H -true", "IMAGE", "-H -true"},
		{"IMAGE ( -true ) --quiet", "IMAGE --quiet", "( -true )"}, {"IMAGE ! -name x y", "IMAGE", "! -name x y"}, {"IMAGE -exec cat --quiet ;", "IMAGE", "-exec cat --quiet ;"}, {"IMAGE -name", "IMAGE", "-name"}, {"IMAGE --cache-dir", "IMAGE --cache-dir", ""}, {"IMAGE -- -true", "IMAGE", "-true"},
		{"IMAGE --nope -true", "IMAGE --nope", "-true"}, {"IMAGE -printf --quiet", "IMAGE", "-printf --quiet"},
	} {
		flags, raw, err := Split(f, strings.Fields(c.args))
		if err != nil || strings.Join(flags, " ") != c.flags || strings.Join(raw, " ") != c.raw {
			t.Errorf("%s: got flags %q, expression %q, error %v", c.args, flags, raw, err)
		}
	}
	for _, args := range []string{"IMAGE --name x", "IMAGE -cache-dir d", "IMAGE -true -quiet"} {
		if _, _, err := Split(f, strings.Fields(args)); err == nil || !cli.IsUsage(err) {
			t.Errorf("%s: error %v", args, err)
		}
	}
}

// TestExtremes has times and sizes at the ends of what there is.
func TestExtremes(t *testing.T) {
	now := momentOf(someTime)
	for _, arg := range []string{"0", "+0", "-0", "1", "-1", "+1", "99999999999999999999999", "+99999999999999999999999", "-99999999999999999999999", "0.000000001"} {
		for _, unit := range []float64{60, day} {
			match, err := parseAge(arg, unit, now)
			if err != nil {
				t.Fatal(err)
			}
			future, past := match(moment{math.MaxInt64, 999999999}), match(moment{math.MinInt64, 0})
			if want := arg[0] == '-'; future != want {
				t.Errorf("%s: a file of the far future matches: %t", arg, future)
			}
			if want := arg[0] == '+' && len(arg) < 10; past != want {
				t.Errorf("%s: a file of the far past matches: %t", arg, past)
			}
		}
	}
	for arg, want := range map[string]bool{"+1": true, "-1": false, "+8589934590G": true, "8589934592G": true, "+8589934592G": false, "9223372036854775807c": true, "+18446744073709551615c": false} {
		if match, err := parseSize(arg); err != nil || match(math.MaxInt64) != want {
			t.Errorf("-size %s of the largest file: error %v, want %t", arg, err, want)
		}
	}
}

func TestParseDate(t *testing.T) {
	at := func(y int, m time.Month, d, h, min, s int) moment {
		return momentOf(time.Date(y, m, d, h, min, s, 0, time.UTC))
	}
	for s, want := range map[string]moment{
		"2024-01-31": at(2024, 1, 31, 0, 0, 0), "2024-1-2 3:04": at(2024, 1, 2, 3, 4, 0), "2024-01-31T18:00:01": at(2024, 1, 31, 18, 0, 1), "2024-01-31 18:00:00.5": {1706724000, 5e8}, "2024-01-31 18:00 +0200": at(2024, 1, 31, 16, 0, 0), "2024-01-31T18:00:00Z": at(2024, 1, 31, 18, 0, 0),
		"31 Jan 2024": at(2024, 1, 31, 0, 0, 0), "Jan 31 2024 18:00": at(2024, 1, 31, 18, 0, 0), "@0": {}, "@-1.5": {-2, 5e8}, "@1.25": {1, 25e7}, "@9223372036854775807": {math.MaxInt64, 0},
		"now": momentOf(someTime), "yesterday": at(2026, 7, 1, 12, 0, 0), "2 days ago": at(2026, 6, 30, 12, 0, 0), "-2days": at(2026, 6, 30, 12, 0, 0), "1 week ago": at(2026, 6, 25, 12, 0, 0), "last month": at(2026, 6, 2, 12, 0, 0), "next year": at(2027, 7, 2, 12, 0, 0), "3 hours ago": at(2026, 7, 2, 9, 0, 0), "midnight": at(2026, 7, 2, 0, 0, 0),
	} {
		if got, err := parseDate(s, someTime); err != nil || got != want {
			t.Errorf("%q: got %v and error %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"x", "2024-13-01", "@", "@x", "@1.x", "3 parsecs ago", "99999999999999999999 days ago", "2024-01-31 25:00", "--1 day", "ago"} {
		if got, err := parseDate(s, someTime); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"-name x -o ( -type f,d ! -size +1k ) -printf %10.3p\\n", "-perm -u+rwX,g=u -regex .*\\(a\\|b\\)[[:alpha:]] , -quit", "-mtime -1.5 -newermt 2_days_ago -daystart", "-printf %T@%Tc\\123\\c%% -regextype egrep -iregex (a|b){2}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, " ")
		flags, raw, err := Split(pflag.NewFlagSet("", pflag.ContinueOnError), args)
		if err != nil {
			return
		}
		if len(flags)+len(raw) > len(args) {
			t.Errorf("%q: of %d words there are %q and %q", s, len(args), flags, raw)
		}
		if e, err := Parse(raw, someTime); (e == nil) != (err != nil) {
			t.Errorf("%q: expression %v, error %v", s, e, err)
		}
	})
}

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		fold, want    bool
	}{
		{"ReadMe*", "README.md", true, true}, {"é", "É", true, true}, {"[a-c]", "B", true, true}, {"[A-C]", "b", true, true}, {"[X]", "x", true, true}, {"[[:upper:]]", "x", true, true}, {"x", "y", true, false}, {"X\xff", "x\xff", true, true},
		{"x", "x", false, true}, {"x", "X", false, false}, {"", "", false, true}, {`\x`, "x", false, true}, {"[x]", "x", false, true},
	} {
		if got := matcher(c.pattern, c.fold)(c.name); got != c.want {
			t.Errorf("%q matches %q, whatever the case %t: %t, want %t", c.pattern, c.name, c.fold, got, c.want)
		}
	}
}
