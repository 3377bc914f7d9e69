package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/remote/containersstorage"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

func podmanLsCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "ls",
		Usage: "[--json]",
		Entry: cli.Entry{Usage: "", Text: "list the images of the store, and their mounts"},
		About: `Lists the images of the image store: name, ID, size, when it was added, and the
health of its mount, as imgfs ps has it, or "not mounted": after a boot, until
imgfs podman add --all. With -q only IDs.`,
		Example: "imgfs podman ls",
		Setup: func(f *pflag.FlagSet) cli.Action {
			p := &podmanStore{env: e}
			p.storeFlag(f)
			asJSON := f.Bool("json", false, "an object; docs/json.md names its members")
			e.bytesFlag(f)
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("podman ls: %s: it takes no argument", printable.Name(args[0]))
				}
				if err := p.check("ls", nil); err != nil {
					return err
				}
				list, err := p.list(ctx)
				switch {
				case err != nil:
					return err
				case *asJSON:
					return show.JSON(e.Stdout, list)
				}
				return p.print(list)
			}
		},
	}
}

// A podmanList is what imgfs podman ls --json prints.
type podmanList struct {
	Store      string         `json:"store"`
	StoreBytes show.NameBytes `json:"storeBytes,omitempty"`
	Configured bool           `json:"configured"` // whether storage.conf names it
	Images     []podmanImage  `json:"images"`
}

// A podmanImage is an image of the store.
type podmanImage struct {
	ID       string        `json:"id"`
	Names    []string      `json:"names"`
	Manifest digest.Digest `json:"manifest"`
	Source   string        `json:"source"` // what imgfs mounts
	Layers   int           `json:"layers"`
	Size     int64         `json:"size"`
	Created  time.Time     `json:"created,omitzero"`
	Added    time.Time     `json:"added"`
	Dir      string        `json:"dir"`
	Health   string        `json:"health"`
	Why      string        `json:"why,omitempty"`
	PID      int           `json:"pid,omitempty"`
}

// list returns what is in the store. In one that is not there is nothing.
func (p *podmanStore) list(ctx context.Context) (*podmanList, error) {
	list := &podmanList{Images: []podmanImage{}}
	store, err := p.open()
	if errors.Is(err, podstore.ErrNoStore) {
		list.Store, err = p.directory()
		return list, err
	}
	if err != nil {
		return nil, err
	}
	list.Store = store.Dir()
	if conf, err := containersstorage.ReadConfig(); err == nil {
		list.Configured = slices.Contains(conf.ImageStores, store.Dir())
	}
	images, err := store.Images(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := p.mounts(ctx, store)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		row := podmanImage{ID: img.ID, Names: append([]string{}, img.Names...), Manifest: img.Manifest, Source: img.Source, Layers: img.Layers, Size: img.Size,
			Created: img.Created, Added: img.Added, Dir: store.Mountpoint(img.Layer)}
		m := mounts[row.Dir]
		row.Health, row.Why, row.PID = cmp.Or(m.Health, healthUnmounted), m.Why, m.PID
		list.Images = append(list.Images, row)
	}
	return list, nil
}

// print prints a list for people.
func (p *podmanStore) print(list *podmanList) error {
	e := p.env
	if e.Quiet {
		for _, img := range list.Images {
			if _, err := io.WriteString(e.Raw, img.ID+"\n"); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list.Images) > 0 {
		t := show.NewTable(e.tableWidth(), show.Column{Title: "IMAGE", Least: 20}, show.Column{Title: "ID"}, show.Column{Title: "SIZE", Drop: 2},
			show.Column{Title: "ADDED", Drop: 1}, show.Column{Title: "HEALTH", Wrap: true})
		for _, img := range list.Images {
			health := img.Health
			if img.Why != "" {
				health += ": " + img.Why
			}
			names := append(slices.Clone(img.Names), "-")
			for i, name := range names[:max(1, len(img.Names))] {
				cells := []string{printable.Cell(name), img.ID[:min(len(img.ID), 12)], e.size(img.Size), img.Added.Local().Format("2006-01-02 15:04"), printable.Cell(health)}
				if i > 0 { // a further name of the same image
					cells = []string{cells[0], cells[1], "", "", ""}
				}
				t.Row(cells...)
			}
		}
		if err := t.Print(e.Stdout); err != nil {
			return err
		}
	} else if _, terminal := cli.Terminal(e.Raw); terminal {
		if err := e.printLine("there is nothing in %s", printable.Name(list.Store)); err != nil {
			return err
		}
	}
	if !list.Configured && len(list.Images) > 0 {
		e.Warnf("storage.conf does not name %s, so podman does not look there; imgfs podman add %s--write-conf IMAGE adds it", printable.Name(list.Store), p.same())
	}
	return nil
}
