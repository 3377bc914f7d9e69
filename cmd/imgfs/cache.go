package main

const cacheUsage = `usage: imgfs cache ls | prune | verify

Looks after the cache directory, which keeps what was fetched of layers, their
indexes, manifests and configs for all mounts, and some files of the images whole
and uncompressed, which the kernel can read by itself.

  imgfs cache ls      list the images of which something is kept
  imgfs cache prune   remove what was not used for long, or all
  imgfs cache verify  check all of it against its digests

Running mounts go on whatever is removed: they fetch it again. How much is kept
at most says --cache-size, or IMGFS_CACHE_SIZE; what was used longest ago goes
first. Files that imgfs did not make stay, and are named. The directory must be
the user's own, and nobody else may write it.

Sizes end in K, M, G or T (1024 each; KiB, ... too) or kB, MB, GB or TB
(1000 each); 0 or none is without a limit.

example:
  imgfs cache ls
`

func cacheCommand() command {
	return command{usage: cacheUsage, second: map[string]command{
		"ls":     cacheLsCommand(),
		"prune":  cachePruneCommand(),
		"verify": cacheVerifyCommand(),
	}}
}
