package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestNearest(t *testing.T) {
	words := []string{"mount", "umount", "ls", "cat", "stats", "inspect", "index"}
	for typed, want := range map[string]string{
		"mont": "mount umount", "MOUNT": "mount umount", "muont": "mount umount", "umuont": "umount mount", "unmount": "umount mount",
		"l": "", "sl": "ls", "lss": "ls", "cta": "cat", "stat": "stats cat", "insepct": "inspect", "idnex": "index",
		"frobnicate": "", "": "", "m": "", "xy": "", " cat ": "cat", strings.Repeat("x", 1<<20): "",
	} {
		if got := strings.Join(Nearest(typed, words), " "); got != want {
			t.Errorf("%.20q: got %q, want %q", typed, got, want)
		}
	}
	if got := Nearest("v1", []string{"v2", "v3", "v4", "v5", "v3"}); !slices.Equal(got, []string{"v2", "v3", "v4"}) {
		t.Errorf("got %q, want three without repeats", got)
	}
}

// guessProgram is a program with commands and flags that can be misspelt. It may
// do nothing.
func guessProgram(t *testing.T) *Program {
	var did []string
	p := testProgram(&did)
	t.Cleanup(func() {
		if did != nil {
			t.Errorf("it did %q", did)
		}
	})
	p.Others = map[string]string{"perform": "prog do --often THING"}
	p.OtherFlags = map[string]string{"--kind": "--how it/{KIND}", "-D": "--loud"}
	p.Guess = func(words []string) string {
		if strings.Contains(words[0], "/") {
			return "prog do " + words[0]
		}
		return ""
	}
	p.Commands[0].OtherFlags = map[string]string{"--kind": "--how {KIND}"}
	p.Commands = append(p.Commands, Command{Name: "wait", Setup: func(f *pflag.FlagSet) Action {
		f.Duration("time", 0, "")
		f.BoolP("all", "a", false, "")
		f.StringP("options", "o", "", "")
		f.Bool("offline", false, "")
		return nil
	}})
	return p
}

func TestGuesses(t *testing.T) {
	for args, want := range map[string]string{
		// commands
		"od":          `unknown command "od"|prog do; prog help`,
		"Do it":       `unknown command "Do"|prog do; prog help`,
		"mkae it":     `unknown command "mkae"|prog do; prog help`,
		"lst new":     `unknown command "lst"|prog list; prog help`,
		"list nwe":    `unknown command "list nwe"|prog list new; prog help list`,
		"help lits":   `unknown command "lits"|prog list; prog help`,
		"hlep":        `unknown command "hlep"|prog help`,
		"perform it":  `unknown command "perform"|prog do --often THING; prog help`,
		"a/b":         `unknown command "a/b"|prog do a/b; prog help`,
		"--lod do it": "unknown flag: --lod|--loud; prog help",
		// flags
		"--often do it":            "unknown flag: --often|prog do --often; prog help",
		"do --oftne it":            "unknown flag: --oftne|--often; prog help do",
		"do --OFTEN it":            "unknown flag: --OFTEN|--often; prog help do",
		"do --oft it":              "unknown flag: --oft|--often; prog help do",
		"do --no-often it":         "unknown flag: --no-often|--often=false; prog help do",
		"do --seure=false it":      "unknown flag: --seure|--sure=false; prog help do",
		"do --secrets it":          "unknown flag: --secrets|prog help do",
		"do --kind x it":           "unknown flag: --kind|--how x; prog help do",
		"do --kind=$(x) it":        "unknown flag: --kind|--how '$(x)'; prog help do",
		"list new --kind":          "unknown flag: --kind|--how it/KIND; prog help list new",
		"do -D it":                 "unknown shorthand flag: 'D' in -D|--loud; prog help do",
		"do -sure=false it":        "-sure=false: a flag of several letters has two hyphens|--sure=false",
		"wait -offline":            "-offline: a flag of several letters has two hyphens|--offline",
		"do -oftne it":             "unknown shorthand flag: 'o' in -oftne|--often; prog help do",
		"do –often it":             `"–often" begins with a dash, and not with two hyphens|--often`,
		"do —how=x it":             `"—how=x" begins with a dash, and not with two hyphens|--how=x`,
		"do --sure false it":       "--sure false: the value of this flag follows a =|--sure=false",
		"do --often TRUE it":       "--often TRUE: the value of this flag follows a =|--often=true",
		"do it --loud false":       "--loud false: the value of this flag follows a =|--loud=false",
		"do --sure no it":          "--sure no: the value of this flag follows a =|--sure=false",
		"do --often on it":         "--often on: the value of this flag follows a =|--often=true",
		"--hlep do":                "unknown flag: --hlep|--help; prog help",
		"do --versoin":             "unknown flag: --versoin|--version; prog help do",
		"--loud false do it":       "--loud false: the value of this flag follows a =|--loud=false",
		"--zize 10 G do it":        "--zize 10 G: the unit is part of the size|--zize 10G",
		"do --zize=1.5 GiB it":     "--zize 1.5 GiB: the unit is part of the size|--zize 1.5GiB",
		"do --zize= it":            `invalid argument "" for "--zize" flag: "" is not a size such as 500M or 10GB|prog help do`,
		"wait --time 30":           `invalid argument "30" for "--time" flag: must be a duration like "30s" or "5m"|--time 30s; prog help wait`,
		"-l":                       "no command|prog help",
		"do --how":                 "flag needs an argument: --how|prog help do",
		"help do list":             "help: one command at a time|prog help",
		"--help dance":             `unknown command "dance"|prog help`,
		"do --\x1b[2J it":          `unknown flag: --\x1b[2J|prog help do`,
		"do --kind=\x1b[2J it":     `unknown flag: --kind|--how $'\033[2J'; prog help do`,
		"do --zize 3 --often true": "--often true: the value of this flag follows a =|--often=true",
	} {
		var stdout, stderr bytes.Buffer
		code := guessProgram(t).Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(args))
		says, hint, _ := strings.Cut(want, "|")
		if want := "imgfs: " + says + "\nimgfs: hint: " + hint + "\n"; code != ExitUsage || stderr.String() != want || stdout.Len() > 0 {
			t.Errorf("prog %s: got exit code %d, stdout %q and\n%swant\n%s", args, code, stdout.String(), stderr.String(), want)
		}
	}
}

