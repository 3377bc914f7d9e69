package bundle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// version is the version of runtime-spec that the config keeps to: what runc 1.1 and crun
// 1.8 take.
const version = "1.0.2"

// umask is the one that programs in containers find.
const umask = 0o022

// ParseConfig returns the config of an image from its JSON. The error is an *Error.
func ParseConfig(raw []byte) (*ocispec.Image, error) {
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, refuse(BadConfig, "the image's config cannot be read: %s", printable.Line(err.Error()))
	}
	return &config, nil
}

// Spec returns the runtime config that runs the image whose config and tree are given. It
// reads the tree's passwd and group, and the beginning of the command. nil options are
// the defaults.
//
// The error is an *Error if the image, or what is asked of it, is at fault; what could not
// be read gives another one, and so does the end of ctx.
func Spec(ctx context.Context, config *ocispec.Image, tree *fs.Tree, o *Options) (*specs.Spec, error) {
	if o == nil {
		o = &Options{}
	}
	if err := checkPlatform(config); err != nil {
		return nil, err
	}
	args, err := command(&config.Config, o)
	if err != nil {
		return nil, err
	}
	who, err := lookupUser(ctx, tree, &config.Config, o)
	if err != nil {
		return nil, err
	}
	cwd, err := workdir(tree, &config.Config, o)
	if err != nil {
		return nil, err
	}
	env, err := environment(&config.Config, o, who.home(cwd))
	if err != nil {
		return nil, err
	}
	if err := checkSize(args, env); err != nil {
		return nil, err
	}
	mounts, err := mounts(tree, o)
	if err != nil {
		return nil, err
	}
	if !o.Changed {
		if err := checkCommand(ctx, tree, args[0], env, cwd, mounts); err != nil {
			return nil, err
		}
	}
	spec := &specs.Spec{
		Version: version,
		Process: &specs.Process{
			Terminal:     o.Terminal,
			User:         who.spec(o),
			Args:         args,
			Env:          env,
			Cwd:          cwd,
			Capabilities: capabilities(o, who.uid),
		},
		Root:     &specs.Root{Path: o.rootfs(), Readonly: o.ReadOnly || o.Bare},
		Hostname: o.hostname(),
		Mounts:   mounts,
		Linux:    linux(o),
	}
	if spec.Linux.Seccomp, err = seccompProfile(spec); err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	return spec, nil
}
