package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/container"
	"github.com/imgfs/imgfs/fs/bundle"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
)

// mountFlags are the flags of imgfs mount that bundle has too. Help lists none of them.
var mountFlags = []string{"allow-other", "grace", "prefetch", publishFlag, "provenance", "passthrough", "io-uring", overlayFlag, "read-timeout", "retries", "max-requests"}

// A bundler is imgfs bundle.
type bundler struct {
	env       *env
	flags     *pflag.FlagSet
	container *containerFlags
	rootless  bool
	added     pathList   // directories that the mount shows besides
	owners    idMappings // owners that it shows in place of the image's
	mounting  *lentMount
}

func bundleCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "bundle",
		Usage:    "[FLAGS] IMAGE DIR [COMMAND]",
		Unlisted: true, // the entry of run names it
		Entry:    cli.Entry{Usage: "IMAGE DIR", Text: "make DIR a bundle for runc or crun"},
		About: `Makes DIR, which is new or empty, an OCI bundle: config.json with the image's
command, environment and user, and rootfs, on which the image is mounted. runc,
crun and others run it; imgfs umount DIR ends it.`,
		Notes:      "Flags of mount (imgfs mount --help) are for the mount.",
		Example:    "imgfs bundle fedora:latest fed bash -c 'id; pwd' && runc run -b fed fed1",
		OtherFlags: containerHabits,
		Raw:        rawCommand(2),
		Setup: func(f *pflag.FlagSet) cli.Action {
			b := &bundler{env: e, flags: f, container: newContainerFlags(f)}
			f.BoolVar(&b.rootless, "rootless", os.Geteuid() != 0, "for a plain user: in a user namespace")
			b.mounting = lendMount(e, f, mountFlags)
			return b.run
		},
	}
}

func (b *bundler) run(ctx context.Context, args []string) error {
	if len(args) < 2 || args[1] == "" {
		return cli.Usagef("bundle: an image is needed, and a directory for the bundle")
	}
	name, dir, command := args[0], args[1], args[2:]
	if loc, err := remote.ParseLocation(name); err == nil && loc.Stdin() {
		return cli.WithHint(cli.Usagef("bundle: an image on standard input can be read only once"), "cat > FILE, and then imgfs bundle FILE "+printable.Word(dir))
	}
	if err := wholeImage("bundle", name, dir); err != nil {
		return err
	}
	o, err := b.container.options(command)
	if err != nil {
		return err
	}
	if err := b.mounting.setNetwork(); err != nil {
		return err
	}
	if err := checkBundleDir(dir); err != nil {
		return err
	}
	if name, err = b.env.located(ctx, name); err != nil {
		return err
	}
	spec, err := b.spec(ctx, name, dir, o)
	if err != nil {
		return err
	}
	if err := b.make(ctx, name, dir, spec); err != nil {
		return err
	}
	b.report(dir)
	return nil
}

