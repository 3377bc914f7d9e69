package main

import (
	"context"
	"os"
	"strconv"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// wantPublish has the variable decide whether indexes are published, if the flag does not.
func (m *mounter) wantPublish(f *pflag.FlagSet) error {
	text := os.Getenv("IMGFS_INDEX_PUBLISH")
	if f.Changed(publishFlag) || text == "" {
		return nil
	}
	var err error
	if m.publish, err = strconv.ParseBool(text); err != nil {
		return cli.Usagef("the variable IMGFS_INDEX_PUBLISH: %q is neither true nor false", text)
	}
	return nil
}

// publishBuilt publishes the indexes of an image's layers that were made here in the first
// index repository that is named for it. A mount that ended before it had leaves that to
// the next one.
func publishBuilt(ctx context.Context, e *env, img *image.Image) error {
	repo := img.Resolved().IndexRepositories()[0]
	results, err := img.Publish(ctx, &image.PublishOptions{Repository: repo, Once: true, Version: "imgfs " + version()})
	if err != nil {
		return err
	}
	pushed, bytes := 0, int64(0)
	for _, r := range results {
		if r.Pushed {
			pushed++
			bytes += r.Bytes
		}
	}
	if pushed > 0 {
		e.Warnf("published %s (%s) in %s", show.Count(pushed, "index"), show.Bytes(bytes), printable.Name(repo))
	}
	return nil
}
