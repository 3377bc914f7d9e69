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
	"github.com/imgfs/imgfs/fs/image"
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
	profile    string // auto, off or a file
	provenance bool
	noExec     bool
	publish    bool     // the indexes that had to be made
	noWait     bool     // mount before the image is open
	helper     bool     // mount(8) has called it
	fake       bool     // mount nothing, and look whether it could be
	sloppy     bool     // options that there are not mean nothing
	detached   bool     // this is the process in the background
	noRecover  bool     // it ends with the process that serves it
	succeed    bool     // this process takes over from another one
	words      []string // the arguments as they were given
	successor  []string // the command line of such a process, without image and directory
	grace      time.Duration
	overlay    string // the directory that takes what is written; "" for none

	layers    layerCount // how many are mounted; 0: all
	suid, dev bool       // setuid bits and devices have an effect
	engine    bool       // a container engine puts overlays on it
	xattrs    bool       // it answers for attributes that no file has
	export    bool       // it is exported by NFS

	owners      idMappings // of the user namespace that imgfs bundle is for
	directories pathList   // of which imgfs bundle needs more than the image has

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
		Name:       "mount",
		Usage:      "[FLAGS] IMAGE [DIR]",
		Entry:      cli.Entry{Usage: "IMAGE [DIR]", Text: "mount the image's tree on DIR, read-only"},
		About:      `Mounts an image read-only, on DIR or one that it makes and prints (-q: no more).`,
		Example:    "mkdir -p ~/fedora && imgfs mount fedora:latest ~/fedora",
		OtherFlags: mountHabits,
		Setup: func(f *pflag.FlagSet) cli.Action {
			m := mounter{}
			f.BoolVarP(&m.foreground, "foreground", "f", false, "serve in this process, until Ctrl-C or unmounting")
			f.DurationVar(&m.grace, "grace", serve.DefaultGrace, "`T` how long to serve its users on after a signal (30s)")
			f.BoolVar(&m.allowOther, "allow-other", false, "let others in (needs root, or user_allow_other set)")
			f.BoolVar(&m.noWait, "no-wait", false, "return at once; who looks there waits for the image")
			f.BoolVar(&m.noRecover, noRecoverFlag, false, "let it end with its process; else another takes over")
			f.StringVar(&m.overlay, overlayFlag, "", "`DIR` let the tree be written; what is written goes to DIR")
			f.BoolVar(&m.prefetch, "prefetch", false, "fetch the rest of the image, while nobody reads")
			f.StringVar(&m.profile, profileFlag, "auto", "`W` fetch what was read first before: auto, off or a FILE")
			f.BoolVar(&m.publish, publishFlag, false, "publish what it indexes in the first --index-repo")
			cli.Note(f.Lookup(publishFlag), cli.Variables, "IMGFS_INDEX_PUBLISH")
			set := networkFlags(f)
			f.BoolVar(&m.provenance, "provenance", false, "list the attributes user.imgfs.layer, .digest, .offset")
			f.Var(&m.passthrough, "passthrough", "`W` the kernel reads cached files by itself: on, off or auto")
			f.Var(&m.ioURing, "io-uring", "`W` requests come through io_uring: on, off or auto")
			cli.Note(f.Lookup("passthrough"), cli.Words, choices...)
			cli.Note(f.Lookup("io-uring"), cli.Words, choices...)
			f.BoolVar(&m.detached, detachedFlag, false, "this is the process in the background")
			f.BoolVar(&m.succeed, serve.SucceedFlag, false, "")
			f.Lookup(serve.SucceedFlag).Hidden = true
			f.BoolVar(&m.noExec, noExecFlag, false, "")
			f.Var(&m.directories, directoriesFlag, "")
			f.Var(&m.owners, ownersFlag, "")
			f.Lookup(directoriesFlag).Hidden, f.Lookup(ownersFlag).Hidden = true, true
			f.BoolVar(&m.helper, helperFlag, false, "")
			f.BoolVar(&m.fake, fakeFlag, false, "")
			f.BoolVar(&m.sloppy, sloppyFlag, false, "")
			for _, name := range []string{helperFlag, fakeFlag, sloppyFlag} {
				f.Lookup(name).Hidden = true
			}
			m.declareEngines(f)
			e.credentialsFlag(f)
			f.Lookup(detachedFlag).Hidden = true
			for _, name := range optionFlags {
				f.Lookup(name).Hidden = true
			}
			options := f.StringArrayP(optionFlag, "o", nil, "`LIST` as of mount(8): noexec,suid,layers=N,engine, ...")
			habits := habitFlags(f)
			return func(ctx context.Context, args []string) error {
				if m.helper && len(args) == 2 {
					e.About(args[1]) // mount -a calls the helper of many a line
				}
				for _, list := range *options {
					if err := m.setOptions(e, f, list); err != nil {
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
				m.successor, m.words = childArgs(f), args
				if m.prefetch && e.offline && cli.From(f, "prefetch") != "" {
					m.prefetch = false // a setting gives way
				}
				if m.succeed {
					return m.takeOver(ctx, e, args)
				}
				var store *serve.Store
				var noStore error
				if m.foreground {
					// Before anything looks at the directory: this process is who would answer.
					if store, noStore = serve.OpenStore(ctx); noStore == nil {
						if resumed, err := m.resume(ctx, e, store); resumed {
							return err
						}
					}
				}
				img, dir, err := mountArguments(ctx, args)
				switch {
				case err != nil:
					return err
				case m.prefetch && e.offline:
					return offlineHint(f, cli.Usagef("mount: --prefetch and --offline exclude each other"))
				case m.noWait && readsStdin(img):
					return cli.WithHint(cli.Usagef("mount: --no-wait and - exclude each other: standard input is read before the command returns"), "put the archive into a file, and name that")
				case m.export && (m.engine || m.overlay != ""):
					return cli.Usagef("mount: --%s is not for a mount that an overlay is put on: what is copied up there would be lost from sight", exportFlag)
				case m.noWait && m.overlay != "":
					return cli.Usagef("mount: --no-wait and --%s exclude each other: what can be written lies over an image that is open", overlayFlag)
				case f.Changed(overlayFlag) && m.overlay == "": // as of a script whose variable is not set
					return cli.Usagef("mount: --%s: the name of the directory is empty", overlayFlag)
				case m.grace < 0:
					return cli.Usagef("--grace %s: less than nothing", m.grace)
				}
				if err := m.mayHaveRights(); err != nil {
					return err
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
				if m.helper && !m.detached {
					if done, err := m.already(ctx, e, img, dir); done || err != nil {
						return err
					}
				}
				if m.fake {
					return m.try(ctx, e, img, dir)
				}
				if m.foreground || m.detached {
					return m.serve(ctx, e, img, dir, store, noStore)
				}
				return m.detach(ctx, e, img, dir, f)
			}
		},
	}
}

func (m *mounter) options(img string) *fusefs.Options {
	return &fusefs.Options{Name: img, AllowOther: m.allowOther, NoExec: m.noExec, Suid: m.suid, Dev: m.dev, Engine: m.engine, Xattrs: m.xattrs, Export: m.export, Provenance: m.provenance, Owners: m.owners.owners(),
		Passthrough: fusefs.Choice(m.passthrough), IOUring: fusefs.Choice(m.ioURing), EndAlone: m.detached}
}

// serve mounts the image and serves it until it is unmounted. If dir is "" it makes a
// directory, which goes when the mount does. In the foreground the service manager keeps the
// mount in store, or noStore says why it does not.
func (m *mounter) serve(ctx context.Context, e *env, name, dir string, store *serve.Store, noStore error) error {
	mount := &serve.Mount{Env: e.Env, Options: m.options(name), Servers: &e.network.servers, Offline: e.offline,
		Begun: time.Now(), Grace: m.grace, Prefetch: m.prefetch, NewSession: m.helper && m.detached}
	var err error
	if mount.Forecaster, err = m.forecaster(); err != nil {
		return err
	}
	if err := m.wantRecovery(e, name, store, noStore, mount); err != nil {
		return err
	}
	if m.detached {
		mount.Parent, ctx = serve.NewParent(ctx, e.Env)
		e.shown.parent = mount.Parent
	}
	if serve.Managed() && dir != "" {
		serve.PrepareDir(ctx, dir)
	}
	if dir != "" { // what a process left that was killed
		if err := serve.RemoveDead(ctx, dir); err != nil {
			return err
		}
	}
	if m.overlay != "" {
		if mount.Overlay, mount.Made, err = m.openOverlay(ctx, name, dir); err != nil {
			return err
		}
		defer closeOverlay(mount.Overlay)
		defer mount.Made.Remove()
		dir, mount.Options.AllowOther = mount.Made.Dir, false
	} else if dir == "" {
		if mount.Made, err = serve.MakeMountpoint(ctx, mountpointName(name), m.allowOther); err != nil {
			return err
		}
		defer mount.Made.Remove()
		dir = mount.Made.Dir
	}
	if mount.Target, err = checkDir(ctx, dir, mount.Options); err != nil {
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
	if mount.Overlay != nil {
		if err := serve.CheckOutside(mount.Overlay.Dir, disk.Dir()); err != nil {
			return err
		}
	}
	mount.Cache = disk
	m.opens(e)
	if m.noWait {
		return m.serveLater(ctx, e, name, mount)
	}
	started := serve.Starting("opening " + printable.Name(name))
	img, err := e.tree(ctx, name, disk)
	started()
	if err != nil {
		return err
	}
	defer img.Close()
	defer img.NoteUsed()
	mount.Image = img
	m.prepare(e, mount, img)
	return mount.Serve(ctx, e.life)
}

// opens says how the image is opened.
func (m *mounter) opens(e *env) {
	e.streamNow = true // the daemon, or its image, may be gone when a file is read
	e.directories, e.lowest = m.directories, int(m.layers)
}

// serveLater mounts before the image is open.
func (m *mounter) serveLater(ctx context.Context, e *env, name string, mount *serve.Mount) error {
	var err error
	if mount.Name, err = e.nameNow(ctx, name); err != nil {
		return err
	}
	var img *image.Image
	defer func() {
		if img != nil {
			img.NoteUsed()
			img.Close()
		}
	}()
	e.shown.none = true
	mount.Open = func(ctx context.Context) (*image.Image, error) {
		var err error
		if img, err = e.tree(ctx, name, mount.Cache); err == nil {
			m.prepare(e, mount, img)
		}
		return img, err
	}
	return mount.Serve(ctx, e.life)
}

// already reports whether the image is mounted on the directory, for mount(8): with -a it
// calls its helper again for a line of fstab whose image has a longer name in the mount
// table. What nobody serves any more is unmounted.
func (m *mounter) already(ctx context.Context, e *env, name, dir string) (done bool, err error) {
	if m.overlay == "" && askedToWrite() {
		e.Warnf("mounting %s read-only: there is nothing else", printable.Name(name))
	}
	m.warnKept(e)
	full, err := e.nameNow(ctx, name)
	if err != nil {
		return false, err
	}
	if err := serve.RemoveDead(ctx, dir); err != nil {
		return false, err
	}
	mounts, err := fusefs.Mounts()
	if err != nil {
		return false, err
	}
	for _, p := range mounts {
		if at := filepath.Clean(dir); (p.Dir == at || p.Shown == at) && p.Name == full && p.Own() {
			if e.Verbose || !askedForAll() {
				e.Warnf("%s is mounted on %s already", printable.Name(full), printable.Name(dir))
			}
			return true, nil
		}
	}
	return false, nil
}

// try looks for reasons why the image could not be mounted, as far as they can be told
// without asking for it.
func (m *mounter) try(ctx context.Context, e *env, name, dir string) error {
	if _, err := e.nameNow(ctx, name); err != nil || dir == "" {
		return err
	}
	target, err := checkDir(ctx, dir, m.options(name))
	if err == nil {
		target.Close()
	}
	return err
}

// checkDir is [fusefs.Check]. Of a mount that is there and does not answer it says which
// process is stopped.
func checkDir(ctx context.Context, dir string, opts *fusefs.Options) (*fusefs.Target, error) {
	target, err := fusefs.Check(ctx, dir, opts)
	if errors.Is(err, fusefs.ErrNoAnswer) {
		there, _ := mountAt(ctx, dir) // else it is none of ours
		err = whyStopped(ctx, there, err)
	}
	return target, err
}

// prepare decides what is done beside serving an image that is open.
func (m *mounter) prepare(e *env, mount *serve.Mount, img *image.Image) {
	if m.prefetch && img.Resolved().Local() {
		e.Warnf("%s is on this machine: there is nothing to fetch", img.Name())
		mount.Prefetch = false
	}
	if m.publish && len(img.Resolved().IndexRepositories()) == 0 {
		e.Warnf("--%s publishes nothing: no index repository is named, as --index-repo or IMGFS_INDEX_REPO does", publishFlag)
	} else if m.publish {
		mount.Publish = func(ctx context.Context) error { return publishBuilt(ctx, e, img) }
	}
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
	child := serve.Child{Args: args, Stdout: e.Raw, Stderr: e.Stderr, Message: e.Message, Display: e.Display, SameGroup: m.helper,
		Failed: func() { serve.RemoveLeft(dir, m.allowOther) }}
	if loc, err := remote.ParseLocation(name); err == nil && loc.Stdin() {
		child.Stdin = e.stdin.file
	}
	line, err := serve.Detach(ctx, child)
	switch { // the mount stands, even if nobody reads that
	case err != nil:
		return err
	case !e.Quiet && (!m.helper || e.Verbose):
		_ = e.Print(line + "\n")
	case dir == "":
		_, _ = io.WriteString(e.Raw, line+"\n") // the directory, for a shell
	}
	return nil
}

// childArgs returns the arguments that give the child the flags of this process.
func childArgs(flags *pflag.FlagSet) []string {
	return append([]string{"mount", "--" + detachedFlag}, changedFlags(flags)...)
}

// changedFlags returns the arguments that give another process the flags of this one. Paths
// in them become absolute.
func changedFlags(flags *pflag.FlagSet) (args []string) {
	flags.VisitAll(func(f *pflag.Flag) { // Visit misses flags before the command
		if !f.Changed || f.Name == optionFlag || f.Name == detachedFlag || f.Name == serve.SucceedFlag { // options have set flags
			return
		}
		value := f.Value.String()
		if f.Name == "cache-dir" || f.Name == "authfile" || f.Name == overlayFlag {
			if abs, err := filepath.Abs(value); err == nil {
				value = abs
			}
		}
		if f.Name == profileFlag {
			value = absProfile(value)
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args
}
