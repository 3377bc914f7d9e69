package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// A mounter is imgfs mount.
type mounter struct {
	foreground bool
	allowOther bool
	prefetch   bool
	provenance bool
	detached   bool // this is the process in the background
	grace      time.Duration

	passthrough, ioURing choice
}

// A choice is the value of a flag for what makes a mount faster. What is "on"
// and cannot be had fails the mount; "auto" never does.
type choice fusefs.Choice

var choices = []string{fusefs.Auto: "auto", fusefs.On: "on", fusefs.Off: "off"}

func (c *choice) String() string { return choices[*c] }

// Type is for messages of pflag.
func (c *choice) Type() string { return "choice" }

// Set is called with what the user wrote.
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
		Usage: "[FLAGS] IMAGE DIR",
		Entry: cli.Entry{Usage: "IMAGE DIR", Text: "mount the image's tree on DIR, read-only"},
		About: `Mounts the merged tree of an image on a directory, read-only. Returns when the tree can be used; a
process in the background serves it until it is unmounted (imgfs umount, fusermount3 -u, umount) or
gets a signal. It serves those on who use the tree by then, which is gone from DIR: see --grace.
With --offline an image mounts of which the indexes are in the cache; what is not there cannot be
read. Without, an image that no registry can be asked about is mounted as it was last seen.`,
		Column:  25,
		Example: "imgfs mount fedora:latest /mnt/fedora",
		Setup: func(f *pflag.FlagSet) cli.Action {
			m := mounter{}
			f.BoolVarP(&m.foreground, "foreground", "f", false, "serve in this process, until Ctrl-C or unmounting")
			f.DurationVar(&m.grace, "grace", defaultGrace, "`T` how long those who use the tree are served on after a signal (default 30s)")
			f.BoolVar(&m.allowOther, "allow-other", false, "let other users in (needs root, or user_allow_other in /etc/fuse.conf)")
			f.BoolVar(&m.prefetch, "prefetch", false, "bring all of the image into the cache, while nobody reads")
			set := networkFlags(f)
			f.BoolVar(&m.provenance, "provenance", false, "list the attributes user.imgfs.layer, .digest and .offset, which say where\n"+
				"a file comes from; without it they are there for who asks by name")
			f.Var(&m.passthrough, "passthrough", "`W` \"on\": the kernel reads cached files by itself; \"off\", or \"auto\" (default)")
			f.Var(&m.ioURing, "io-uring", "`W` \"on\": requests come through io_uring; \"off\", or \"auto\" (default)")
			f.BoolVar(&m.detached, detachedFlag, false, "this is the process in the background")
			f.Lookup(detachedFlag).Hidden = true
			return func(ctx context.Context, args []string) error {
				if err := set(&e.network); err != nil {
					return err
				}
				switch {
				case len(args) != 2:
					return cli.Usagef("mount: an image and a directory are needed")
				case m.prefetch && e.offline:
					return cli.Usagef("mount: --prefetch and --offline exclude each other")
				case m.grace < 0:
					return cli.Usagef("--grace %s: less than nothing", m.grace)
				case m.foreground || m.detached:
					return m.serve(ctx, e, args[0], args[1])
				}
				return m.detach(ctx, e, args[0], args[1], f)
			}
		},
	}
}

func (m *mounter) options(img string) *fusefs.Options {
	return &fusefs.Options{Name: img, AllowOther: m.allowOther, Provenance: m.provenance,
		Passthrough: fusefs.Choice(m.passthrough), IOUring: fusefs.Choice(m.ioURing), EndAlone: m.detached}
}

// serve mounts the image and serves it until it is unmounted.
func (m *mounter) serve(ctx context.Context, e *env, name, dir string) error {
	begun := time.Now()
	var shell *parent
	if m.detached {
		shell, ctx = newParent(ctx)
	}
	opts := m.options(name)
	to, err := fusefs.Check(ctx, dir, opts)
	if err != nil {
		return err
	}
	defer to.Close()
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	dir = to.Dir()
	if err := outside(dir, disk.Dir()); err != nil {
		return err
	}
	img, t, err := e.tree(ctx, name, disk)
	if err != nil {
		return err
	}
	defer t.Close()
	defer usedUntilNow(img, disk)
	if m.prefetch && isLocal(name) {
		e.Warnf("%s is on this machine: there is nothing to fetch", img.Source.Name())
		m.prefetch = false
	}
	shown := &shownTree{to: to, opts: opts, img: img, tree: t, cache: disk, begun: begun, shell: shell}
	// Nobody may read what it says any more: the write fails then, and the
	// process goes on.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ended, ok := e.life.serve()
	if !ok {
		return context.Cause(ctx)
	}
	defer ended()
	return m.serveTree(ctx, e, shown, ended)
}

