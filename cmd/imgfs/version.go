package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/spf13/pflag"
)

func versionCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "version",
		About:   "Prints the version of imgfs.",
		Example: "imgfs version",
		Setup: func(*pflag.FlagSet) cli.Action {
			return func(_ context.Context, args []string) error {
				if len(args) != 0 {
					return cli.Usagef("version takes no arguments")
				}
				return e.Print(fmt.Sprintf("imgfs %s\n", version()))
			}
		},
	}
}

// version returns the module's version, or the revision that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
