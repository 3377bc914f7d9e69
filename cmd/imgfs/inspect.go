package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func inspectCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "inspect",
		Usage: "[--raw | --config] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "print what the image says of itself, as JSON"},
		About: `Prints what skopeo inspect prints, and ImageID, the digest of the config, and
DiffIDs, the digests of the uncompressed layers.`,
		Notes:      "On a terminal what could act on it is escaped in both, as JSON allows.",
		Example:    "imgfs inspect --raw fedora:latest | sha256sum",
		OtherFlags: map[string]string{"--format": "imgfs inspect IMAGE | jq .Digest, or another member", "-f": "imgfs inspect IMAGE | jq .Digest, or another member"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			raw := f.Bool("raw", false, "print the manifest or image index of IMAGE, byte for byte")
			config := f.Bool("config", false, "print the config, byte for byte")
			asJSON := f.Bool("json", false, "") // it is JSON anyway
			f.Lookup("json").Hidden = true
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) != 1:
					return cli.Usagef("inspect: one image is needed")
				case *asJSON && (*raw || *config):
					return cli.Usagef("inspect: --raw and --config print what there is, byte for byte")
				case *raw && *config:
					return cli.Usagef("inspect: --raw and --config exclude each other")
				}
				if err := wholeImage("inspect", args[0], ""); err != nil {
					return err
				}
				return inspect(ctx, e, args[0], *raw, *config)
			}
		},
	}
}

func inspect(ctx context.Context, e *env, name string, raw, config bool) error {
	cache, err := e.openCache()
	if err != nil {
		return err
	}
	defer cache.Close()
	defer e.reportTraffic(cache)
	opts := e.imageOptions()
	opts.Cache = cache
	if raw || config {
		return e.printDocument(ctx, name, opts, config)
	}
	img, err := e.resolve(ctx, name, cache)
	if err != nil {
		return err
	}
	defer img.Close()
	out := remote.Inspect(img.Image)
	tags, err := img.Tags(ctx)
	if err != nil {
		e.Warnf("RepoTags is empty: %s", cli.Describe(err))
	}
	out.RepoTags = append([]string{}, tags...) // an empty list is not null, as in skopeo
	return show.JSON(e.Stdout, out)
}

// printDocument prints the document that a name means, or the config, byte for byte, so
// that it has its digest; but on a terminal it escapes everything that could act on that.
func (e *env) printDocument(ctx context.Context, name string, opts *image.Options, config bool) error {
	name, err := e.located(ctx, name)
	if err != nil {
		return err
	}
	open := image.Document
	if config {
		open = image.Config
	}
	unpacked := e.showUnpacking(opts)
	document, err := open(ctx, name, opts)
	unpacked()
	if err != nil {
		return e.advise(ctx, name, authfileError(err))
	}
	if _, ok := cli.Terminal(e.Raw); ok {
		document = printable.JSON(document)
	}
	_, err = e.Raw.Write(document)
	return err
}
