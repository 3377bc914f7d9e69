package main

import "github.com/imgfs/imgfs/cmd/imgfs/internal/cli"

// helpTopics are the help texts that are not of a command.
var helpTopics = []cli.Topic{{
	Name: "flags", Aliases: []string{"flag", "options"},
	Title: "The flags of every command, before or behind its name",
	Flags: true,
	Notes: `Sizes end in K, M, G or T (1024 each) or kB, MB, GB or TB (1000 each); 0 or none
is without a limit. Short flags may be joined, and the value of a long one may
follow a = or a space. Behind -- there are only arguments.`,
}, {
	Name: "images", Aliases: []string{"image", "IMAGE", "names", "reference"},
	Title: "How an image is named, and a file in it",
	About: `  fedora, quay.io/org/app:1.2    in a registry, as docker and podman have it
  NAME@sha256:DIGEST             the same, and no other image
  docker://NAME                  a registry in any case
  oci:DIR[:TAG]                  an OCI layout on this machine
  oci-archive:FILE[:TAG]         a layout in a tar, which may be compressed
  docker-archive:FILE[:REF]      what docker save writes
  ./DIR, ./FILE, image.tar[:REF] one of the three above, whichever it is
  -, -:REF, docker-archive:-     one on standard input: docker save x | ...
  docker-daemon:REF, or :ID      what docker's daemon has (DOCKER_HOST)
  containers-storage:REF         in podman's store; also [DRIVER@ROOT]REF
  containerd:REF                 in containerd's; also [NAMESPACE@ROOT]REF

In a layout or archive @sha256:DIGEST and @N (from 0) name an image, too.
A file is IMAGE PATH or IMAGE:/PATH; in the second form more words with a slash
are paths in the same image: fedora:41:/etc/passwd /etc/group.`,
}, {
	Name: "environment", Aliases: []string{"exit", "exit-codes", "exit-status", "files", "variables"},
	Title: "Exit codes, variables and files",
	About: `  0  all went well
  1  something did not, and the reason was printed
  2  the command line is wrong
  diff: 1 something differs, grep: 1 no line matches; both: 2 all that failed

  IMGFS_CACHE_DIR             as --cache-dir
  IMGFS_CACHE_SIZE            as --cache-size
  IMGFS_INDEX_REPO            as --index-repo, with commas
  IMGFS_INDEX_PUBLISH=1       as mount --index-publish
  REGISTRY_AUTH_FILE          credentials, as for podman
  DOCKER_CONFIG               the directory with docker's config.json, contexts
  DOCKER_HOST                 docker's daemon, or DOCKER_CONTEXT names it
  CONTAINERS_REGISTRIES_CONF  registries, mirrors and short names
  HTTPS_PROXY, NO_PROXY       as for other programs
  NO_COLOR                    no colours with --color=auto
  IMGFS_CONFIG                another file of settings; empty: none

  ~/.config/imgfs/config.toml  settings: imgfs help config
  ~/.cache/imgfs               what was fetched, and imgfs.log`,
}}
