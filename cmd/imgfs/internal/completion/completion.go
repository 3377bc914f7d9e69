package completion

import (
	_ "embed"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/printable"
)

//go:embed bash.sh
var bash string

//go:embed zsh.sh
var zsh string

//go:embed fish.fish
var fish string

// Shells are those that there is a script for.
var Shells = []string{"bash", "zsh", "fish"}

// Script returns the script of a shell, or "".
func Script(shell string) string {
	return map[string]string{"bash": bash, "zsh": zsh, "fish": fish}[shell]
}

// maxWords is how many words a shell gets at most.
const maxWords = 2000

// A Line is a command line that is being typed in a shell.
type Line struct {
	// Words follow the name of the program. The last one is being typed.
	Words []string

	shell  string
	typing typed // of the last one, in bash
}

// Parse reads what the script of a shell gives the program. ok is false if that is
// nothing that can be completed.
func Parse(shell string, args []string) (line Line, ok bool) {
	line.shell = shell
	switch {
	case shell == "bash" && len(args) == 2:
		var words []typed
		if words, ok = split(args[0]); ok && len(words) >= 2 {
			line.typing = words[len(words)-1]
			line.typing.breaks = args[1]
			for _, w := range words[1:] {
				line.Words = append(line.Words, w.value)
			}
			return line, true
		}
	case shell == "zsh" && len(args) >= 2:
		line.Words = args[1:]
		return line, true
	case shell == "fish" && len(args) >= 2:
		words, ok := split(args[len(args)-1])
		if !ok || len(words) > 1 {
			return line, false
		}
		line.Words = append(line.Words, args[1:len(args)-1]...)
		return Line{Words: append(line.Words, words[0].value), shell: shell}, true
	}
	return line, false
}

// Answer returns what the script of the shell reads: a line that says what follows
// (words, or more if something is to follow the one word without a space) or what the
// shell has to find itself (files, dirs), and a line for each word.
func (l Line) Answer(found cli.Completions) string {
	switch {
	case found.Files && len(found.Words) == 0:
		return "files\n"
	case found.Dirs && len(found.Words) == 0:
		return "dirs\n"
	}
	var b strings.Builder
	what, n := "words", 0
	for _, c := range found.Words {
		if !printable.Harmless(c.Word) || strings.ContainsAny(c.Word, "\t\n") || n == maxWords {
			continue
		}
		text := c.Word
		switch l.shell {
		case "bash":
			if text = l.typing.insert(c.Word); text == "" {
				continue
			}
		case "zsh":
			if text = "-" + text; c.More {
				text = "+" + c.Word
			}
		}
		if c.Text != "" && l.shell != "bash" {
			text += "\t" + c.Text
		}
		if n++; c.More {
			what = "more"
		}
		b.WriteString(text + "\n")
	}
	text := b.String()
	switch q := l.typing.quote; {
	case n != 1:
		what = "words" // a space follows none of several
	case q != 0 && strings.HasSuffix(text, string(q)+"\n"):
		// Bash ends the quotes unless it believes that they have been.
		text = strings.TrimSuffix(text, "\n") + string(q) + "\n"
	}
	return what + "\n" + text
}
