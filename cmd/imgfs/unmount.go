package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func umountCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "umount",
		Aliases: []string{"unmount"},
		Usage:   "[-l] DIR | IMAGE... | --all",
		Entry:   cli.Entry{Usage: "DIR...", Text: "unmount it again; also: upgrade"},
		About: `Unmounts what imgfs mount has mounted: on a directory, or the image if that is
mounted once. With --all it unmounts all that this user has mounted, dead mounts
too, those first that are inside of others; root's leaves other users' alone.
What is in use stays, is named with what uses it, and the exit code is 1. What
was written with --overlay stays in its directory.`,
		Example: "imgfs umount ~/fedora",
		OtherFlags: map[string]string{
			"-f": "-l, also if it is in use", "--force": "--lazy", "-z": "-l", "-u": "leave it out",
			"-R": "leave it out", "--recursive": "leave it out",
		},
		Setup: func(f *pflag.FlagSet) cli.Action {
			all := f.BoolP("all", "a", false, "all that this user has mounted")
			lazy := f.BoolP("lazy", "l", false, "also if it is in use: gone from its place now, ended when unused")
			return func(ctx context.Context, args []string) error {
				one := func(dir string) error { return unmount(ctx, dir, *lazy) }
				switch {
				case *all && len(args) > 0:
					return cli.Usagef("umount: --all, or what is to be unmounted, and not both")
				case *all:
					return e.unmountAll(one)
				case len(args) == 0:
					return cli.WithHint(cli.Usagef("umount: no directory and no image named"), "imgfs ps lists what is mounted, --all unmounts all of it")
				}
				return e.Each(args, func(arg string) error { return e.onMount(ctx, "unmount", arg, one) })
			}
		},
	}
}

// unmount unmounts what is mounted on a directory, and removes it if imgfs made it.
func unmount(ctx context.Context, dir string, lazy bool) error {
	do := fusefs.Unmount
	if lazy {
		do = fusefs.UnmountLazy
	}
	both, err := mountAt(ctx, dir)
	if err == nil {
		err = do(ctx, dir)
	}
	if err != nil {
		return whyStopped(ctx, both, err)
	}
	serve.Continue(ctx, both)
	_ = serve.RemoveDead(ctx, dir) // what lay under it: what stays is named by imgfs ps
	serve.RemoveBoth(both)
	serve.Forget(ctx, both)
	serve.SweepLeft(ctx)
	return nil
}

// whyStopped adds to why a mount is in the way which of its processes is stopped, if one is:
// who waits for that keeps it in use.
func whyStopped(ctx context.Context, m fusefs.MountPoint, err error) error {
	var e *fusefs.Error
	if m.Device == "" || ctx.Err() != nil || !errors.As(err, &e) || !errors.Is(err, fusefs.ErrBusy) && !errors.Is(err, fusefs.ErrNoAnswer) {
		return err
	}
	p, ok := serve.FindStopped(ctx, m)
	if !ok {
		return err
	}
	said := *e
	said.Err = fmt.Errorf("%w; %v", e.Err, p)
	said.Hint = fmt.Sprintf("kill -CONT %d, or imgfs umount -l %s", p.PID, printable.Word(m.Place()))
	return &said
}

// unmountAll unmounts all that this user has mounted. What another mount hides, on its
// directory or on one above, can be unmounted after that.
func (e *env) unmountAll(one func(dir string) error) error {
	dirs, err := ownMounts()
	if err != nil {
		return err
	}
	var failed error
	for len(dirs) > 0 {
		var hidden []string
		if err := e.Each(dirs, func(dir string) error {
			err := one(dir)
			if errors.Is(err, fusefs.ErrNoDir) || errors.Is(err, fusefs.ErrNotDir) || errors.Is(err, fusefs.ErrNotMounted) {
				hidden = append(hidden, dir)
				return nil
			}
			return err
		}); err != nil {
			failed = err
		}
		left, err := ownMounts()
		if err != nil {
			return err
		}
		hidden = slices.DeleteFunc(hidden, func(dir string) bool { return !slices.Contains(left, dir) }) // others unmount, too
		if len(hidden) == len(dirs) {
			return e.Each(hidden, func(dir string) error { return fmt.Errorf("unmount %s: %w", printable.Name(dir), fusefs.ErrHidden) })
		}
		dirs = hidden
	}
	return failed
}

// ownMounts returns where this user has mounted images, in the order in which they can
// be unmounted.
func ownMounts() ([]string, error) {
	mounts, err := fusefs.Mounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range mounts {
		if m.Own() {
			dirs = append(dirs, m.Place())
		}
	}
	return innerFirst(dirs), nil
}

// innerFirst sorts directories, in the order of the mounting on them: what is inside of
// another mount, or over it, comes before that.
func innerFirst(dirs []string) []string {
	slices.Reverse(dirs) // one mounted on another is the later one
	slices.SortStableFunc(dirs, func(a, b string) int { return cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")) })
	return dirs
}

// mountAt returns the mount whose directory, or whose writable view's, a path leads to,
// and else one that has that directory alone. Nothing is asked of what is mounted. The
// error says that what is on the way to it does not answer, or that ctx has ended.
func mountAt(ctx context.Context, dir string) (fusefs.MountPoint, error) {
	at := dir
	above, err := fusefs.Ask(ctx, func(context.Context) (string, error) { return filepath.EvalSymlinks(filepath.Dir(dir)) })
	switch {
	case ctx.Err() != nil:
		return fusefs.MountPoint{}, context.Cause(ctx)
	case errors.Is(err, fusefs.ErrNoAnswer):
		return fusefs.MountPoint{}, &fusefs.Error{Op: "unmount", Dir: dir, Err: err, Hint: fusefs.HintNoAnswer(dir)}
	case err == nil:
		at = filepath.Join(above, filepath.Base(dir))
	}
	at, err = filepath.Abs(at)
	mounts, failed := fusefs.Mounts()
	if err != nil || failed != nil {
		return fusefs.MountPoint{Dir: dir}, nil
	}
	for _, m := range slices.Backward(mounts) {
		if m.Dir == at || m.Shown == at {
			return m, nil
		}
	}
	return fusefs.MountPoint{Dir: dir}, nil
}
