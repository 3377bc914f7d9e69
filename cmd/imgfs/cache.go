package main

import "github.com/imgfs/imgfs/cmd/imgfs/internal/cli"

func cacheCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "cache",
		Usage: "ls | prune | verify",
		Entry: cli.Entry{Usage: "ls", Text: "list what is kept; also: cache prune, cache verify"},
		About: `Looks after the cache directory, which keeps what was fetched of layers, their
indexes, manifests and configs, and some files of the images whole, which the
kernel can read by itself.`,
		Others: map[string]string{
			"list": "imgfs cache ls", "show": "imgfs cache ls", "images": "imgfs cache ls", "du": "imgfs cache ls", "df": "imgfs cache ls", "size": "imgfs cache ls",
			"info": "imgfs cache ls", "rm": "imgfs cache prune", "remove": "imgfs cache prune", "delete": "imgfs cache prune", "clean": "imgfs cache prune",
			"clear": "imgfs cache prune --all", "purge": "imgfs cache prune --all", "gc": "imgfs cache prune", "check": "imgfs cache verify", "fsck": "imgfs cache verify",
		},
		Commands: []cli.Command{cacheLsCommand(e), cachePruneCommand(e), cacheVerifyCommand(e)},
		Notes: `Running mounts go on whatever is removed: they fetch it again. How much is kept
at most says --cache-size, or IMGFS_CACHE_SIZE; what was used longest ago goes
first. Files that imgfs did not make stay, and are named. The directory must be
the user's own, and nobody else may write it.

Sizes end in K, M, G or T (1024 each; KiB, ... too) or kB, MB, GB or TB
(1000 each); 0 or none is without a limit.`,
		Example: "imgfs cache ls",
	}
}
