package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// detachedFlag tells the child that it is the process in the background.
const detachedFlag = "detached"

// publishFlag has indexes that had to be made be published.
const publishFlag = "index-publish"

// noExecFlag is what -o noexec sets.
const noExecFlag = "noexec"

// A mounter is imgfs mount.
type mounter struct {
	foreground bool
	allowOther bool
	prefetch   bool
	provenance bool
	noExec     bool
	publish    bool // the indexes that had to be made
	detached   bool // this is the process in the background
	grace      time.Duration

	passthrough, ioURing choice
}

// A choice is the value of a flag that turns a fast path on or off. With "on" the
// mount fails if it cannot have that path; with "auto" it never does.
type choice fusefs.Choice

var choices = []string{fusefs.Auto: "auto", fusefs.On: "on", fusefs.Off: "off"}

// String implements pflag.Value.
func (c *choice) String() string { return choices[*c] }

// Type implements pflag.Value.
func (c *choice) Type() string { return "choice" }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	i := slices.Index(choices, s)
	if i < 0 {
		return errors.New("it is one of auto, on, off")
	}
	*c = choice(i)
	return nil
}

func mountCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "mount",
		Usage: "[FLAGS] IMAGE [DIR]",
		Entry: cli.Entry{Usage: "IMAGE [DIR]", Text: "mount the image's tree on DIR, read-only"},
		About: `Mounts the merged tree of an image, read-only. Without DIR imgfs makes a directory and prints it
(with -q nothing else); it goes with the mount. A process in the background serves the tree until
it is unmounted (imgfs umount, fusermount3 -u, umount) or gets a signal; see --grace for then. If
no registry can be asked, and with --offline, the image is as it was last seen, if that is here.`,
		Column:     25,
		Example:    "mkdir -p ~/fedora && imgfs mount fedora:latest ~/fedora",
		OtherFlags: mountHabits,
		Setup: func(f *pflag.FlagSet) cli.Action {
			m := mounter{}
			f.BoolVarP(&m.foreground, "foreground", "f", false, "serve in this process, until Ctrl-C or unmounting")
			f.DurationVar(&m.grace, "grace", serve.DefaultGrace, "`T` how long those who use the tree are served on after a signal (default 30s)")
			f.BoolVar(&m.allowOther, "allow-other", false, "let other users in (needs root, or user_allow_other in /etc/fuse.conf)")
			f.BoolVar(&m.prefetch, "prefetch", false, "bring all of the image into the cache, while nobody reads")
			f.BoolVar(&m.publish, publishFlag, false, "publish what it indexes in the first --index-repo (IMGFS_INDEX_PUBLISH)")
			set := networkFlags(f)
			f.BoolVar(&m.provenance, "provenance", false, "list the attributes user.imgfs.layer, .digest and .offset with the others")
			f.Var(&m.passthrough, "passthrough", "`W` \"on\": the kernel reads cached files by itself; \"off\", or \"auto\" (default)")
			f.Var(&m.ioURing, "io-uring", "`W` \"on\": requests come through io_uring; \"off\", or \"auto\" (default)")
			f.BoolVar(&m.detached, detachedFlag, false, "this is the process in the background")
			f.BoolVar(&m.noExec, noExecFlag, false, "")
			f.Lookup(detachedFlag).Hidden, f.Lookup(noExecFlag).Hidden = true, true
			options := f.StringArrayP(optionFlag, "o", nil, "`LIST` as mount has them: ro,allow_other,noexec,platform=P,cache-dir=DIR, ...")
			habits := habitFlags(f)
			return func(ctx context.Context, args []string) error {
				for _, list := range *options {
					if err := setOptions(f, list); err != nil {
						return err
					}
				}
				if err := habits(); err != nil {
					return err
				}
				if err := m.wantPublish(f); err != nil {
					return err
				}
				if err := set(&e.network); err != nil {
					return err
				}
				img, dir, err := mountArguments(ctx, args)
				switch {
				case err != nil:
					return err
				case m.prefetch && e.offline:
					return cli.Usagef("mount: --prefetch and --offline exclude each other")
				case m.grace < 0:
					return cli.Usagef("--grace %s: less than nothing", m.grace)
				}
				if name, on, ok := remote.CutPath(img); ok && dir == "" && isPlainDir(ctx, on) {
					return cli.WithHint(cli.Usagef("mount: %s: an image and a directory are two words", printable.Name(img)), "imgfs mount "+printable.Word(name)+" "+printable.Word(on))
				}
				if err := wholeImage("mount", img, dir); err != nil {
					return err
				}
				if img, err = e.located(ctx, img); err != nil {
					return notMountable(err, img)
				}
				if m.foreground || m.detached {
					return m.serve(ctx, e, img, dir)
				}
				return m.detach(ctx, e, img, dir, f)
			}
		},
	}
}

