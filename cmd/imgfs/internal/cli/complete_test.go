package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	p := testProgram(new([]string))
	p.Argument = func(_ context.Context, a Argument) Completions {
		return Completions{Words: []Candidate{{Word: fmt.Sprint(a.Command, a.Means, a.Before, a.Word)}}}
	}
	for typed, want := range map[string]string{
		"|":                    "do list help",
		"l|":                   "list",
		"--l|":                 "--loud",
		"--zize|":              "--zize",
		"--zize |":             "",
		"--zize 3 d|":          "do",
		"-l d|":                "do",
		"list |":               "old new",
		"--loud list n|":       "new",
		"list new |":           "list new[] []",
		"list x |":             "",
		"dance |":              "",
		"do --|":               "--help --how --loud --often --sure --zize",
		"make --su|":           "--sure",
		"do --sure=|":          "--sure=true --sure=false",
		"do --sure=t|":         "--sure=true",
		"do --how=|":           "",
		"do --how x |":         "do[THING] []",
		"do --how=x --often |": "do[THING] []",
		"do -- --|":            "do[THING] []--",
		"do a |":               "do[] [a]",
		"help |":               "do list help",
		"help li|":             "list",
		"help fl|":             "flags",
		"help list |":          "old new",
	} {
		words := strings.Split(strings.TrimSuffix(typed, "|"), " ")
		var got []string
		for _, c := range p.Complete(t.Context(), words).Words {
			got = append(got, c.Word)
		}
		if strings.HasPrefix(typed, "do --|") {
			slices.Sort(got)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("prog %s: got %q, want %s", typed, got, want)
		}
	}
}

func TestMeanings(t *testing.T) {
	for usage, want := range map[string][]string{
		"[FLAGS] IMAGE [PATH...] | IMAGE:/PATH...": {"IMAGE IMAGE:/PATH", "PATH IMAGE:/PATH", "PATH IMAGE:/PATH"},
		"[-l] DIR | IMAGE...":                      {"DIR IMAGE", "IMAGE", "IMAGE"},
		"[--raw | --config] IMAGE":                 {"IMAGE", "", ""},
		"[FLAGS] IMAGE PATH... DEST":               {"IMAGE", "PATH", "PATH DEST"},
		"[FLAGS] IMAGE PATH... | -c FILE IMAGE":    {"IMAGE", "PATH", "PATH"},
		"[--json] --all | [--older-than D]":        {"", "", ""},
		"":                                         {"", "", ""},
	} {
		for i, w := range want {
			if got := strings.Join(meanings(usage, i), " "); got != w {
				t.Errorf("%s: argument %d means %q, want %q", usage, i, got, w)
			}
		}
	}
}
