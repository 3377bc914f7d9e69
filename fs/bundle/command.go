package bundle

import (
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxString is how long an argument or variable can be: MAX_ARG_STRLEN of Linux, with
	// the NUL at its end.
	maxString = 128<<10 - 1
	// maxStrings is how long all of them can be together: Linux takes a quarter of the
	// limit of the stack, and three quarters of 8 MiB at most (fs/exec.c).
	maxStrings = 6 << 20
)

// command returns the words of the command that runs: the entrypoint, and Args or else
// the image's Cmd. An entrypoint of the user's takes the image's Cmd away, as docker's and
// podman's does.
func command(config *ocispec.ImageConfig, o *Options) ([]string, error) {
	entrypoint, args := o.Entrypoint, o.Args
	if entrypoint == nil {
		entrypoint = config.Entrypoint
		if len(args) == 0 {
			args = config.Cmd
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	words := slices.Concat(entrypoint, args)
	switch {
	case len(words) == 0:
		return nil, refuse(NoCommand, "no command: the image names none, and none is given")
	case words[0] == "":
		return nil, refuse(NoCommand, "no command: the name of the program is empty")
	}
	return words, nil
}

// checkSize refuses what execve(2) cannot take.
func checkSize(args, env []string) error {
	total := 0
	for i, s := range slices.Concat(args, env) {
		what := "an argument that begins with " + printable.Name(printable.Cut(s, 40))
		if i >= len(args) {
			name, _, _ := strings.Cut(s, "=")
			what = "variable " + printable.Name(printable.Cut(name, 40))
		}
		switch total += len(s) + 1; {
		case strings.ContainsRune(s, 0):
			return refuse(BadVariable, "%s has a NUL byte", what)
		case len(s) > maxString:
			return refuse(BadVariable, "%s has %d bytes: Linux takes %d at most", what, len(s), maxString)
		case total > maxStrings:
			return refuse(BadVariable, "arguments and variables have more than %d MiB: Linux takes no more", maxStrings>>20)
		}
	}
	return nil
}
