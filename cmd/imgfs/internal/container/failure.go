package container

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exit codes of imgfs run that are not the command's, as podman and docker have them.
const (
	ExitFailed    = 125 // imgfs or the runtime failed
	ExitNotInvoke = 126 // the command cannot be invoked
	ExitNotFound  = 127 // the command is not there
)

// A Failure is why there is no container.
type Failure struct {
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	Code int    `json:"code"` // the exit code, as podman has it
}

// Error implements error.
func (f *Failure) Error() string { return f.Text }

// runtimeFailure makes a Failure of what a runtime says.
func runtimeFailure(kind Kind, said string) *Failure {
	said = wordsOf(kind, said)
	f := &Failure{Text: string(kind) + ": " + printable.Line(said), Code: ExitFailed}
	switch {
	case said == "":
		f.Text = string(kind) + " has not executed the command, and says nothing"
	case !strings.Contains(said, "exec"): // it is not about the command
	case containsAny(said, "executable file not found", "o such file or directory"):
		f.Code = ExitNotFound
	case containsAny(said, "xec format error"):
		f.Code, f.Hint = ExitNotInvoke, "a script without #! needs its shell: --entrypoint sh ... IMAGE FILE"
	case containsAny(said, "ermission denied", "s a directory"), hasAnyPrefix(said, "exec container process ", "exec /", "execvp "):
		f.Code = ExitNotInvoke
	}
	return f
}

// wordsOf returns what a runtime says without the form that it has: crun writes JSON, on a
// terminal in red, and bwrap begins with its name.
func wordsOf(kind Kind, said string) string {
	var all []string
	for line := range strings.Lines(said) {
		var entry struct{ Msg string }
		from, to := strings.IndexByte(line, '{'), strings.LastIndexByte(line, '}')
		if from >= 0 && from < to && json.Unmarshal([]byte(line[from:to+1]), &entry) == nil && entry.Msg != "" {
			line = entry.Msg
		}
		all = append(all, strings.Fields(strings.TrimPrefix(line, string(kind)+": "))...)
	}
	return strings.Join(all, " ")
}

func containsAny(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}

func hasAnyPrefix(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(s, w) })
}

const (
	// maxString is how long an argument or variable may be that execve(2) takes:
	// MAX_ARG_STRLEN, without the NUL.
	maxString = 128<<10 - 1
	// maxStrings is how much all of them may be: a quarter of the usual limit of the stack.
	maxStrings = 2 << 20
	// pointerSize is what each one takes besides.
	pointerSize = 8
)

// checkSizes refuses a command that the kernel would not execute: runtimes that find out
// when the container runs leave no error of their own.
func checkSizes(p *specs.Process) error {
	if p == nil {
		return nil
	}
	total := 0
	for _, s := range slices.Concat(p.Args, p.Env) {
		if len(s) > maxString {
			return &Failure{Code: ExitNotInvoke, Text: fmt.Sprintf("the command has an argument or a variable of %d bytes, and Linux takes %d: %s...", len(s), maxString, printable.Name(s[:40]))}
		}
		total += len(s) + 1 + pointerSize
	}
	if total > maxStrings {
		return &Failure{Code: ExitNotInvoke, Text: fmt.Sprintf("the command has arguments and variables of %d bytes, and Linux takes %d", total, maxStrings)}
	}
	return nil
}