// spec returns the runtime config of the image.
func (b *bundler) spec(ctx context.Context, name, dir string, o *bundle.Options) (*specs.Spec, error) {
	disk, err := b.env.openCache()
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	img, err := b.env.tree(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	config, err := bundle.ParseConfig(img.Resolved().Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", img.Name(), err)
	}
	o.Rootless, o.Rootfs, o.Warn = b.rootless, bundleRoot, func(text string) { b.env.Warnf("%s", text) }
	if b.rootless && b.flags.Lookup("allow-other").Value.String() == "true" { // else the mount is for one user
		if users := container.FindUsers(); users != nil {
			o.UIDs, o.GIDs = users.UIDs, users.GIDs
		}
	}
	o.Bare = true
	if upper := b.flags.Lookup(overlayFlag); upper != nil && upper.Value.String() != "" {
		o.Bare, o.Changed = false, hasEntries(filepath.Join(upper.Value.String(), "upper"))
	}
	if o.Hostname == "" && hostnamePattern.MatchString(filepath.Base(dir)) {
		o.Hostname = filepath.Base(dir)
	}
	if o.Bare {
		o.Added = bundle.Missing(config, img.Tree(), o)
		b.added = o.Added
	}
	spec, err := bundle.Spec(ctx, config, img.Tree(), o)
	var refused *bundle.Error
	switch {
	case errors.As(err, &refused) && o.Bare && (refused.Reason == bundle.NoMountpoint || refused.Reason == bundle.BadWorkdir):
		return nil, cli.WithHint(fmt.Errorf("%s: %w", img.Name(), err), "imgfs bundle --"+overlayFlag+" UPPER ..., where the container can write, and the directory is made")
	case errors.As(err, &refused) && refused.Reason == bundle.Unmapped:
		return nil, cli.WithHint(fmt.Errorf("%s: %w", img.Name(), err), "-u 0, which is you; or --allow-other, for the users that /etc/subuid and /etc/subgid give you")
	case err != nil:
		return nil, fmt.Errorf("%s: %w", img.Name(), err)
	}
	b.owners = idMappings{spec.Linux.UIDMappings, spec.Linux.GIDMappings}
	return spec, nil
}

// bundleRoot is the root file system of a bundle, in its directory.
const bundleRoot = "rootfs"

// bundleMount returns where the root file system of the bundle dir is mounted, or "".
func bundleMount(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	root := filepath.Join(abs, bundleRoot)
	mounts, err := fusefs.Mounts()
	if err == nil && slices.ContainsFunc(mounts, func(m fusefs.MountPoint) bool { return cmp.Or(m.Shown, m.Dir) == root }) {
		return root
	}
	return ""
}

// hasEntries reports whether a directory has something in it, or cannot be read.
func hasEntries(dir string) bool {
	entries, err := os.ReadDir(dir)
	return len(entries) > 0 || err != nil && !errors.Is(err, os.ErrNotExist)
}

// checkBundleDir refuses a directory in which there is more than a place for the mount.
func checkBundleDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	for _, e := range entries {
		if e.Name() == bundle.ConfigName {
			return cli.WithHint(fmt.Errorf("%s: it has a %s", printable.Name(dir), bundle.ConfigName),
				"imgfs mount IMAGE "+printable.Word(filepath.Join(dir, bundleRoot))+" mounts the image of a bundle again; without that file it is made anew")
		}
		below, err := os.ReadDir(filepath.Join(dir, e.Name()))
		if e.Name() != bundleRoot || err != nil || len(below) > 0 {
			return cli.WithHint(fmt.Errorf("%s: it is not empty", printable.Name(dir)), "name a directory that is empty, or is not there")
		}
	}
	return nil
}

// make makes the directory, the config and the mount: all of them, or none.
func (b *bundler) make(ctx context.Context, name, dir string, spec *specs.Spec) (err error) {
	var made []string // to be removed, the last first
	defer func() {
		for i := len(made) - 1; err != nil && i >= 0; i-- {
			_ = os.Remove(made[i]) // what is not empty stays, and is somebody else's
		}
	}()
	for _, d := range []string{dir, filepath.Join(dir, bundleRoot)} {
		switch err := os.Mkdir(d, 0o700); {
		case err == nil:
			made = append(made, d)
		case !errors.Is(err, os.ErrExist):
			return err
		}
	}
	if err := bundle.Write(spec, dir); err != nil {
		return err
	}
	made = append(made, filepath.Join(dir, bundle.ConfigName))
	// The container has other users than the one who mounts, and the directory lets in
	// nobody else.
	if flag := b.flags.Lookup("allow-other"); os.Geteuid() == 0 && !flag.Changed {
		if err := b.flags.Set("allow-other", "true"); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{directoriesFlag: b.added.String(), ownersFlag: b.owners.String()} {
		if value == "" {
			continue
		}
		if err := b.mounting.set(name, value); err != nil {
			return err
		}
	}
	return b.mounting.mount(ctx, name, filepath.Join(dir, bundleRoot))
}

// report prints what to type next. The bundle is there, even if nobody reads that.
func (b *bundler) report(dir string) {
	if b.env.Quiet {
		return
	}
	name := "NAME"
	if base := filepath.Base(dir); hostnamePattern.MatchString(base) {
		name = base
	}
	_ = b.env.Print(fmt.Sprintf("run it:  %s run -b %s %s\nend it:  imgfs umount %s\n", b.runtime(), printable.Word(dir), name, printable.Word(dir)))
}

// runtime returns the beginning of a command line: a runtime that is there, with what it
// needs here.
func (b *bundler) runtime() string {
	if _, err := exec.LookPath("runc"); err != nil {
		if _, err := exec.LookPath("crun"); err == nil {
			return "crun"
		}
	}
	return "runc"
}
