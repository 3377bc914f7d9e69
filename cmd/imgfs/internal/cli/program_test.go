package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// testProgram is a program of two commands and a group. What it does is written
// down in did.
func testProgram(did *[]string) *Program {
	var size Size
	var loud bool
	do := func(name string) Action {
		return func(_ context.Context, args []string) error {
			*did = append(*did, fmt.Sprint(name, args, size.Bytes, loud))
			switch {
			case len(args) == 0:
				return Usagef("%s: an argument is needed", name)
			case args[0] == "bad":
				return WithHint(errors.New("it is bad"), "a good one")
			case args[0] == "silent":
				return &ExitError{Code: 7}
			}
			return nil
		}
	}
	return &Program{
		Name: "prog", About: "does things", Column: 25, Notes: "THING: a thing", Example: "prog do it",
		HelpEntry: Entry{Usage: "[COMMAND]", Text: "say more"},
		Topics: []Topic{{Name: "flags", Aliases: []string{"flag"}, Title: "What all take", Flags: true, Notes: "No more."},
			{Name: "things", Title: "What things are", About: "They are\nthings."}},
		Flags: []func(*pflag.FlagSet){
			func(f *pflag.FlagSet) { f.Var(&size, "zize", "`SIZE` how much") },
			func(f *pflag.FlagSet) { f.BoolVarP(&loud, "loud", "l", false, "be loud") },
		},
		Commands: []Command{{
			Name: "do", Aliases: []string{"make"}, Entry: Entry{Usage: "THING", Text: "do a thing"}, Usage: "[FLAGS] THING",
			About: "Does a thing.", Notes: "It is done.", Example: "prog do it", Column: 20,
			Setup: func(f *pflag.FlagSet) Action {
				f.Bool("often", false, "more than\nonce")
				f.String("how", "", "`HOW` to do it")
				f.Var(&Bool{}, "sure", "`BOOL` whether")
				f.Lookup("sure").NoOptDefVal = "true"
				f.Bool("secret", false, "")
				f.Lookup("secret").Hidden = true
				return do("do")
			},
		}, {
			Name: "list", Usage: "old | new", About: "Lists things.", Example: "prog list new",
			Commands: []Command{
				{Name: "old", Entry: Entry{Text: "the old ones"}, Setup: func(*pflag.FlagSet) Action { return do("list old") }, Example: "prog list old"},
				{Name: "new", Setup: func(*pflag.FlagSet) Action { return do("list new") }, Example: "prog list new"},
			},
		}},
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"help": `prog does things
  do THING               do a thing
  help [COMMAND]         say more
THING: a thing
example: prog do it
`,
		"help flags": `What all take

      --zize SIZE  how much
  -l, --loud       be loud

No more.
`,
		"help flag": `What all take

      --zize SIZE  how much
  -l, --loud       be loud

No more.
`,
		"--help things": "What things are\n\nThey are\nthings.\n",
		"do --help": `usage: prog do [FLAGS] THING

Does a thing.

      --often       more than
                    once
      --how HOW     to do it
      --sure=BOOL   whether

It is done.

example:
  prog do it
`,
		"help make": "", "--loud do x --help": "", // the same
		"list --help": `usage: prog list old | new

Lists things.

  prog list old  the old ones

example:
  prog list new
`,
		"help list new": "usage: prog list new\n\nexample:\n  prog list new\n",
	} {
		if want == "" {
			want = helpOf(t, "do --help")
		}
		if got := helpOf(t, args); got != want {
			t.Errorf("prog %s: got\n%s\nwant\n%s", args, got, want)
		}
	}
}

