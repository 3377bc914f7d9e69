package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// A podmanRemover is imgfs podman rm.
type podmanRemover struct {
	podmanStore
	force, all bool
}

func podmanRmCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "rm",
		Usage: "[--force] IMAGE... | ID... | --all",
		Entry: cli.Entry{Usage: "IMAGE...", Text: "unmount images, and take them out of the store"},
		About: `Takes images out of the image store, and unmounts them. One stays that a
container or another image of podman needs, whether the container runs or not,
unless --force is given: then a container that runs goes on until it ends, and
cannot be started again. What the cache has of the image stays.`,
		Example: "imgfs podman rm fedora:latest",
		Setup: func(f *pflag.FlagSet) cli.Action {
			p := &podmanRemover{podmanStore: podmanStore{env: e}}
			p.storeFlag(f)
			f.BoolVarP(&p.force, "force", "f", false, "also if something needs it")
			f.BoolVarP(&p.all, "all", "a", false, "all that is in the store")
			return p.run
		},
	}
}

func (p *podmanRemover) run(ctx context.Context, args []string) error {
	switch {
	case p.all && len(args) > 0:
		return cli.Usagef("podman rm: --all, or images, and not both")
	case !p.all && len(args) == 0:
		return cli.WithHint(cli.Usagef("podman rm: no image named"), "imgfs podman ls lists them")
	}
	if err := p.check("rm", args); err != nil {
		return err
	}
	store, err := p.open()
	if err != nil {
		return err
	}
	if err := p.sweep(ctx, store); err != nil {
		return err
	}
	if p.all {
		images, err := store.Images(ctx)
		if err != nil {
			return err
		}
		for _, img := range images {
			args = append(args, img.ID)
		}
	}
	return p.env.Each(args, func(arg string) error { return p.remove(ctx, store, arg) })
}

// remove removes an image. It is unmounted before it is taken out of the lists: if that
// cannot be, nothing has changed, and who uses it in between is told that it is not there.
func (p *podmanRemover) remove(ctx context.Context, store *podstore.Store, word string) error {
	img, err := p.find(ctx, store, word)
	if err != nil {
		return err
	}
	held, err := store.Hold(ctx, img.Layer)
	if err != nil {
		return err
	}
	defer held.Release()
	if uses := store.Uses(img, graphRoots()); len(uses) > 0 && !p.force {
		return cli.WithHint(fmt.Errorf("podman rm %s: in use by %s", printable.Name(word), listUses(uses)), "podman rm and podman rmi remove those; imgfs podman rm --force takes it away from them")
	}
	if err := unmount(ctx, held.Mountpoint(), p.force); err != nil && !isUnmounted(err) {
		return err
	}
	return store.Remove(ctx, img.ID)
}

// listUses lists what uses an image.
func listUses(uses []string) string {
	const most = 8
	var names []string
	for i, use := range uses {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(uses)-most))
			break
		}
		names = append(names, printable.Name(use))
	}
	return strings.Join(names, ", ")
}
