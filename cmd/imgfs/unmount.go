package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/spf13/pflag"
)

func umountCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "umount",
		Aliases: []string{"unmount"},
		Usage:   "[-l] DIR | IMAGE...",
		Entry:   cli.Entry{Usage: "DIR...", Text: "unmount it again"},
		About:   "Unmounts what imgfs mount has mounted: on a directory, or the image if that is mounted once.",
		Example: "imgfs umount ~/fedora",
		OtherFlags: map[string]string{
			"-f": "-l, also if it is in use", "--force": "--lazy", "-z": "-l", "-u": "leave it out", "-a": "DIR...; imgfs cache ls lists them", "--all": "DIR...; imgfs cache ls lists them",
			"-R": "leave it out", "--recursive": "leave it out",
		},
		Setup: func(f *pflag.FlagSet) cli.Action {
			lazy := f.BoolP("lazy", "l", false, "also if it is in use: gone from its place now, ended when unused")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("umount: no directory and no image named")
				}
				unmount := fusefs.Unmount
				if *lazy {
					unmount = fusefs.UnmountLazy
				}
				return e.Each(args, func(arg string) error {
					return e.onMount(ctx, "unmount", arg, func(dir string) error {
						err := unmount(ctx, dir)
						if err == nil {
							serve.RemoveMade(dir)
						}
						return err
					})
				})
			}
		},
	}
}