// A shownTree is what is mounted, and where.
type shownTree struct {
	to    *fusefs.Target
	opts  *fusefs.Options
	img   *remote.Image
	tree  *image.Image
	cache *cache.Cache
	begun time.Time // when the command was
	shell *parent   // nil in the foreground
}

// serveTree mounts a tree and serves it until it is unmounted, which ended is
// called for.
func (m *mounter) serveTree(ctx context.Context, e *env, n *shownTree, ended func()) error {
	dir := n.to.Dir()
	log, tell := newMountLog(e, dir, n.cache), newTeller(e, n.img, n.tree, dir, n.cache)
	n.opts.Name, n.opts.Logf, n.opts.Control, n.opts.Told = n.img.Source.Name(), log.printf, tell.control, e.network.told
	n.opts.Backings, n.opts.Reads = backings{n.tree}, n.tree.Reads
	srv, err := n.to.Mount(ctx, n.tree.Tree(), n.opts)
	if err != nil {
		return err
	}
	n.to.Close() // what it is in stays busy no longer than the mount is there
	tell.serving(srv.FastPaths())
	kept := srv.DropPrivileges()
	say := e.Warnf
	if n.shell != nil {
		say = log.printf
	}
	end := newCloser(srv, dir, m.grace, say)
	err = end.meanwhile(ctx, func() error {
		m.settled(e, kept)
		line := summary(n.img, n.tree, dir, n.cache.Stats(), time.Since(n.begun))
		if n.shell != nil {
			log.toFile()
			e.SetOutput(func(line string) { log.printf("%s", line) })
			return n.shell.release(line)
		}
		if e.Quiet {
			return nil
		}
		_, err := fmt.Fprintln(e.Stdout, line)
		return err
	})
	if err != nil {
		return errors.Join(err, end.end())
	}
	go debug.FreeOSMemory() // what mounting took, and serving does not need
	e.network.tellTo(log.printf)
	if m.prefetch {
		defer tell.beginPrefetch(ctx, e)()
	}
	err = end.untilUnmounted(ctx)
	ended()
	return err
}

// settled says what is worth knowing of a process that begins its long life as a
// server. kept is why it has capabilities still that it does not need.
func (m *mounter) settled(e *env, kept error) {
	if os.Geteuid() == 0 && !m.allowOther {
		e.Warnf("only root can read it; --allow-other lets others in")
	}
	if kept != nil {
		e.Debugf("capabilities are kept that serving does not need: %v", kept)
	}
}

// outside refuses a mountpoint, a path without symlinks, that the mount would
// have to be read through to serve it.
func outside(dir, disk string) error {
	abs, err := filepath.EvalSymlinks(disk)
	if err == nil {
		disk, err = filepath.Abs(abs)
	}
	if err != nil {
		return err
	}
	if disk == dir || strings.HasPrefix(disk, strings.TrimSuffix(dir, "/")+"/") {
		return fmt.Errorf("%s holds the cache directory %s, which a mount there would hide", dir, disk)
	}
	return nil
}

// summary is the line that says what was mounted.
func summary(img *remote.Image, t *image.Image, dir string, s cache.Stats, took time.Duration) string {
	return fmt.Sprintf("mounted %s on %s: %s, %d files, fetched %s in %.2f s",
		printable.Name(img.Source.Name()), printable.Name(dir), printable.Name(img.Top.Digest.String()), t.Tree().Len(), show.Bytes(s.Fetched+s.Recorded+s.MetaFetched), took.Seconds())
}

func umountCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "umount",
		Aliases: []string{"unmount"},
		Usage:   "[-l] DIR...",
		Entry:   cli.Entry{Usage: "DIR...", Text: "unmount it again"},
		About:   "Unmounts what imgfs mount has mounted.",
		Example: "imgfs umount /mnt/fedora",
		Setup: func(f *pflag.FlagSet) cli.Action {
			lazy := f.BoolP("lazy", "l", false, "also if it is in use: gone from its place now, ended when unused")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("umount: no directory named")
				}
				unmount := fusefs.Unmount
				if *lazy {
					unmount = fusefs.UnmountLazy
				}
				return e.Each(args, func(dir string) error { return unmount(ctx, dir) })
			}
		},
	}
}
