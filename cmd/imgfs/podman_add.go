package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// podmanMountFlags are the flags of imgfs mount that podman add has too. Help lists none of
// them.
var podmanMountFlags = []string{"grace", "prefetch", profileFlag, publishFlag, "provenance", "passthrough", "io-uring", "read-timeout", "retries", "max-requests"}

// A podmanAdder is imgfs podman add.
type podmanAdder struct {
	podmanStore
	name      string
	all       bool
	writeConf bool
	mounting  *lentMount
}

func podmanAddCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "add",
		Usage: "[FLAGS] IMAGE... | --all",
		Entry: cli.Entry{Usage: "IMAGE...", Text: "mount images for podman, buildah and CRI-O"},
		About: `Mounts an image in the image store, where podman finds it by its name. What is
in the store already is mounted again if it is not, as after a boot; --all does
that for all of them. Nothing is pulled: what is read is fetched.`,
		Notes:   "Flags of mount (imgfs mount --help) are for the mounts.",
		Example: "imgfs podman add fedora:latest && podman run --rm fedora:latest id",
		OtherFlags: map[string]string{
			"-t": "--name NAME", "--tag": "--name NAME", "-a": "--all", "--root": "--store DIR", "--policy": "leave it out: podman add asks for the newest, if it can",
		},
		Setup: func(f *pflag.FlagSet) cli.Action {
			p := &podmanAdder{podmanStore: podmanStore{env: e}}
			p.storeFlag(f)
			f.BoolVar(&p.all, "all", false, "mount all again that the store has")
			f.StringVar(&p.name, "name", "", "`NAME` what podman calls the image, in place of its own name")
			f.BoolVar(&p.writeConf, "write-conf", false, "add the store to storage.conf, if it is not there")
			p.mounting = lendMount(e, f, podmanMountFlags)
			return p.run
		},
	}
}

func (p *podmanAdder) run(ctx context.Context, args []string) error {
	switch {
	case p.all && (len(args) > 0 || p.name != ""):
		return cli.Usagef("podman add: --all, or images, and not both")
	case !p.all && len(args) == 0:
		return cli.WithHint(cli.Usagef("podman add: no image named"), "imgfs podman add IMAGE")
	case p.name != "" && len(args) > 1:
		return cli.Usagef("podman add: --name is for one image, and there are %d", len(args))
	}
	if err := p.check("add", args); err != nil {
		return err
	}
	if err := p.mounting.setNetwork(); err != nil {
		return err
	}
	if err := p.setMount(); err != nil {
		return err
	}
	dir, err := p.directory()
	if err != nil {
		return err
	}
	store, err := podstore.Create(ctx, dir)
	if err != nil {
		return storeError(err)
	}
	if err := p.sweep(ctx, store); err != nil {
		return err
	}
	if p.all {
		return p.again(ctx, store)
	}
	failed := p.env.Each(args, func(arg string) error { return p.add(ctx, store, arg) })
	if err := p.configure(ctx, store); err != nil {
		p.env.Error(err)
		failed = &cli.ExitError{}
	}
	return failed
}

