//go:build linux

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/spf13/pflag"
)

// TestLsHelpNamesFlags checks that the help of ls has every flag, by its letter or
// else its name, and every letter that it has is a flag.
func TestLsHelpNamesFlags(t *testing.T) {
	f := pflag.NewFlagSet("ls", pflag.ContinueOnError)
	ls.NewOptions(f)
	text := goldenHelp(t, "ls")
	f.VisitAll(func(flag *pflag.Flag) {
		want := "--" + flag.Name
		if flag.Shorthand != "" {
			want = "-" + flag.Shorthand
		} else if flag.Name == "dereference-command-line-symlink-to-dir" || flag.Name == "hide-control-chars" {
			return // nobody types these
		}
		if !regexp.MustCompile(`[ (]` + want + `\b`).MatchString(text) {
			t.Errorf("the help of ls does not name %s", want)
		}
	})
	text, _, _ = strings.Cut(text, "\n  and those that every command takes") // what all commands take
	for _, m := range regexp.MustCompile(`[ (]-(\w)\b`).FindAllStringSubmatch(text, -1) {
		if f.ShorthandLookup(m[1]) == nil {
			t.Errorf("the help of ls names -%s, which is no flag", m[1])
		}
	}
}

// TestLsRefusesFlags has letters and words that ls does not know, and values that mean
// nothing.
func TestLsRefusesFlags(t *testing.T) {
	alone(t)
	for args, says := range map[string]string{
		"-Z": `'Z'`, "-lZ": `'Z'`, "-laD": `'D'`, "-M": `'M'`, "--hyperlink": "hyperlink", "--show-control-chars": "show-control-chars", "--author": "author", "--context": "context",
		"--sort=weight": "extension, name, none, size, time, version, width", "--time=birth": "atime", "--color=sometimes": "always, auto", "--format=wide": "across", "--indicator-style=all": "classify",
		"--quoting-style=locale": "shell-escape", "--time-style=american": "full-iso, long-iso, iso, locale", "--time-style=+a\nb\nc": "two lines", "--block-size=many": "512, K, 2M", "-w many": "number of columns", "-w -1": "number of columns",
		"-T x": "number of columns", "--all=false": "no value", "-I [": "no pattern",
	} {
		var words []string
		if flag, value, ok := strings.Cut(args, " "); ok {
			words = []string{flag, value}
		} else {
			words = []string{args}
		}
		r := invoke(t, append(append([]string{"ls"}, words...), "oci:nowhere")...)
		if r.code != cli.ExitUsage || r.stdout != "" || !strings.Contains(r.stderr, says) || !strings.Contains(r.stderr, "imgfs: hint: ") {
			t.Errorf("imgfs ls %q: got exit code %d and\n%swant %d, %q, and a hint", words, r.code, r.stderr, cli.ExitUsage, says)
		}
	}
}
