package completion

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

const breaks = " \t\n\"'><=;|&(:"

func TestParse(t *testing.T) {
	for typed, want := range map[string][]string{
		"imgfs ":                  {""},
		"A=1 imgfs ls a\\ b":      {"ls", "a b"},
		`imgfs "a b" 'c"d' e"f`:   {"a b", `c"d`, "ef"},
		`imgfs "\$x\n\"" '\' y\`:  {`$x\n"`, `\`, "y"},
		"imgfs a='b c'd\\'e \t f": {"a=b cd'e", "f"},
		"imgfs":                   nil,
		"imgfs a; b ":             nil,
		"imgfs $(a":               nil,
		"imgfs > f":               nil,
		"imgfs `a":                nil,
		"imgfs 'a;b":              {"a;b"},
	} {
		line, ok := Parse("bash", []string{typed, breaks})
		if ok != (want != nil) || ok && !slices.Equal(line.Words, want) {
			t.Errorf("%q: got %q, %v, want %q", typed, line.Words, ok, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	words := func(words ...string) (found cli.Completions) {
		for _, w := range words {
			found.Words = append(found.Words, cli.Candidate{Word: w})
		}
		return found
	}
	for _, c := range []struct {
		typed string
		found cli.Completions
		want  string
	}{
		{"imgfs a:b:/e", words("a:b:/etc", "a:b:/e x"), "words\n/etc\n/e\\ x\n"},
		{`imgfs "a:b:/e`, words(`a:b:/e"`), "words\na:b:/e\\\"\"\n"},
		{`imgfs a:"b:/e`, words(`a:b:/e$x`), "words\nb:/e\\$x\n"},
		{`imgfs a\:b:/e`, words(`a:b:/etc`), "words\n/etc\n"},
		{`imgfs "a:b:/"e`, words(`a:b:/etc`), "words\netc\n"},
		{"imgfs --x=", words("--x=y"), "words\ny\n"},
		{"imgfs a:", words("b:c"), "words\n"},
		{"imgfs ", words("a\nb", "a\tb", "a\x1bb", "a\xffb"), "words\n"},
		{"imgfs ", cli.Completions{Words: []cli.Candidate{{Word: "d/", Text: "text", More: true}}}, "more\nd/\n"},
		{"imgfs ", cli.Completions{Files: true}, "files\n"},
		{"imgfs ", cli.Completions{Dirs: true}, "dirs\n"},
	} {
		line, ok := Parse("bash", []string{c.typed, breaks})
		if got := line.Answer(c.found); !ok || got != c.want {
			t.Errorf("%q: got %q, want %q", c.typed, got, c.want)
		}
	}
	found := cli.Completions{Words: []cli.Candidate{{Word: "d e/", Text: "text", More: true}, {Word: "f"}}}
	for shell, want := range map[string]string{"zsh": "words\n+d e/\ttext\n-f\n", "fish": "words\nd e/\ttext\nf\n"} {
		line, _ := Parse(shell, []string{"imgfs", ""})
		if got := line.Answer(found); got != want {
			t.Errorf("%s: got %q, want %q", shell, got, want)
		}
	}
}

// FuzzQuote: what is quoted is one word again, for us and for a shell, which runs nothing.
func FuzzQuote(f *testing.F) {
	for _, text := range []string{"", "a b", "$(touch x)", "`x`", "it's", `"`, `\`, "!!", "~", "a\tb", "ä\n", "=x", "#", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if slices.Contains([]byte(text), 0) || slices.Contains([]byte(text), '\n') {
			return
		}
		for before, kind := range map[string]byte{"": 0, "'": '\'', `"`: '"'} {
			quoted := before + quote(text, kind) + before
			words, ok := split("imgfs x" + quoted)
			if !ok || len(words) != 2 || words[1].value != "x"+text {
				t.Errorf("%q became %q, and that %+v", text, quoted, words)
			}
			out, err := exec.Command("sh", "-c", "printf %s x"+quoted).Output()
			if err != nil || string(out) != "x"+text {
				t.Errorf("%q became %q, and that for sh %q, error %v", text, quoted, out, err)
			}
		}
	})
}