func helpOf(t *testing.T, args string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	var did []string
	if code := testProgram(&did).Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(args)); code != ExitOK || stderr.Len() > 0 || did != nil {
		t.Errorf("prog %s: exit code %d, stderr %q, and it did %q", args, code, stderr.String(), did)
	}
	return stdout.String()
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args, did string
		code      int
		says      string
	}{
		{"do it", "do[it] 0 false", ExitOK, ""},
		{"--zize 2K make --often it -l", "do[it] 2048 true", ExitOK, ""},
		{"list -l new x", "list new[x] 0 true", ExitOK, ""},
		{"do -h", "", ExitUsage, "imgfs: unknown flag -h; help is --help\nimgfs: hint: usage: prog do [FLAGS] THING; prog help do\n"},
		{"do -lh it", "", ExitUsage, "imgfs: unknown flag -h; help is --help\nimgfs: hint: usage: prog do [FLAGS] THING; prog help do\n"},
		{"-h", "", ExitUsage, "imgfs: unknown flag -h; help is --help\nimgfs: hint: prog help\n"},
		{"list -h", "", ExitUsage, "imgfs: unknown flag -h; help is --help\nimgfs: hint: prog help list\n"},
		{"do bad", "do[bad] 0 false", ExitFailure, "imgfs: it is bad\nimgfs: hint: a good one\n"},
		{"do silent", "do[silent] 0 false", 7, ""},
		{"do", "do[] 0 false", ExitUsage, "imgfs: do: an argument is needed\nimgfs: hint: usage: prog do [FLAGS] THING; prog help do\n"},
		{"make", "do[] 0 false", ExitUsage, "imgfs: do: an argument is needed\nimgfs: hint: usage: prog do [FLAGS] THING; prog help make\n"},
		{"", "", ExitUsage, "imgfs: no command\nimgfs: hint: prog help\n"},
		{"dance", "", ExitUsage, "imgfs: unknown command \"dance\"\nimgfs: hint: prog help\n"},
		{"list", "", ExitUsage, "imgfs: list needs another word\nimgfs: hint: prog help list\n"},
		{"list dance", "", ExitUsage, "imgfs: unknown command \"list dance\"\nimgfs: hint: prog help list\n"},
		{"help do it", "", ExitUsage, "imgfs: help: one command at a time\nimgfs: hint: prog help\n"},
		{"list new --often", "", ExitUsage, "imgfs: unknown flag: --often\nimgfs: hint: prog help list new\n"},
		{"--zize much do", "", ExitUsage, "imgfs: invalid argument \"much\" for \"--zize\" flag: \"much\" is not a size such as 500M or 10GB\nimgfs: hint: prog help\n"},
	} {
		var stdout, stderr bytes.Buffer
		var did []string
		code := testProgram(&did).Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(c.args))
		if code != c.code || strings.Join(did, " ") != c.did || stderr.String() != c.says || stdout.Len() > 0 {
			t.Errorf("prog %s: got exit code %d, did %q, stdout %q and stderr\n%s\nwant %d, %q and\n%s", c.args, code, did, stdout.String(), stderr.String(), c.code, c.did, c.says)
		}
	}
}

// TestCommandWithCommands: a command may have an action and commands of its own.
func TestCommandWithCommands(t *testing.T) {
	for args, want := range map[string]string{
		"list":             "list[]",
		"list x":           "list[x]",
		"list x new":       "list[x new]",
		"list -- new":      "list[new]",
		"list new new":     "list new[new]",
		"list -l new x":    "list new[x]",
		"-l list new -- x": "list new[x]",
		"list --all new":   "list[new]",
		"list --all":       "list[]",
		"list nwe":         "list[nwe]",
	} {
		var stdout, stderr bytes.Buffer
		var did []string
		p := testProgram(&did)
		p.Commands[1].Setup = func(f *pflag.FlagSet) Action {
			f.Bool("all", false, "all of them")
			return func(_ context.Context, args []string) error {
				did = append(did, fmt.Sprintf("list%q", args))
				return nil
			}
		}
		code := p.Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(args))
		got := strings.ReplaceAll(strings.Join(did, " "), `"`, "")
		if got, _, _ = strings.Cut(got, " 0 "); code != ExitOK || strings.TrimSpace(strings.TrimSuffix(got, " 0")) != want {
			t.Errorf("prog %s: got exit code %d, did %q and said %q, want %q", args, code, got, stderr.String(), want)
		}
		if help := p.help(); !strings.Contains(help, "  do THING") {
			t.Errorf("help of the program:\n%s", help)
		}
		help := place{Program: p, name: "list", cmd: &p.Commands[1]}.help()
		if !strings.Contains(help, "--all") || !strings.Contains(help, "prog list old  the old ones") {
			t.Errorf("help of the command:\n%s", help)
		}
	}
}