func (m *mounter) options(img string) *fusefs.Options {
	return &fusefs.Options{Name: img, AllowOther: m.allowOther, NoExec: m.noExec, Provenance: m.provenance,
		Passthrough: fusefs.Choice(m.passthrough), IOUring: fusefs.Choice(m.ioURing), EndAlone: m.detached}
}

// serve mounts the image and serves it until it is unmounted. If dir is "" it makes a
// directory, which goes when the mount does.
func (m *mounter) serve(ctx context.Context, e *env, name, dir string) error {
	mount := &serve.Mount{Env: e.Env, Options: m.options(name), Servers: &e.network.servers, Offline: e.offline,
		Begun: time.Now(), Grace: m.grace, Prefetch: m.prefetch}
	if m.detached {
		mount.Parent, ctx = serve.NewParent(ctx, e.Env)
		e.shown.parent = mount.Parent
	}
	var err error
	if dir == "" {
		if mount.Made, err = serve.MakeMountpoint(ctx, mountpointName(name), m.allowOther); err != nil {
			return err
		}
		defer mount.Made.Remove()
		dir = mount.Made.Dir
	}
	if mount.Target, err = fusefs.Check(ctx, dir, mount.Options); err != nil {
		return err
	}
	defer mount.Target.Close()
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := serve.CheckOutside(mount.Target.Dir(), disk.Dir()); err != nil {
		return err
	}
	img, err := e.tree(ctx, name, disk)
	if err != nil {
		return err
	}
	defer img.Close()
	defer img.NoteUsed()
	if m.prefetch && img.Resolved().Local() {
		e.Warnf("%s is on this machine: there is nothing to fetch", img.Name())
		mount.Prefetch = false
	}
	mount.Image = img
	if m.publish && len(img.Resolved().IndexRepositories()) == 0 {
		e.Warnf("--%s publishes nothing: no index repository is named, as --index-repo or IMGFS_INDEX_REPO does", publishFlag)
	} else if m.publish {
		mount.Publish = func(ctx context.Context) error { return publishBuilt(ctx, e, img) }
	}
	return mount.Serve(ctx, e.life)
}

// detach starts a child that serves the mount, and returns when that is ready or
// has failed.
func (m *mounter) detach(ctx context.Context, e *env, name, dir string, flags *pflag.FlagSet) error {
	name, err := absLocation(name)
	if err != nil {
		return err
	}
	args := append(childArgs(flags), "--", name)
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		args = append(args, abs)
	}
	line, err := serve.Detach(ctx, serve.Child{Args: args, Stdout: e.Raw, Stderr: e.Stderr, Message: e.Message, Display: e.Display})
	switch { // the mount stands, even if nobody reads that
	case err != nil:
		return err
	case !e.Quiet:
		_ = e.Print(line + "\n")
	case dir == "":
		_, _ = io.WriteString(e.Raw, line+"\n") // the directory, for a shell
	}
	return nil
}

// childArgs returns the arguments that give the child the flags of this process.
// Paths in them become absolute.
func childArgs(flags *pflag.FlagSet) []string {
	args := []string{"mount", "--" + detachedFlag}
	flags.VisitAll(func(f *pflag.Flag) { // Visit misses flags before the command
		if !f.Changed || f.Name == optionFlag { // options have set flags
			return
		}
		value := f.Value.String()
		if f.Name == "cache-dir" || f.Name == "authfile" {
			if abs, err := filepath.Abs(value); err == nil {
				value = abs
			}
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args
}