// setMount sets flags of the mounts. Who may see the tree, and what setuid programs and
// devices in it may do, is for the engine to say: the directory that it is mounted in lets in
// nobody else. An overlayfs on it could be no layer of another one if the kernel read files by
// itself.
func (p *podmanAdder) setMount() error {
	flags := map[string]string{"passthrough": "off", "allow-other": "true"}
	if !fusefs.InUserNamespace() {
		flags[suidFlag], flags[devFlag] = "true", "true"
	}
	for name, value := range flags {
		if p.mounting.theirs.Changed(name) {
			continue
		}
		if err := p.mounting.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// add adds an image to the store, and mounts it.
func (p *podmanAdder) add(ctx context.Context, store *podstore.Store, name string) error {
	if err := wholeImage("podman add", name, ""); err != nil {
		return err
	}
	if readsStdin(name) {
		return cli.WithHint(cli.Usagef("podman add: -: an image on standard input can be read only once"), "cat > FILE, and then imgfs podman add FILE")
	}
	img, err := p.resolve(ctx, name)
	if err != nil {
		return err
	}
	if err := p.mountHeld(ctx, store, img, true); err != nil {
		return err
	}
	if p.env.Quiet {
		_, err := io.WriteString(p.env.Raw, img.ID+"\n")
		return err
	}
	return p.env.Print(fmt.Sprintf("%s is image %s of podman\n", called(img), shortID(img)))
}

// again mounts all images of the store that are not mounted.
func (p *podmanAdder) again(ctx context.Context, store *podstore.Store) error {
	images, err := store.Images(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, img := range images {
		if err := p.mountHeld(ctx, store, img, false); err != nil {
			p.env.Error(fmt.Errorf("%s: %w", called(img), err))
			failed = &cli.ExitError{}
		}
	}
	return failed
}

// resolve finds an image, and returns it as the store is to have it.
func (p *podmanAdder) resolve(ctx context.Context, name string) (*podstore.Image, error) {
	disk, err := p.env.openCache()
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	r, err := p.env.resolve(ctx, name, disk)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content := &podstore.Content{Manifest: r.Manifest, Config: r.Config, Index: r.Raw}
	if content.Source, content.Names, err = p.names(ctx, name, r); err != nil {
		return nil, err
	}
	img, err := podstore.NewImage(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable.Name(r.Name()), err)
	}
	return img, nil
}

// names returns the name by which an image is mounted, now and after a boot, and those by
// which podman finds it. One of a registry is mounted by its digest: a tag moves.
func (p *podmanAdder) names(ctx context.Context, name string, r *image.Resolved) (source string, names []string, err error) {
	if source, err = p.env.located(ctx, name); err != nil {
		return "", nil, err
	}
	if source, err = absLocation(source); err != nil {
		return "", nil, err
	}
	if loc, err := remote.ParseLocation(source); err == nil && loc.Transport == remote.TransportDocker {
		if ref, err := remote.ParseReference(r.Name()); err == nil {
			names = []string{ref.String()}
			ref.Tag, ref.Digest = "", r.Descriptor.Digest
			source = ref.String()
		}
	}
	if p.name != "" {
		full := fullNames(p.name)
		if len(full) == 0 {
			return "", nil, cli.Usagef("podman add: --name %s: it is no name of an image", printable.Name(p.name))
		}
		names = full[:1]
	}
	return source, names, nil
}

// mountHeld mounts an image of the store, unless it is mounted, and adds it. No other process
// does anything with it meanwhile.
func (p *podmanAdder) mountHeld(ctx context.Context, store *podstore.Store, img *podstore.Image, add bool) (err error) {
	held, err := store.Hold(ctx, img.Layer)
	if err != nil {
		return err
	}
	defer held.Release()
	dir := held.Mountpoint()
	mounts, err := p.mounts(ctx, store)
	if err != nil {
		return err
	}
	if m, ok := mounts[dir]; !ok || !usable(m.Health) {
		if err := p.mount(ctx, img, held); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				_ = unmount(context.WithoutCancel(ctx), dir, false) // else the next command does it
			}
		}()
		if mounts, err = p.mounts(ctx, store); err != nil {
			return err
		}
		if got := mounts[dir].Manifest; got != "" && got != img.Manifest {
			return fmt.Errorf("%s: it has become %s meanwhile; it was %s", printable.Name(img.Source), got, img.Manifest)
		}
	}
	if !add {
		return nil
	}
	if err := p.look(ctx, img, dir); err != nil {
		return err
	}
	return store.Add(ctx, img)
}

// mount mounts an image that is held.
func (p *podmanAdder) mount(ctx context.Context, img *podstore.Image, held *podstore.Held) error {
	if err := held.MakeMountpoint(); err != nil {
		return err
	}
	// That it is mounted is no news here.
	stdout := p.env.Stdout
	p.env.Stdout = io.Discard
	defer func() { p.env.Stdout = stdout }()
	return p.mounting.mount(ctx, img.Source, held.Mountpoint())
}

// look notes what is to be known of the mounted image: its size, and a directory in its root.
func (p *podmanAdder) look(ctx context.Context, img *podstore.Image, dir string) error {
	_, err := fusefs.Ask(ctx, func(context.Context) (struct{}, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return struct{}{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		img.Size = int64(st.Blocks) * int64(st.Bsize)
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() && img.SetInside(e.Name()) {
				break
			}
		}
		return struct{}{}, err
	})
	if err == nil && !img.Checked() {
		p.env.Warnf("%s has no directory in its root: podman cannot tell when it is not mounted", called(img))
	}
	return err
}

// configure has podman look into the store: it adds the store to storage.conf if that was
// asked for, and else says what is to be added.
func (p *podmanAdder) configure(ctx context.Context, store *podstore.Store) error {
	conf, err := containersstorage.ReadConfig()
	if err != nil {
		return err
	}
	if conf.Driver != "" && conf.Driver != "overlay" {
		p.env.Warnf("podman keeps its layers by the driver %s, and can use images of imgfs by overlay alone: driver of %s", printable.Name(conf.Driver), printable.Name(conf.File))
	}
	if slices.Contains(conf.ImageStores, store.Dir()) {
		return nil
	}
	if !p.writeConf {
		p.env.Warnf("podman does not look into %s yet; imgfs podman add %s--write-conf adds these lines to %s:", printable.Name(store.Dir()), p.same(), printable.Name(conf.Own))
		for line := range bytes.Lines([]byte(containersstorage.ImageStoreLines(store.Dir()))) {
			p.env.Warnf("%s", bytes.TrimSpace(line))
		}
		return nil
	}
	return p.write(ctx, conf.Own, store)
}
