package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func podmanCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "podman",
		Usage:    "add | ls | rm",
		Unlisted: true, // the entry of run names it
		About: `Gives podman, buildah and CRI-O images that are not pulled: they find them in an
additional image store, in which each image is a mount of imgfs. Containers,
builds and commits go on as usual. docs/engines.md has the details.`,
		Others: map[string]string{
			"list": "imgfs podman ls", "images": "imgfs podman ls", "remove": "imgfs podman rm IMAGE", "rmi": "imgfs podman rm IMAGE", "delete": "imgfs podman rm IMAGE",
			"pull": "imgfs podman add IMAGE", "mount": "imgfs podman add IMAGE", "run": "imgfs podman add IMAGE, and then podman run IMAGE",
		},
		Commands: []cli.Command{podmanAddCommand(e), podmanLsCommand(e), podmanRmCommand(e)},
		Notes: `The store is /var/lib/imgfs/podman, or ~/.local/share/imgfs/podman of a plain
user, who has to type podman unshare before imgfs podman.`,
		Example: "imgfs podman ls",
	}
}

// A podmanStore is what the commands of imgfs podman work on.
type podmanStore struct {
	env *env
	dir string // "" for the usual one
}

// storeFlag declares the flag for the directory of the store.
func (p *podmanStore) storeFlag(f *pflag.FlagSet) {
	f.StringVar(&p.dir, "store", "", "`DIR` the image store, in place of the usual one")
}

// same returns the flags that lead to the store another time, with a space behind them.
func (p *podmanStore) same() string {
	if p.dir == "" {
		return ""
	}
	return "--store " + printable.Word(p.dir) + " "
}

// directory returns the directory of the store.
func (p *podmanStore) directory() (string, error) {
	conf, err := containersstorage.ReadConfig()
	switch {
	case p.dir != "":
		return filepath.Abs(p.dir)
	case err != nil:
		return "", err
	case !conf.Rootless:
		return "/var/lib/imgfs/podman", nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if home := os.Getenv("HOME"); data == "" && home != "" {
		data = filepath.Join(home, ".local/share")
	}
	if !filepath.IsAbs(data) {
		return "", cli.WithHint(errors.New("there is no place for the image store: HOME is not set"), "--store DIR")
	}
	return filepath.Join(data, "imgfs/podman"), nil
}

// check refuses a user whose podman would not see what is mounted: that of a plain user
// has its mounts in a namespace of its own.
func (p *podmanStore) check(command string, args []string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	words := []string{"podman unshare imgfs podman", command}
	for _, arg := range args {
		words = append(words, printable.Word(arg))
	}
	return cli.WithHint(fmt.Errorf("podman %s: a plain user's podman has its mounts in a namespace of its own, and this process is not in it", command), strings.Join(words, " "))
}

// open returns the store. One that is not there is an error that wraps podstore.ErrNoStore.
func (p *podmanStore) open() (*podstore.Store, error) {
	dir, err := p.directory()
	if err != nil {
		return nil, err
	}
	store, err := podstore.Open(dir)
	return store, storeError(err)
}

// storeError adds a hint to an error about the directory of a store.
func storeError(err error) error {
	switch {
	case errors.Is(err, podstore.ErrForeign):
		return cli.WithHint(err, "--store DIR, with a directory that is new or empty")
	case errors.Is(err, podstore.ErrUnsafe):
		return cli.WithHint(err, "a directory of your own that nobody else may write: --store DIR")
	case errors.Is(err, podstore.ErrNoStore):
		return cli.WithHint(err, "imgfs podman add IMAGE makes it")
	}
	return err
}

// find returns the image that a word means.
func (p *podmanStore) find(ctx context.Context, store *podstore.Store, word string) (*podstore.Image, error) {
	images, err := store.Images(ctx)
	if err != nil {
		return nil, err
	}
	img, err := podstore.Find(images, word, fullNames(word)...)
	if err != nil {
		return nil, cli.WithHint(err, "imgfs podman ls")
	}
	return img, nil
}

// fullNames returns the names that podman has for images that a word can mean.
func fullNames(word string) (names []string) {
	word = strings.TrimPrefix(word, "docker://")
	ref, err := remote.ParseReference(word)
	if err != nil {
		return nil
	}
	if local, err := remote.ParseReference("localhost/" + word); err == nil && !namesRegistry(word) {
		names = append(names, local.String())
	}
	return append(names, ref.String())
}

// namesRegistry reports whether a name begins with that of a registry.
func namesRegistry(name string) bool {
	first, _, slash := strings.Cut(name, "/")
	return slash && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// mounts returns what is mounted of a store, by directory.
func (p *podmanStore) mounts(ctx context.Context, store *podstore.Store) (map[string]serve.Running, error) {
	below := store.Mountpoint("") + "/"
	running, err := serve.Mounted(ctx, func(m fusefs.MountPoint) bool { return strings.HasPrefix(m.Dir, below) })
	if err != nil {
		return nil, err
	}
	all := map[string]serve.Running{}
	for _, r := range running {
		all[r.Dir] = r
	}
	return all, nil
}

// healthUnmounted is the health of an image of which nothing is mounted, as after a boot.
const healthUnmounted = "not mounted"

// usable reports whether engines can use a mount of this health.
func usable(health string) bool {
	return health == serve.HealthOK || health == serve.HealthDown || health == serve.HealthAgain
}

// sweep unmounts what processes have left mounted that were killed.
func (p *podmanStore) sweep(ctx context.Context, store *podstore.Store) error {
	held, err := store.Abandoned(ctx)
	for _, h := range held {
		if failed := unmount(ctx, h.Mountpoint(), false); failed != nil && !isUnmounted(failed) {
			p.env.Debugf("%v", failed) // another time
		}
		h.Release()
	}
	return err
}

// isUnmounted reports whether unmounting failed because nothing is mounted there.
func isUnmounted(err error) bool {
	return errors.Is(err, fusefs.ErrNotMounted) || errors.Is(err, fusefs.ErrNoDir)
}

// called returns what an image is called for people.
func called(img *podstore.Image) string {
	if len(img.Names) > 0 {
		return printable.Name(img.Names[0])
	}
	return shortID(img)
}

// shortID returns the ID of an image as podman shows it.
func shortID(img *podstore.Image) string { return img.ID[:min(len(img.ID), 12)] }

// graphRoots returns where engines keep their containers, as far as it is known. podman
// unshare says where podman does, whatever storage.conf has.
func graphRoots() []string {
	roots := []string{os.Getenv("CONTAINERS_GRAPHROOT")}
	if conf, err := containersstorage.ReadConfig(); err == nil {
		roots = append(roots, conf.GraphRoot, conf.ImageStore)
	}
	slices.Sort(roots)
	return slices.DeleteFunc(slices.Compact(roots), func(dir string) bool { return dir == "" })
}
