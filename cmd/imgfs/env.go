package main

import (
	"errors"
	"io"
	"os"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/spf13/pflag"
)

// An env is what all commands have: where to print, the flags that all of them
// take, and what ends with the command.
type env struct {
	*cli.Env

	cacheDir  string
	cacheSize cli.Bound
	limits    limits
	offline   bool
	platform  string
	tlsVerify cli.Bool
	authfile  string
	network   network
	life      *serve.Lifetime
}

func newEnv(stdout, stderr io.Writer) *env {
	e := &env{Env: cli.NewEnv(stdout, stderr), life: serve.NewLifetime()}
	e.Hint = hintFor
	return e
}

// globalFlags are the flags that all commands take, in the order of the help.
func (e *env) globalFlags() []func(*pflag.FlagSet) {
	return []func(*pflag.FlagSet){e.cacheFlags, e.limits.flags, e.otherFlags}
}

func (e *env) cacheFlags(f *pflag.FlagSet) {
	f.StringVar(&e.cacheDir, "cache-dir", os.Getenv("IMGFS_CACHE_DIR"), "`DIR` where to keep layers and indexes (IMGFS_CACHE_DIR; default ~/.cache/imgfs)")
	f.Var(&e.cacheSize, "cache-size", "`SIZE` how much to keep (IMGFS_CACHE_SIZE; default 10G or 1/10 of the free disk)")
}

func (e *env) otherFlags(f *pflag.FlagSet) {
	f.BoolVar(&e.offline, "offline", false, "use only what is in the cache, and never the network")
	f.StringVar(&e.platform, "platform", "", "`P` os/arch[/variant] of the image (default: this machine's)")
	f.Var(&e.tlsVerify, "tls-verify", "`BOOL` true: only https with a certificate to trust; false: any, and plain http")
	f.Lookup("tls-verify").NoOptDefVal = "true"
	f.StringVar(&e.authfile, "authfile", "", "`FILE` credentials (default: where podman and docker look)")
	f.BoolVar(&e.network.allowPrivate, "allow-private", false, "let registries lead to addresses in private networks and on this machine")
	f.BoolVarP(&e.Quiet, "quiet", "q", false, "say nothing but errors")
	f.BoolVarP(&e.Verbose, "verbose", "v", false, "say what is asked of the registry")
}

// hintFor returns the hint for an error of the packages below, or "".
func hintFor(err error) string {
	var mount *fusefs.Error
	var opening *image.Error
	if errors.As(err, &opening) {
		if hint := imageHint(opening); hint != "" {
			return hint
		}
	}
	switch {
	case errors.As(err, &mount):
		return mount.Hint
	case errors.Is(err, cache.ErrFull):
		return "give the cache more room, on the disk or with --cache-size SIZE"
	case errors.Is(err, layerindex.ErrTooBig), errors.Is(err, remote.ErrTooBig):
		return "allow more with --max-layer-size SIZE, or anything with --max-layer-size " + cli.Unlimited
	case errors.Is(err, layerindex.ErrMetadata):
		return "allow this image more memory with --max-metadata SIZE, if you trust it"
	case errors.Is(err, remote.ErrPlatform):
		return "choose one with --platform OS/ARCH[/VARIANT]"
	case errors.Is(err, layerindex.ErrDigest), errors.Is(err, layerindex.ErrDiffID), errors.Is(err, remote.ErrDigest):
		return "nothing of it was kept; try again, or ask whoever runs the registry"
	}
	return ""
}