// TestRightThough has arguments that look like a mistake and are none.
func TestRightThough(t *testing.T) {
	for args, want := range map[string]string{
		"do --sure --often x":        "do[x] 0 false",
		"do --loud -- true":          "do[true] 0 true",
		"do --how false x":           "do[x] 0 false",
		"do --how --often false":     "do[false] 0 false",
		"do --zize 10 Gx":            "do[Gx] 10 false",
		"do --zize 10K x":            "do[x] 10240 false",
		"do -- --often true":         "do[--often true] 0 false",
		"do -- help":                 "do[help] 0 false",
		"do x - true":                "do[x - true] 0 false",
		"do –- —":                    "do[–- —] 0 false",
		"do x help":                  "do[x help] 0 false",
		"list old --loud":            "list old[] 0 true",
		"--zize 4 list old -l false": "list old[false] 4 true",
	} {
		var stdout, stderr bytes.Buffer
		var did []string
		testProgram(&did).Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(args))
		if strings.Join(did, " ") != want {
			t.Errorf("prog %s: it did %q, want %q; stderr\n%s", args, did, want, stderr.String())
		}
	}
}

// TestVersionAndHelp asks for both in the ways of other programs.
func TestVersionAndHelp(t *testing.T) {
	for args, want := range map[string]string{
		"--version": "list old[] 0 false", "-V": "list old[] 0 false", "--loud --version": "list old[] 0 false", "do --version x": "list old[] 0 false",
		"--version do": "list old[] 0 false", "list -V": "list old[] 0 false",
	} {
		var stdout, stderr bytes.Buffer
		var did []string
		p := testProgram(&did)
		p.Version = "show"
		p.Commands = append(p.Commands, Command{Name: "show", Setup: p.Commands[1].Commands[0].Setup})
		p.Run(t.Context(), NewEnv(&stdout, &stderr), strings.Fields(args))
		if got := strings.Join(did, " "); got != want {
			t.Errorf("prog %s: it did %q, want %q", args, got, want)
		}
	}
	for args, same := range map[string]string{
		"--help do": "help do", "--help list new": "help list new", "do help": "help do", "list new help": "help list new",
		"help --help": "help", "help -h do": "help do", "help help": "help", "help do --often": "help do", "--help": "help", "-l --help do": "help do",
		"--help do --often": "help do", "list help": "help list", "list help new": "help list new",
	} {
		if got, want := helpOf(t, args), helpOf(t, same); got != want {
			t.Errorf("prog %s: got\n%s\nwant that of prog %s:\n%s", args, got, same, want)
		}
	}
}
