package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

// onMount calls do with the directory that an argument names, or on which the image is
// mounted that it names. Directories go first.
func (e *env) onMount(ctx context.Context, op, arg string, do func(dir string) error) error {
	if arg == "" { // as of a script whose variable is not set
		return cli.WithHint(cli.Usagef("%s: the name of the directory is empty", strings.TrimPrefix(commandOf(op), "imgfs ")), "imgfs ps lists what is mounted")
	}
	err := do(arg)
	if abs, bad := filepath.Abs(arg); bad == nil && !filepath.IsAbs(arg) && errors.Is(err, fusefs.ErrNotMounted) {
		if again := do(abs); !errors.Is(again, fusefs.ErrNotMounted) {
			return again // arg is "." of a shell that was there before the mount
		}
	}
	if err == nil || ctx.Err() != nil || !errors.Is(err, fusefs.ErrNoDir) && !errors.Is(err, fusefs.ErrNotMounted) && !errors.Is(err, fusefs.ErrNotDir) {
		return err
	}
	if root := bundleMount(arg); root != "" && errors.Is(err, fusefs.ErrNotMounted) {
		return do(root)
	}
	mine, others := mountsNamed(arg)
	switch {
	case len(mine) == 1 && errors.Is(err, fusefs.ErrNoDir):
		e.Warnf("%s is mounted on %s", printable.Name(mine[0].Name), printable.Name(mine[0].Place()))
		return do(mine[0].Place())
	case len(mine) > 1:
		return cli.WithHint(fmt.Errorf("%s %s: it is mounted on %s", op, arg, listDirs(mine)), commandOf(op)+" "+printable.Word(mine[0].Place()))
	case len(mine) == 1: // there is something of that name, too
		return cli.WithHint(err, printable.Name(mine[0].Name)+" is mounted elsewhere: "+commandOf(op)+" "+printable.Word(mine[0].Place()))
	case len(others) > 0:
		return cli.WithHint(fmt.Errorf("%s %s: %w: %s has mounted it on %s", op, arg, fusefs.ErrForeign, others[0].Owner, listDirs(others)), commandOf(op)+" "+printable.Word(others[0].Place())+", as that user or root")
	case errors.Is(err, fusefs.ErrNotMounted):
		if m, inside := fusefs.MountOf(ctx, arg); inside == nil && op == "unmount" {
			return cli.WithHint(err, "it is in a mount: imgfs umount "+printable.Word(m.Place()))
		}
		if op == "unmount" {
			return cli.WithHint(err, "imgfs ps shows what is mounted where")
		}
	case errors.Is(err, fusefs.ErrNoDir) && wholeImage("", arg, "") != nil:
		return wholeImage(strings.TrimPrefix(commandOf(op), "imgfs "), arg, "")
	case errors.Is(err, fusefs.ErrNoDir) && namesImage(arg):
		return cli.WithHint(fmt.Errorf("%w, and no image of that name is mounted", err), "imgfs ps shows what is mounted where")
	}
	return err
}

// commandOf is the command of an operation.
func commandOf(op string) string {
	if op == "unmount" {
		return "imgfs umount"
	}
	return "imgfs " + op
}

// listDirs lists where images are mounted.
func listDirs(mounts []fusefs.MountPoint) string {
	const most = 8
	var dirs []string
	for i, m := range mounts {
		if i == most {
			dirs = append(dirs, fmt.Sprintf("%d more", len(mounts)-most))
			break
		}
		dirs = append(dirs, printable.Name(m.Place()))
	}
	return strings.Join(dirs, ", ")
}

// mountsNamed returns the mounts of an image: those of this user, and those of others,
// who choose freely what a mount of theirs is called.
func mountsNamed(name string) (mine, others []fusefs.MountPoint) {
	all, err := fusefs.Mounts()
	if err != nil {
		return nil, nil
	}
	for _, same := range sameImage(name) {
		for _, m := range all {
			switch {
			case !same(m.Name):
			case m.Own():
				mine = append(mine, m)
			default:
				others = append(others, m)
			}
		}
		if len(mine)+len(others) > 0 {
			return mine, others
		}
	}
	return nil, nil
}

// sameImage returns what tells whether a mounted image is the one that is named, the
// strictest first: by its full name, by the end of that, and without its tag.
func sameImage(name string) []func(mounted string) bool {
	equal := func(full string) func(string) bool { return func(mounted string) bool { return mounted == full } }
	tests := []func(string) bool{equal(name)}
	loc, err := remote.ParseLocation(name)
	if err != nil {
		return tests
	}
	if loc.Transport != remote.TransportDocker {
		if abs, err := filepath.Abs(loc.Path); err == nil && loc.InFile() {
			loc.Path = abs
			tests = append(tests, equal(loc.String()))
		}
		return append(tests, func(mounted string) bool {
			m, err := remote.ParseLocation(mounted)
			return err == nil && loc.Image == "" && m.Transport == loc.Transport && m.Path == loc.Path
		})
	}
	if abs, err := filepath.Abs(name); err == nil {
		tests = append(tests, func(mounted string) bool {
			m, err := remote.ParseLocation(mounted)
			return err == nil && m.Transport != remote.TransportDocker && m.Path == abs
		})
	}
	ref, err := remote.ParseReference(loc.Path)
	if err != nil {
		return tests
	}
	tests = append(tests, equal(ref.String()))
	tagged := strings.Contains(loc.Path[strings.LastIndexByte(loc.Path, '/')+1:], ":") || strings.Contains(loc.Path, "@")
	if tagged {
		return append(tests, func(mounted string) bool { return strings.HasSuffix(mounted, "/"+loc.Path) })
	}
	return append(tests,
		func(mounted string) bool { return strings.HasSuffix(mounted, "/"+loc.Path+":latest") },
		func(mounted string) bool {
			m, err := remote.ParseReference(mounted)
			return err == nil && (m.Name() == ref.Name() || strings.HasSuffix(m.Name(), "/"+loc.Path))
		})
}
