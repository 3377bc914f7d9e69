package main

import (
	"context"
	"io"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/completion"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func completionCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "completion",
		Usage:    "bash | zsh | fish",
		Entry:    cli.Entry{Usage: "SHELL", Text: "print what has bash, zsh or fish complete with Tab"},
		Unlisted: true,
		About: `Prints a script that has a shell complete commands, flags, images that were used
before, and paths in them, with the Tab key. Paths come from what is in the
cache: Tab asks no registry, and gives up after a second.

  bash  source <(imgfs completion bash)     in ~/.bashrc
  zsh   source <(imgfs completion zsh)      in ~/.zshrc, behind compinit
  fish  imgfs completion fish | source      in ~/.config/fish/config.fish

A package, and make install, put them where shells look by themselves.`,
		Lenient: true,
		Example: "imgfs completion bash > imgfs.bash",
		Setup: func(*pflag.FlagSet) cli.Action {
			return func(_ context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("completion: one shell is needed")
				}
				script := completion.Script(args[0])
				if script == "" {
					return cli.WithHint(cli.Usagef("completion: there is none for the shell %s", printable.Name(args[0])), "imgfs completion bash, zsh or fish")
				}
				_, err := io.WriteString(e.Raw, script)
				return err
			}
		},
	}
}
