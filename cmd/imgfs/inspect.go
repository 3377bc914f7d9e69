package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

const inspectUsage = `usage: imgfs inspect [--raw | --config] IMAGE

Prints what skopeo inspect prints, and ImageID, the digest of the config, and
DiffIDs, the digests of the uncompressed layers.

      --raw     print the manifest or image index that IMAGE names, byte for byte
      --config  print the config, byte for byte

On a terminal what could act on it is escaped in both, as JSON allows.

example:
  imgfs inspect --raw fedora:latest | sha256sum
`

func inspectCommand() command {
	return command{usage: inspectUsage, setup: func(f *pflag.FlagSet) action {
		raw := f.Bool("raw", false, "")
		config := f.Bool("config", false, "")
		return func(ctx context.Context, e *env, args []string) error {
			switch {
			case len(args) != 1:
				return usageError("inspect: one image is needed")
			case *raw && *config:
				return usageError("inspect: --raw and --config exclude each other")
			}
			return inspect(ctx, e, args[0], *raw, *config)
		}
	}}
}

func inspect(ctx context.Context, e *env, name string, raw, config bool) error {
	cache, err := e.openCache()
	if err != nil {
		return err
	}
	defer cache.Close()
	src, err := e.source(ctx, name, cache)
	if err != nil {
		return err
	}
	img, err := e.open(ctx, src, cache)
	if err != nil {
		return err
	}
	switch {
	case raw:
		return e.printDocument(img.Raw)
	case config:
		return e.printDocument(img.Config)
	}
	out := remote.Inspect(img)
	if e.offline && !isLocal(name) {
		out.RepoTags = []string{} // what the registry has nobody can say
	} else if out.RepoTags, err = repoTags(ctx, src); err != nil {
		e.warnf("RepoTags is empty: %s", describe(err))
	}
	return show.JSON(e.stdout, out)
}

// printDocument prints a document of the image: byte for byte, so that it has
// its digest, but on a terminal with escapes in place of what could act on it.
func (e *env) printDocument(document []byte) error {
	if _, ok := terminal(e.raw); ok {
		document = printable.JSON(document)
	}
	_, err := e.raw.Write(document)
	return err
}

// A tagger is a source that can list the tags beside the image's own.
type tagger interface {
	Tags(ctx context.Context) ([]string, error)
}

// repoTags lists the tags of an image's repository. An empty list is not
// null, as in skopeo.
func repoTags(ctx context.Context, src remote.Source) ([]string, error) {
	if t, ok := src.(tagger); ok {
		tags, err := t.Tags(ctx)
		return append([]string{}, tags...), err
	}
	return []string{}, nil
}

const versionUsage = `usage: imgfs version

Prints the version of imgfs.

example:
  imgfs version
`

func versionCommand() command {
	return command{usage: versionUsage, setup: func(*pflag.FlagSet) action {
		return func(_ context.Context, e *env, args []string) error {
			if len(args) != 0 {
				return usageError("version takes no arguments")
			}
			_, err := fmt.Fprintf(e.stdout, "imgfs %s\n", version())
			return err
		}
	}}
}

// version is the module's version, or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
