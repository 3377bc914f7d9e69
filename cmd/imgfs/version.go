package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/spf13/pflag"
)

func versionCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "version",
		Usage:   "[--json]",
		About:   "Prints the version of imgfs.",
		Lenient: true,
		Example: "imgfs version",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "an object, also with what it was built of: docs/json.md")
			return func(_ context.Context, args []string) error {
				if len(args) != 0 {
					return cli.Usagef("version takes no arguments")
				}
				if *asJSON {
					return show.JSON(e.Stdout, newVersionDoc())
				}
				return e.Print(fmt.Sprintf("imgfs %s\n", version()))
			}
		},
	}
}

// A versionDoc is what imgfs version --json prints.
type versionDoc struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"` // as of images
	// Commit is what the program was built of, if the go command knew, and Modified says
	// that files were not as in the commit.
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"` // of the commit
	Modified bool   `json:"modified,omitempty"`
}

func newVersionDoc() versionDoc {
	doc := versionDoc{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return doc
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			doc.Commit = s.Value
		case "vcs.time":
			doc.Time = s.Value
		case "vcs.modified":
			doc.Modified = s.Value == "true"
		}
	}
	return doc
}

// release is the version of a package, which the linker puts here: cmd/imgfs/package/build.
var release string

// version returns the package's version, the module's, or the revision that it was built
// from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
